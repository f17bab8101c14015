"""What training an agent costs, beside the paper's recipe.

    python -m benchmarks agent-training --images faces128_train.tar --train-images 120 --model face-8x

Records the episodes (100 images × 3 noise seeds, and 20 images to choose by), trains the paper's agent and
prints network evaluations and minutes until the plateau: the first evaluation within 0.5 % of the best.
Writes ``benchmarks/results/agents/<model>/training.md``.
"""

from __future__ import annotations

import argparse
import csv

import torch

from skipdiff_agents.settings import read_settings
from skipdiff_agents.train import LOG
from skipdiff_env.diffusion.pretrained import write_atomically
from skipdiff_env.oracle import optimum_calls

from .agents_study import add_study_arguments, open_study, say

PAPER_EVALUATIONS = 50_000 * 4 * 17
"""Iterations × episodes × evaluations an episode (9 of CSA, about 8 of FSR)."""
PLATEAU = 0.995


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments."""
    add_study_arguments(parser, test=False)
    parser.set_defaults(train_images=120, seeds=1)
    parser.add_argument("--metric", default="niqe", help="the reward's metric [niqe]")
    parser.add_argument("--algo", default="recurrent_ppo", help="which agent [recurrent_ppo, the paper's]")
    parser.add_argument(
        "--own-size", action="store_true", help="latents of the algorithm's own size, not --size"
    )


def run(args: argparse.Namespace) -> int:
    """Record, train, print."""
    settings = read_settings(args.algo)
    if not args.own_size:
        settings["observation_size"] = args.size
    settings["timesteps"] = args.timesteps or settings["timesteps"]
    study = open_study(args, args.metric, sizes=[settings["observation_size"]])
    study.record()
    pairs = [*study.train_pairs, *study.valid_pairs]
    spent = len(pairs) * optimum_calls(study.training.process)
    recording = sum(study.training.seconds(*pair) for pair in pairs) / 60
    trained, _ = study.train(settings, f"{args.algo}-{settings['observation_size']}", seed=0)
    with open(trained.folder / LOG, newline="", encoding="utf-8") as opened:
        log = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(opened)]
    best = max(row["reward"] for row in log)
    plateau = next(row for row in log if row["reward"] >= PLATEAU * best)
    rows = [
        ("paper's recipe: 50 000 iterations × 4 episodes × 17", PAPER_EVALUATIONS, "", "1.8 million"),
        (
            f"here: {len(pairs)} episodes, all schedules", spent, f"{recording:.1f}",
            f"{plateau['timesteps']:.0f} to the plateau, {log[-1]['timesteps']:.0f} in all",
        ),
    ]  # fmt: skip
    text = (
        f"# Training an agent on {study.model.name}\n\n{study.describe()} {args.algo}, "
        f"{torch.get_num_threads()} thread.\n\n"
        "| | network evaluations | minutes of recording | decisions |\n|---|---:|---:|---:|\n"
    )
    text += "".join(f"| {name} | {n} | {m} | {d} |\n" for name, n, m, d in rows)
    text += (
        f"\nThe paper's evaluations are {PAPER_EVALUATIONS / spent:.0f} times as many. Plateau (within 0.5 % "
        f"of the best validation reward, {best:.4f}) after {plateau['minutes']:.1f} minutes of training, "
        f"{recording + plateau['minutes']:.1f} with recording; the whole run took {log[-1]['minutes']:.1f}.\n"
    )
    study.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(study.folder / "training.md", text.encode())
    say("\n" + text)
    return 0
