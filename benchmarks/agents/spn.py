"""Measures what the skip proposal network's norm and width cost, and whether they matter.

    python -m benchmarks spn --images natural256_train.tar

Trains the paper's agent with batch norm and group norm, at several widths of the GRU and sizes of the
latents. The columns are: number of weights, file size, milliseconds per decision, minutes of training,
validation reward (best evaluation of each run), and the ratio's bias. The bias is the mean of
|π_update/π_roll-out − 1| for the same weights on the same decisions. PPO mistakes it for a change of the
policy; it differs from 0 where batch norm's statistics differ between update and roll-out. It is averaged
over batches of random training episodes under random actions.
Writes ``benchmarks/results/agents/<model>/spn.md``.
"""

from __future__ import annotations

import argparse
import time
from itertools import product

import numpy as np
import torch
from torch import Tensor

from skipdiff_agents.export import network_from_zip
from skipdiff_agents.settings import CHECKPOINT, read_settings
from skipdiff_env.policies.network import SkipProposalNetwork

from ..measure.options import made_by
from ..measure.tables import Report, Table
from .study import Study, add_study_arguments, open_study, say

BATCHES = 64
"""Number of batches of roll-outs over which the ratio's bias is averaged."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add_study_arguments(parser, test=False)
    add = parser.add_argument
    add("--metric", default="niqe", help="the reward's metric [niqe]")
    add("--norms", nargs="+", default=["batch", "group"], help="kinds of normalisation [batch group]")
    add("--widths", nargs="+", type=int, default=[1536, 128], help="widths of the GRU [1536 128]")
    add("--sizes", nargs="+", type=int, default=[64, 32], help="sides of the latents in pixels [64 32]")
    add("--envs", type=int, default=4, help="number of episodes per update [4, as in the paper]")


def run(args: argparse.Namespace) -> int:
    """Record the episodes, train and measure every variant, and write the page."""
    study = open_study(args, args.metric, sizes=args.sizes)
    study.record()
    start = study.best_start()
    fixed = float(np.mean([result.reward for result in study.evaluator("valid")(start)]))
    titles = ["norm", "width", "latents", "weights", "MB", "ms a decision", "minutes"]
    titles += ["validation reward, to the best start", "ratio's bias"]
    lines = []
    for norm, width, size in product(args.norms, args.widths, args.sizes):
        settings = read_settings("recurrent_ppo") | {"observation_size": size, "num_envs": args.envs}
        settings["policy"] = {"memory": "gru", "hidden_size": width, "norm": norm}
        settings["timesteps"] = args.timesteps or settings["timesteps"]
        runs = [study.train(settings, f"spn-{norm}-{width}-{size}", seed) for seed in range(args.seeds)]
        networks = [network_from_zip(run.folder / f"{CHECKPOINT}.zip") for run, _ in runs]
        gains = [(progress.best_reward or 0) / fixed - 1 for _, progress in runs]
        weights = sum(p.numel() for p in networks[0].parameters())
        minutes = np.mean([progress.seconds for _, progress in runs]) / 60
        batches = [random_latents(study, size, args.envs, seed) for seed in range(BATCHES)]
        bias = np.mean([ratio_bias(network, latents) for network in networks for latents in batches])
        spread = ", ".join(f"{gain:+.2%}" for gain in gains)
        line = [norm, f"{width}", f"{size}", f"{weights / 1e6:.2f} M", f"{4 * weights / 1e6:.1f}"]
        line += [f"{_milliseconds(networks[0]):.2f}", f"{minutes:.1f}", spread, f"{bias:.4f}"]
        lines.append(line)
        say(" ".join(line))
    report = Report(
        "spn",
        f"Norm and width of the skip proposal network: {study.model.name}",
        f"{study.describe()} {args.seeds} training seeds; {args.envs} episodes an update. Start {start} is "
        f"best. {made_by('spn', args, add_arguments)}",
        [Table(titles, lines)],
    )
    report.write(study.folder)
    say("\n" + report.text)
    return 0


def random_latents(study: Study, size: int, count: int, seed: int) -> Tensor:
    """Return the latents of ``count`` random episodes under random actions, (F - 1, count, 3, size, size)."""
    envs, rng = study.training.envs(count, observation_size=size, tensors=True), np.random.default_rng(seed)
    chosen = rng.integers(len(study.train_pairs), size=count)
    images, seeds = zip(*(study.train_pairs[i] for i in chosen), strict=True)
    latent, _ = envs.reset(options={"image": list(images), "noise_seed": list(seeds)})
    seen = []
    for _ in range(envs.process.decisions):
        seen.append(latent)
        latent = envs.step(rng.integers(2, size=count))[0]
    return torch.stack(seen)


def ratio_bias(network: SkipProposalNetwork, latents: Tensor) -> float:
    """Return the mean of |π_update/π_roll-out − 1| over both actions, weighted by π_roll-out.

    The latents are (L, B, 3, n, n). As in PPO's update, all L · B of them share one batch of the encoder; the
    roll-out uses the running statistics.
    """

    def log_probs(training: bool) -> Tensor:
        with torch.no_grad():
            encoder = network.state_encoder
            before = {name: value.clone() for name, value in encoder.state_dict().items()}
            encoder.train(training)
            features = encoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
            encoder.eval().load_state_dict(before)
            out, _ = network.gru(features, torch.zeros(1, latents.shape[1], network.config.hidden_size))
            return network.actor(out).log_softmax(-1)

    rolled, updated = log_probs(False), log_probs(True)
    return float((rolled.exp() * ((updated - rolled).exp() - 1).abs()).sum(-1).mean())


def _milliseconds(network: SkipProposalNetwork) -> float:
    """Return the median time of 50 decisions on one latent, in milliseconds."""
    side = network.config.observation_size
    latent, hidden, seconds = torch.zeros(1, 3, side, side), network.initial(1), []
    with torch.no_grad():
        for _ in range(50):
            began = time.perf_counter()
            network(latent, hidden)
            seconds.append(time.perf_counter() - began)
    return 1e3 * float(np.median(seconds))
