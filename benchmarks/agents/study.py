"""Parts that the benchmarks of agents share: episodes, their recordings, and statistics of paired runs."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skipdiff_agents.evaluate import Evaluator, Setting, best_start, bootstrap
from skipdiff_agents.pairs import UNSEEN, Pair, all_pairs
from skipdiff_agents.recording import RecordedSetting
from skipdiff_agents.train import Progress, Run
from skipdiff_env import load_pretrained
from skipdiff_env.diffusion import FrozenModel, SkipProcess
from skipdiff_env.envs import recordings
from skipdiff_env.envs.recordings import WALK
from skipdiff_env.images import ImageSource, mixed_quality, open_source
from skipdiff_env.images.mixed import KINDS
from skipdiff_env.latent_cache import LatentCache
from skipdiff_env.metrics.load import LOG
from skipdiff_env.oracle import optimum_calls
from skipdiff_env.training.data.held_out import read_list

from ..measure.metrics import METRICS, Metric
from ..measure.tables import RESULTS

MANY = 20
"""Maximum number of starts that are shown one by one."""


def add_study_arguments(parser: argparse.ArgumentParser, test: bool = True) -> None:
    """Add the arguments that determine which episodes are played."""
    add = parser.add_argument
    add("--model", default="natural-4x", help="a shipped model's name or a model folder")
    add("--images", required=True, help="training images")
    add(
        "--only",
        metavar="LIST",
        help="use only the training images named in this list of held-out pictures, which no network has "
        "seen: faces128, natural256 or a file of names",
    )
    add("--train-images", type=int, default=60, help="number of training images [60]")
    add("--every", type=int, default=1, metavar="K", help="take every K-th training image [1]")
    add("--noise-seeds", type=int, default=3, help="noise seeds per training image [3]")
    add(
        "--valid",
        help="validation images, on which the best agent is chosen [the last sixth of the training images]",
    )
    add("--valid-images", type=int, default=30, help="number of validation images [30]")
    add("--valid-seeds", type=int, default=3, help="noise seeds per --valid image, never trained on [3]")
    if test:
        add("--test", required=True, help="test images, used for neither training nor choosing")
        add("--test-images", type=int, default=30, help="number of test images [30]")
        add("--test-seeds", type=int, default=2, help="noise seeds per test image, never trained on [2]")
    add("--seeds", type=int, default=3, help="number of training seeds per agent [3]")
    add("--timesteps", type=int, help="number of decisions each agent learns from [the algorithm's]")
    add("--coarse-steps", type=int, default=10, help="number of coarse steps S [10]")
    add("--fine-steps", type=int, help="number of fine levels F [T/S]")
    add("--skip-rule", choices=("reset", "hold"), default="reset", help="what a skip does [reset]")
    add(
        "--max-calls",
        type=int,
        help="maximum number of network calls for recording an episode; longer episodes are played as "
        f"agents learn, without an optimum [{WALK}; no limit under reset]",
    )
    add("--image-size", type=int, help="side of the crops in pixels [the model's own]")
    add(
        "--crop", choices=("center", "random"), default="center",
        help="where larger training images are cropped; random: another place for each noise seed [center]",
    )  # fmt: skip
    add("--size", type=int, default=32, help="side in pixels of the latents that agents see [32]")
    add(
        "--precision", choices=("float32", "bfloat16"), help="precision of the network [the device's default]"
    )
    add(
        "--runs",
        type=Path,
        default=Path("runs/agents"),
        help="folder of recordings and trained agents [runs/agents]",
    )
    add("--out", type=Path, default=RESULTS / "agents", help="folder of the results")


def judged() -> list[Metric]:
    """Return the metrics of the tables that recordings hold, in the order in which they judge results."""
    known = {metric.of: metric for metric in METRICS if not metric.on_input}
    return [known[name] for name in recordings.METRICS if name in known]


@dataclass
class Study:
    """The training, validation and test episodes of one comparison."""

    args: argparse.Namespace
    model: FrozenModel
    training: Setting
    """The setting of the training episodes; like the other two, it is recorded or has a cache."""
    train_pairs: list[Pair]
    valid: Setting
    """The setting of the validation episodes: ``training``, unless agents are chosen on other pictures."""
    valid_pairs: list[Pair]
    test: Setting | None
    test_pairs: list[Pair]
    name: str

    @property
    def known_pairs(self) -> list[Pair]:
        """All episodes on training images, including those that are held back."""
        return [*self.train_pairs, *(self.valid_pairs if self.valid is self.training else [])]

    def evaluator(self, part: str) -> Evaluator:
        """Return an evaluator that plays the episodes of a part and judges them by all metrics.

        Args:
            part: ``train``, ``valid``, ``test``, or ``known`` (all on training images, held back or not).
        """
        setting, pairs = {
            "train": (self.training, self.train_pairs),
            "known": (self.training, self.known_pairs),
            "valid": (self.valid, self.valid_pairs),
            "test": (self.test, self.test_pairs),
        }[part]
        assert setting is not None
        return Evaluator(setting, pairs, batch=64, others=[metric.of for metric in judged()])

    def photographs(self, part: str) -> int:
        """Return the number of pictures in the ``valid`` or ``test`` episodes, in whatever quality."""
        setting, pairs = (self.test, self.test_pairs) if part == "test" else (self.valid, self.valid_pairs)
        assert setting is not None
        kinds = len(KINDS) if setting.source.degrade and setting is not self.training else 1
        return len({image // kinds for image, _ in pairs})

    @property
    def recorded(self) -> bool:
        """Whether all schedules of every episode are known, and thus the optimum."""
        return isinstance(self.training, RecordedSetting)

    def record(self) -> int:
        """Make the missing recordings; return the number of network calls that this took."""
        parts = [(self.training, self.known_pairs)]
        parts += [] if self.valid is self.training else [(self.valid, self.valid_pairs)]
        parts += [(self.test, self.test_pairs)] if self.test else []
        return sum(s.record(pairs, partial(_told, s)) for s, pairs in parts if isinstance(s, RecordedSetting))

    def best_start(self) -> int:
        """Return the best fixed start on validation (one of :func:`some_starts` if episodes are played)."""
        valid, fine = self.evaluator("valid"), self.training.process.fine_steps
        if self.recorded:
            return best_start(valid.optima(), fine)
        rewards = {k: np.mean([r.reward for r in valid(k)]) for k in some_starts(fine)}
        return max(rewards, key=lambda k: (rewards[k], -k))

    def train(
        self, settings: dict[str, Any], label: str, seed: int, minutes: float | None = None
    ) -> tuple[Run, Progress]:
        """Train an agent, or resume its training; it ends after ``minutes`` at the latest, if given."""
        settings = settings | {"observation_size": settings.get("observation_size", self.args.size)}
        folder = self.runs / f"{label}-{seed}"
        run = Run(
            settings,
            self.training,
            self.train_pairs,
            self.evaluator("valid"),
            folder,
            seed,
            device=str(self.device),
            minutes=minutes,
        )
        say(f"training {label}, seed {seed}")
        progress = run.train(resume=True)
        if progress.stopped_by:
            raise KeyboardInterrupt
        return run, progress

    @property
    def device(self) -> torch.device:
        """The device on which agents learn, which is that of the model."""
        return self.model.device

    @cached_property
    def episodes(self) -> str:
        """A digest of what agents learn from and are chosen by: pictures, noise seeds, side and precision."""
        parts = [self.training.side, self.training.precision]
        parts += [self.training.digest(self.train_pairs), self.valid.digest(self.valid_pairs)]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=6).hexdigest()

    @property
    def runs(self) -> Path:
        """The folder of the agents that are trained with these weights on these episodes."""
        return self.args.runs / f"{self.model.name}-{self.model.hash}" / self.name / self.episodes

    @property
    def scale(self) -> Scale:
        """The comparison of its rewards: as shares, or directly if they are logarithms."""
        return LOGARITHMS if str(self.training.metric).startswith(LOG) else SHARES

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return self.args.out / self.model.name

    def describe(self) -> str:
        """Describe the episodes in a sentence for the result files."""
        args, process, model = self.args, self.training.process, self.model
        learned, chose = len({image for image, _ in self.train_pairs}), self.photographs("valid")
        every_kind = ", each in all four kinds," if self.training.source.degrade else ""
        if self.valid is self.training:
            chosen_on = (
                f"{chose} further images of the same file under a new noise seed; the diffusion model "
                "itself may have been trained on any of them"
            )
        else:
            chosen_on = f"{chose} images of `{Path(args.valid).name}`{every_kind} × {args.valid_seeds} "
            chosen_on += "new noise seeds"
        spread = f" (one in {args.every})" if args.every > 1 else ""
        spread += ", cropped anew under each noise seed," if args.crop == "random" else ""
        spread += f", of those that `{args.only}` holds out," if args.only else ""
        calls = optimum_calls(process)
        source = f"recording an episode takes {calls} network calls"
        learned_from = "rewards relative to the mean of all schedules of the same image and noise"
        if not self.recorded:
            source = (
                f"recording an episode would take {calls} network calls, so agents play as they learn, with "
                "latents that they come back to kept in half precision, and the optimum is not known"
            )
            learned_from = "rewards as the environment pays them"
        text = (
            f"Model hash `{model.hash}`, S = {process.coarse_steps}, F = {process.fine_steps}, "
            f"skip rule {self.training.skip_rule}, crops of {self.training.side} pixels, network in "
            f"{str(model.dtype).removeprefix('torch.')}, latents seen at {args.size} pixels; {source}. "
            f"Training: {learned} images of "
            f"`{Path(args.images).name}`{spread} × {args.noise_seeds} noise seeds; agents chosen on "
            f"{chosen_on}. Agents learn from {learned_from}."
        )
        if self.test:
            text += (
                f" Test: {self.photographs('test')} images of `{Path(args.test).name}`{every_kind} × "
                f"{args.test_seeds} new noise seeds."
            )
        return text


def open_study(
    args: argparse.Namespace,
    metric: str = "niqe",
    mixed: bool = False,
    sizes: Sequence[int] = (),
    playable: bool = False,
) -> Study:
    """Open the study that the arguments describe.

    Args:
        args: see :func:`add_study_arguments`.
        metric: metric of the reward.
        mixed: whether inputs are of mixed quality.
        sizes: sides of the latents that are recorded in addition to ``args.size``.
        playable: whether episodes may be played instead if recording them takes too long.
    """
    torch.set_num_threads(1)  # small networks: more threads only wait for each other
    model = load_pretrained(args.model, dtype=getattr(torch, args.precision) if args.precision else None)

    def source(path: str, count: int, every: int, every_kind: bool) -> ImageSource:
        images = open_source(path)
        if args.only and path == args.images:
            images = images.only(read_list(args.only))
        images = images.take(count, every=every)
        return mixed_quality(images, every_kind=every_kind) if mixed else images

    steps = args.coarse_steps, args.fine_steps
    most = args.max_calls or max(WALK, optimum_calls(SkipProcess(model, *steps, "reset")))
    process = SkipProcess(model, *steps, args.skip_rule)
    if optimum_calls(process) <= most or not playable:
        sizes = tuple(sorted({args.size, *sizes}))
        kind: Callable[..., Setting] = partial(RecordedSetting, folder=args.runs / "recordings", sizes=sizes)
    else:
        args.runs.mkdir(parents=True, exist_ok=True)
        cache = LatentCache(half=True, file=str(args.runs / "latents.lmdb"), max_file_bytes=2**36)
        kind = partial(Setting, cache=cache)

    def setting(
        path: str, count: int, every: int = 1, every_kind: bool = True, crop: str = "center"
    ) -> Setting:
        return kind(
            model, source(path, count, every, every_kind), metric, *steps, args.skip_rule, args.image_size,
            max_calls=most, crop=crop,
        )  # fmt: skip

    # Training uses many pictures in one kind each; comparisons use every picture in all kinds.
    training = setting(args.images, args.train_images, args.every, every_kind=False, crop=args.crop)
    count = kept = len(training.source)
    if args.valid:
        valid = setting(args.valid, args.valid_images)
        valid_pairs = all_pairs(len(valid.source), args.valid_seeds, UNSEEN)
    else:
        valid, kept = training, count - max(count // 6, 1)
        valid_pairs = all_pairs(range(kept, count), 1, UNSEEN)
    test = setting(args.test, args.test_images) if getattr(args, "test", None) else None
    parts = ("mixed" if mixed else "clean", metric, args.skip_rule, process.coarse_steps, process.fine_steps)
    named = "-".join(map(str, parts)).translate(str.maketrans(" ,", "-+", ":"))
    return Study(
        args, model, training, all_pairs(kept, args.noise_seeds), valid, valid_pairs, test,
        all_pairs(len(test.source), args.test_seeds, UNSEEN) if test else [], named,
    )  # fmt: skip


def some_starts(fine_steps: int) -> list[int]:
    """Return the starts that are shown one by one: of many, every tenth, and all below the first of these.

    A hundred starts would obscure the agents and take long to play.
    """
    step = fine_steps // 10 if fine_steps > MANY else 1
    return [k for k in range(1, fine_steps + 1) if k < step or k % step == 0]


def say(line: str) -> None:
    """Print a line about the progress, without buffering."""
    print(line, flush=True)


def interval(values: np.ndarray, over: np.ndarray | None = None) -> tuple[float, float, float]:
    """Return a mean, or a ratio of means, with its interval, see :func:`skipdiff_agents.evaluate.bootstrap`.

    Args:
        values: (training seeds, images, noise seeds); fixed policies have one training seed.
        over: denominator of a ratio of means, of the same shape or one that broadcasts to it.
    """
    below = None if over is None else np.moveaxis(np.broadcast_to(over, values.shape), 0, -1)
    return bootstrap(np.moveaxis(values, 0, -1), below)


@dataclass(frozen=True)
class Scale:
    """A way of comparing rewards."""

    difference: Callable[[np.ndarray, np.ndarray], tuple[float, float, float]]
    """Function that returns the mean difference of rewards from a baseline's, and its 95 % interval."""
    unit: str
    """What the difference is a share of, in words."""


def relative(own: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """Return the paired difference in units of the baseline's mean, with its interval (:func:`interval`)."""
    mean, low, high = interval(own - baseline)
    scale = abs(baseline.mean())
    return mean / scale, low / scale, high / scale


def plain(own: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """Return the paired difference of rewards that are logarithms, with its interval."""
    return interval(own - baseline)


SHARES, LOGARITHMS = Scale(relative, "of its reward"), Scale(plain, "of M, by its logarithm")


def _told(setting: Setting, missing: list[Pair]) -> Iterator[Pair]:
    """Yield the missing episodes, and report which one is being recorded."""
    for done, (image, seed) in enumerate(missing, 1):
        say(f"recording {done}/{len(missing)}: {setting.source.name(image)}, noise {seed}")
        yield image, seed
