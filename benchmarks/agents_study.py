"""What the benchmarks of agents share: which episodes, recorded where, and the statistics of paired runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skipdiff_agents.evaluate import Evaluator, best_start
from skipdiff_agents.pairs import UNSEEN, Pair, all_pairs
from skipdiff_agents.recording import METRICS, RecordedSetting
from skipdiff_agents.train import Progress, Run
from skipdiff_env import load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import ImageSource, mixed_quality, open_source

RESULTS = Path(__file__).parent / "results"


def add_study_arguments(parser: argparse.ArgumentParser, test: bool = True) -> None:
    """Arguments that say which episodes."""
    add = parser.add_argument
    add("--model", default="natural-4x", help="a shipped model's name or a model folder")
    add("--images", required=True, help="training images; the last sixth of them chooses the best agent")
    add("--train-images", type=int, default=60, help="how many of them [60]")
    add("--noise-seeds", type=int, default=3, help="noise seeds a training image [3]")
    if test:
        add("--test", required=True, help="test images, never trained on nor chosen by")
        add("--test-images", type=int, default=30, help="how many of them [30]")
        add("--test-seeds", type=int, default=2, help="noise seeds a test image, never trained on [2]")
    add("--seeds", type=int, default=3, help="training seeds of every agent [3]")
    add("--timesteps", type=int, help="decisions that every agent learns from [each algorithm's own]")
    add("--coarse-steps", type=int, default=10, help="S [10]")
    add("--fine-steps", type=int, help="F [T/S]")
    add("--skip-rule", choices=("reset", "hold"), default="reset", help="what a skip does [reset]")
    add("--max-calls", type=int, default=2000, help="network calls that recording an episode may take [2000]")
    add("--image-size", type=int, help="side of the crops [the model's own]")
    add("--size", type=int, default=32, help="side of the latents that agents see [32]")
    add("--precision", choices=("float32", "bfloat16"), help="of the network [the device's default]")
    add("--runs", type=Path, default=Path("runs/agents"), help="recordings and trained agents [runs/agents]")
    add("--out", type=Path, default=RESULTS / "agents", help="folder of the results")


@dataclass
class Study:
    """Training, validation and test episodes of one comparison."""

    args: argparse.Namespace
    model: FrozenModel
    training: RecordedSetting
    train_pairs: list[Pair]
    valid_pairs: list[Pair]
    test: RecordedSetting | None
    test_pairs: list[Pair]
    name: str

    def evaluator(self, part: str, metric: str | None = None) -> Evaluator:
        """Plays the episodes of a part: ``train``, ``valid`` or ``test``; judges by all metrics."""
        setting = self.test if part == "test" else self.training
        assert setting is not None
        pairs = {"train": self.train_pairs, "valid": self.valid_pairs, "test": self.test_pairs}[part]
        setting = setting if metric is None else replace(setting, metric=metric)
        return Evaluator(setting, pairs, batch=64, others=METRICS)

    def record(self) -> int:
        """Make what recordings are missing; returns the network calls that took."""
        calls = self.training.record([*self.train_pairs, *self.valid_pairs], say)
        return calls + (self.test.record(self.test_pairs, say) if self.test else 0)

    def best_start(self) -> int:
        """The fixed start that is best on the training and validation images."""
        optima = [*self.evaluator("train").optima(), *self.evaluator("valid").optima()]
        return best_start(optima, self.training.process.fine_steps)

    def train(self, settings: dict[str, Any], label: str, seed: int) -> tuple[Run, Progress]:
        """Train an agent, or finish its training; resumes."""
        settings = settings | {"observation_size": settings.get("observation_size", self.args.size)}
        folder = self.runs / f"{label}-{seed}"
        run = Run(
            settings, self.training, self.train_pairs, self.evaluator("valid"), folder, seed, device="cpu"
        )
        say(f"training {label}, seed {seed}")
        progress = run.train(resume=True)
        if progress.stopped_by:
            raise KeyboardInterrupt
        return run, progress

    @property
    def runs(self) -> Path:
        """Where agents trained on these weights lie."""
        return self.args.runs / f"{self.model.name}-{self.model.hash}" / self.name

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.args.out / self.model.name

    def describe(self) -> str:
        """A sentence on the episodes, for the result files."""
        process, model = self.training.process, self.model
        learned, chose = (
            len({image for image, _ in pairs}) for pairs in (self.train_pairs, self.valid_pairs)
        )
        text = (
            f"Model hash `{model.hash}`, S = {process.coarse_steps}, F = {process.fine_steps}, "
            f"skip rule {self.training.skip_rule}, crops of {self.training.side} pixels, network in "
            f"{str(model.dtype).removeprefix('torch.')}, latents seen at {self.args.size} pixels. Training: "
            f"{learned} images × {self.args.noise_seeds} noise seeds; agents chosen on {chose} further "
            "images under a new noise seed. Agents learn from rewards relative to the mean "
            "of all schedules of the same image and noise."
        )
        if self.test:
            text += (
                f" Test: {len(self.test.source)} other images × {self.args.test_seeds} noise seeds, all new."
            )
        return text


def open_study(
    args: argparse.Namespace, metric: str = "niqe", mixed: bool = False, sizes: Sequence[int] = ()
) -> Study:
    """The study that the arguments describe.

    Args:
        args: see :func:`add_study_arguments`.
        metric: the reward's.
        mixed: whether inputs are of mixed quality.
        sizes: of the latents that are recorded, besides ``args.size``.
    """
    torch.set_num_threads(1)  # small networks: more threads only wait for each other
    model = load_pretrained(args.model, dtype=getattr(torch, args.precision) if args.precision else None)

    def source(path: str, count: int) -> ImageSource:
        images = open_source(path).take(count)
        return mixed_quality(images) if mixed else images

    def setting(path: str, count: int) -> RecordedSetting:
        return RecordedSetting(
            model, source(path, count), metric, args.coarse_steps, args.fine_steps, args.skip_rule,
            args.image_size, max_calls=args.max_calls, folder=args.runs / "recordings",
            sizes=tuple(sorted({args.size, *sizes})),
        )  # fmt: skip

    training = setting(args.images, args.train_images)
    count = len(training.source)
    kept = count - max(count // 6, 1)
    test = setting(args.test, args.test_images) if getattr(args, "test", None) else None
    process = training.process
    parts = ("mixed" if mixed else "clean", metric, args.skip_rule, process.coarse_steps, process.fine_steps)
    return Study(
        args, model, training, all_pairs(range(kept), args.noise_seeds),
        all_pairs(range(kept, count), 1, UNSEEN), test,
        all_pairs(len(test.source), args.test_seeds, UNSEEN) if test else [], "-".join(map(str, parts)),
    )  # fmt: skip


def say(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


def interval(
    values: np.ndarray, over: np.ndarray | None = None, draws: int = 2000
) -> tuple[float, float, float]:
    """Mean, or ratio of means, with its 95 % bootstrap interval.

    Training seeds and images are drawn with replacement; the noise seeds of an image stay together,
    because they are not independent of each other.

    Args:
        values: (training seeds, images, noise seeds), one training seed for fixed policies; without NaNs.
        over: denominator of a ratio of means, same shape.
        draws: of the bootstrap.

    Returns:
        mean (or ratio), lower and upper bound.
    """
    rng = np.random.default_rng(0)
    seeds, images = values.shape[:2]
    rows = rng.integers(seeds, size=(draws, seeds, 1))
    columns = rng.integers(images, size=(draws, 1, images))

    def means(array: np.ndarray) -> tuple[float, np.ndarray]:
        each = np.nanmean(array, axis=2)
        return float(np.nanmean(each)), np.nanmean(each[rows, columns], axis=(1, 2))

    mean, drawn = means(values)
    if over is not None:
        below, drawn_below = means(np.broadcast_to(over, values.shape))
        with np.errstate(divide="ignore", invalid="ignore"):
            mean, drawn = float(np.divide(mean, below)), drawn / drawn_below
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return mean, float(low), float(high)
