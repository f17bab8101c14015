"""Compares the cost of training an agent with that of the paper's recipe.

    python -m benchmarks agent-training --images faces128_train.tar --train-images 120 --model face-8x

Records the episodes (100 images × 3 noise seeds, and 20 images by which the agent is chosen), trains the
paper's agent and prints network evaluations and minutes until the plateau. The plateau
begins at the first evaluation from which on the agent keeps 95 % of the gain between its first evaluation and
its best.
Writes ``benchmarks/results/agents/<model>/training.md``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence

import torch

from skipdiff_agents.recording import RecordedSetting
from skipdiff_agents.settings import read_settings
from skipdiff_agents.train import LOG
from skipdiff_env.oracle import optimum_calls

from ..measure.options import made_by
from ..measure.tables import Report, Table
from .study import add_study_arguments, open_study, say

PAPER_EVALUATIONS = 50_000 * 4 * 17
"""Iterations × episodes × evaluations per episode (9 of CSA, about 8 of FSR)."""
PLATEAU = 0.95
"""Share of the improvement over the first evaluation; rewards themselves differ by a few per cent at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add_study_arguments(parser, test=False)
    parser.set_defaults(train_images=120, seeds=1)
    parser.add_argument("--metric", default="niqe", help="the reward's metric [niqe]")
    parser.add_argument("--algo", default="recurrent_ppo", help="the algorithm [recurrent_ppo, the paper's]")
    parser.add_argument(
        "--own-size", action="store_true", help="show the agent latents of its own size instead of --size"
    )


def run(args: argparse.Namespace) -> int:
    """Record the episodes, train the agent and report the cost."""
    settings = read_settings(args.algo)
    if not args.own_size:
        settings["observation_size"] = args.size
    settings["timesteps"] = args.timesteps or settings["timesteps"]
    study = open_study(args, args.metric, sizes=[settings["observation_size"]])
    study.record()
    pairs = [*study.train_pairs, *study.valid_pairs]
    spent = len(pairs) * optimum_calls(study.training.process)
    assert isinstance(study.training, RecordedSetting)
    recording = sum(study.training.recordings.seconds(*pair) for pair in pairs) / 60
    trained, _ = study.train(settings, f"{args.algo}-{settings['observation_size']}", seed=0)
    with open(trained.folder / LOG, newline="", encoding="utf-8") as opened:
        log = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(opened)]
    rewards = [row["reward"] for row in log]
    gain, plateau = max(rewards) - rewards[0], plateau_of(rewards)
    reached = "never to a plateau" if plateau is None else f"{log[plateau]['timesteps']:.0f} to the plateau"
    rows = [
        ["paper's recipe: 50 000 iterations × 4 episodes × 17", f"{PAPER_EVALUATIONS}", "", "1.8 million"],
        [
            f"here: {len(pairs)} episodes, all schedules", f"{spent}", f"{recording:.1f}",
            f"{reached}, {log[-1]['timesteps']:.0f} in all",
        ],
    ]  # fmt: skip
    told = (
        f"The paper's evaluations are {PAPER_EVALUATIONS / spent:.0f} times as many. The validation reward "
        f"rises from {rewards[0]:.4f} at the first evaluation to {max(rewards):.4f} at the best, by "
        f"{gain / rewards[0]:.2%}. "
    )
    if gain == 0:
        told += "No evaluation is better than the first, so that there is no plateau to reach; "
    elif plateau is None:
        told += f"There is no plateau: the last evaluation keeps less than {PLATEAU:.0%} of that; "
    else:
        minutes = log[plateau]["minutes"]
        told += (
            f"From minute {minutes:.1f} of training on ({recording + minutes:.1f} with recording), every "
            f"evaluation keeps at least {PLATEAU:.0%} of that; "
        )
    report = Report(
        "training",
        f"Training an agent on {study.model.name}",
        f"{study.describe()} {args.algo}, {torch.get_num_threads()} thread. "
        f"{made_by('agent-training', args, add_arguments)}",
        [
            Table(["", "network evaluations", "minutes of recording", "decisions"], rows),
            f"{told}the whole run took {log[-1]['minutes']:.1f} minutes.",
        ],
    )
    report.write(study.folder)
    say("\n" + report.text)
    return 0


def plateau_of(rewards: Sequence[float]) -> int | None:
    """Return the number of the evaluation from which on at least 95 % of the improvement is kept.

    Args:
        rewards: rewards of the evaluations, in order.

    Returns:
        The number; None if the last evaluation itself keeps less, or no evaluation is better than the first.
    """
    first, best = rewards[0], max(rewards)
    short = [i for i, reward in enumerate(rewards) if reward < first + PLATEAU * (best - first)]
    start = short[-1] + 1 if short else 0
    return start if best > first and start < len(rewards) else None
