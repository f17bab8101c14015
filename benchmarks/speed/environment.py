"""Measures the cost of SkipDiff-v0 on top of its network and metric, and the gain from batching.

``python -m benchmarks.speed.environment`` plays the same episodes in one batched environment and in as many
single ones, alternating, and prints medians over the episodes:

- ``call``: milliseconds of one network call of the batched environment;
- ``outside``: share of the batched environment's wall time spent outside network and metric;
- ``batched``, ``single``: environment steps per second;
- ``gain``: how many times faster the batched one is, episode by episode.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch

from skipdiff_env import load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.latent_cache import LatentCache
from skipdiff_env.metrics import load_metric


class Stopwatch:
    """Adds up the number and the wall time of the calls around which it is wrapped."""

    def __init__(self, device: torch.device) -> None:
        self.seconds, self.calls, self._device = 0.0, 0, device

    def now(self) -> float:
        """Return the time once all work on the device is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def start(self, *_: Any) -> None:
        """Begin a call; the arguments are those of a forward hook."""
        self._since = self.now()

    def stop(self, *_: Any) -> None:
        """End a call."""
        self.seconds += self.now() - self._since
        self.calls += 1


class TimedMetric:
    """A metric that measures its own time."""

    def __init__(self, name: str, watch: Stopwatch, device: torch.device) -> None:
        self._metric, self._watch = load_metric(name, device), watch
        self.name, self.lower_better = name, self._metric.lower_better
        self.reference, self.min_size = self._metric.reference, self._metric.min_size

    def __call__(self, images: np.ndarray, references: np.ndarray | None) -> np.ndarray:
        self._watch.start()
        scores = self._metric(images, references)
        self._watch.stop()
        return scores


@dataclass(frozen=True)
class Throughput:
    """One line of the table."""

    batch: int
    call_ms: float
    outside: float
    batched: float
    single: float
    gain: float

    @property
    def cells(self) -> list[str]:
        """The cells of the line, see :data:`HEAD`."""
        return [
            f"{self.batch}",
            f"{self.call_ms:.1f}",
            f"{self.outside:.1%}",
            f"{self.batched:.2f}",
            f"{self.single:.2f}",
            f"{self.gain:.2f}",
        ]

    def __str__(self) -> str:
        return _line(self.cells)


def _line(cells: Sequence[str]) -> str:
    return " ".join(f"{cell:>8}" for cell in cells)


HEAD = ["batch", "call ms", "outside", "batched", "single", "gain"]
HEADER = _line(HEAD)


def measure(model: FrozenModel, batch: int, episodes: int, metric: str = "niqe") -> Throughput:
    """Play ``episodes`` episodes in each of ``batch`` copies, after one that is not measured."""
    network, scoring = Stopwatch(model.device), Stopwatch(model.device)
    timed: Any = TimedMetric(metric, scoring, model.device)
    arguments: dict[str, Any] = {"model": model, "metric": timed}
    envs = gymnasium.make_vec("SkipDiff-v0", num_envs=batch, **arguments)
    singles = [gymnasium.make("SkipDiff-v0", disable_env_checker=True, **arguments) for _ in range(batch)]
    steps = singles[0].get_wrapper_attr("process").decisions
    rows = []
    hooks = [
        model.network.register_forward_pre_hook(network.start),
        model.network.register_forward_hook(network.stop),
    ]
    try:
        for episode in range(episodes + 1):
            actions = np.random.default_rng(episode).integers(0, 2, (steps, batch))
            network.seconds = scoring.seconds = network.calls = 0
            batched = _timed(network.now, play_batch, envs, actions, episode * batch)
            call = network.seconds / network.calls
            outside = 1 - (network.seconds + scoring.seconds) / batched
            single = _timed(network.now, play_singles, singles, actions, episode * batch)
            rows.append(
                (call * 1e3, outside, actions.size / batched, actions.size / single, single / batched)
            )
    finally:
        for hook in hooks:
            hook.remove()
    return Throughput(batch, *(median(column) for column in zip(*rows[1:], strict=True)))


WARM_SIDE = 32
"""Side of the latents in :func:`measure_warm`, as agents see them."""


def measure_warm(model: FrozenModel, batch: int, episodes: int, metric: str = "niqe") -> tuple[float, float]:
    """Measure steps per second of processor time with every latent in a cache, so that no network is called.

    Returns:
        The rate of ``batch`` environments in one batch, and that of single ones in succession: medians over
        ``episodes`` episodes in each, which both play by turns.
    """
    arguments: dict[str, Any] = {
        "model": model, "metric": metric, "noise": "fixed", "cache": LatentCache(),
        "observation_size": WARM_SIDE,
    }  # fmt: skip
    envs = gymnasium.make_vec("SkipDiff-v0", num_envs=batch, **arguments)
    singles = [gymnasium.make("SkipDiff-v0", disable_env_checker=True, **arguments) for _ in range(batch)]
    steps = singles[0].get_wrapper_attr("process").decisions
    rates = []
    for episode in range(episodes):
        actions = np.random.default_rng(episode).integers(0, 2, (steps, batch))
        play_batch(envs, actions, episode * batch)  # fills the cache
        batched = _timed(time.process_time, play_batch, envs, actions, episode * batch)
        single = _timed(time.process_time, play_singles, singles, actions, episode * batch)
        rates.append((actions.size / batched, actions.size / single))
    batched, single = (median(column) for column in zip(*rates, strict=True))
    return batched, single


def play_batch(envs: gymnasium.vector.VectorEnv, actions: np.ndarray, seed: int) -> None:
    """Play one episode of the batched environment; ``actions`` is (steps, batch)."""
    envs.reset(seed=seed)
    for row in actions:
        envs.step(row)


def play_singles(envs: list[gymnasium.Env], actions: np.ndarray, seed: int) -> None:
    """Play the same episodes one after the other."""
    for i, env in enumerate(envs):
        env.reset(seed=seed + i)
        for action in actions[:, i]:
            env.step(int(action))


def _timed(now: Callable[[], float], work: Callable[..., None], *arguments: Any) -> float:
    begun = now()
    work(*arguments)
    return now() - begun


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.environment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="natural-4x", help="name or folder (default: %(default)s)")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 4, 16], help="batch sizes (default: 1 4 16)"
    )
    parser.add_argument(
        "--episodes", type=int, default=5, help="episodes measured per copy (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    args = parser.parse_args(argv)
    model = load_pretrained(args.model, args.device)
    print(f"{model!r}, threads: {torch.get_num_threads()}; 192x192 images, NIQE")
    print(HEADER)
    for batch in args.batches:
        print(measure(model, batch, args.episodes), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
