"""Recorded episodes: every state that an agent can see, at a small size, and every outcome with its scores.

Under one noise seed, an episode is a walk on a finite graph (see :mod:`skipdiff_env.oracle`). Recording the
whole graph takes as many network calls as finding the optimum. Afterwards, playing, training, comparing and
finding the optimum take none. A recording is a file whose name is a hash of all that it depends on: the
model's hash and precision, its schedule, the steps and the skip rule, both pictures, the noise seed, the
sizes and the metrics. The file also lists these values.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..diffusion import DENOISE, SKIP, NoiseKey, SkipProcess, image_key
from ..diffusion.process import History, SkipRule, history_after
from ..diffusion.protocol import identity_of
from ..diffusion.resize import to_planes
from ..errors import SkipDiffError
from ..files import write_atomically
from ..images import Pair
from ..metrics import Metric, Results, load_metric, or_zero
from ..oracle import Optimum, Outcome, optimum_calls, walk
from ..policies.file import as_seen
from ..progress import watched
from .books import evaluations

METRICS = ("niqe", "lpips", "psnr", "ssim")
FORMAT = 2
"""Version of the content of recordings, on which every file name depends; it must be increased whenever the
content changes."""
WALK = 2000
"""Maximum number of network calls for recording an episode."""
MEMORY = 2 * 2**30
"""Bound on the bytes of latents that are kept in memory."""

Episode = tuple[int, int]
"""Index of an image in its source, and noise seed."""
Watch = Callable[[list[Episode]], Iterable[Episode]]
"""Function that yields episodes one by one and reports progress; see
:func:`skipdiff_env.progress.watched`."""


def cache_folder() -> Path:
    """Return the default folder of recordings: ``skipdiff/recordings`` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skipdiff" / "recordings"


def hashes(pair: Pair) -> dict[str, Any]:
    """Return hashes of an episode's two pictures, ``lr`` and ``hr`` (empty if there is no HR picture)."""
    hr = "" if pair.hr is None else hashlib.blake2b(pair.hr.tobytes(), digest_size=16).hexdigest()
    return {"lr": image_key(pair.lr), "hr": hr}


class Graph:
    """All states of an episode, numbered.

    Args:
        fine_steps: F.
        rule: what a skip does.

    Attributes:
        states: number of each history at which there is a decision; 0 is x_S1.
        outcomes: number of each history at level 1.
        next: int32 (F + 1, len(states), 2), [level, state, action] → the next state or, at level 2, the
            outcome; -1 if the state does not occur at the level.
    """

    def __init__(self, fine_steps: int, rule: SkipRule) -> None:
        self.fine_steps = fine_steps
        self.states: dict[History, int] = {(): 0}
        self.outcomes: dict[History, int] = {}
        edges: list[tuple[int, int, int, int]] = []
        here: list[History] = [()]
        for level in range(fine_steps, 1, -1):
            numbers = self.outcomes if level == 2 else self.states
            reached: dict[History, None] = {}
            for history in here:
                for action in (DENOISE, SKIP):
                    there = history_after(history, level, action, rule)
                    reached[there] = None
                    number = numbers.setdefault(there, len(numbers))
                    edges.append((level, self.states[history], action, number))
            here = list(reached)
        self.next = np.full((fine_steps + 1, len(self.states), 2), -1, np.int32)
        for level, state, action, number in edges:
            self.next[level, state, action] = number

    def schedules(self) -> list[tuple[int, ...]]:
        """Return the cheapest schedule that leads to each outcome: it skips at all levels outside the
        history."""
        return [
            tuple(DENOISE if t in history else SKIP for t in range(self.fine_steps, 1, -1))
            for history in self.outcomes
        ]


@dataclass(frozen=True)
class Recording:
    """The recording of one image under one noise seed."""

    latents: dict[int, np.ndarray]
    """For each size n, what agents see in each state, then in each outcome, float16
    (states + outcomes, 3, n, n)."""
    values: np.ndarray
    """The metrics of each outcome, float64 (outcomes, metrics); see :func:`scores`."""


def record(
    process: SkipProcess,
    graph: Graph,
    pair: Pair,
    noise_seed: int,
    sizes: Sequence[int],
    metrics: Sequence[str],
) -> Recording:
    """Play every schedule of an image under a noise seed; see :class:`Recording`."""
    device = process.model.device
    condition = process.model.condition(to_planes(pair.lr))
    start = process.start(condition, [NoiseKey(image_key(pair.lr), noise_seed)])
    count = len(graph.states) + len(graph.outcomes)
    latents = {n: np.zeros((count, 3, n, n), np.float16) for n in sizes}
    left = set(graph.states)

    def keep(numbers: list[int], shown: Tensor) -> None:
        for n in sizes:
            latents[n][numbers] = as_seen(shown, n).cpu().numpy()

    def visit(state: Any) -> None:
        rows = [row for row, history in enumerate(state.history) if history in left]
        if rows:
            left.difference_update(state.history[row] for row in rows)
            keep([graph.states[state.history[row]] for row in rows], state.latent[rows])

    values = np.full((len(graph.outcomes), len(metrics)), np.nan)
    for final, _, _ in walk(process, start, visit=visit):
        numbers = [graph.outcomes[history[:-1]] for history in final.history]
        keep([len(graph.states) + number for number in numbers], final.latent)
        results = Results.of(final.x0)
        values[numbers] = results.valid(scores(results.images, pair.hr, metrics, device))
    return Recording(latents, values)


def scores(
    pictures: np.ndarray,
    original: np.ndarray | None,
    metrics: Sequence[str],
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Score pictures, uint8 (B, H, W, 3), of one original by each metric: float64 (B, metrics).

    A score is NaN where the metric cannot be computed; see :func:`judge`.
    """
    references = None if original is None else np.stack([original] * len(pictures))
    return np.stack([judge(load_metric(name, device), pictures, references) for name in metrics], axis=1)


def judge(metric: Metric, pictures: np.ndarray, references: np.ndarray | None) -> np.ndarray:
    """Score pictures, uint8 (B, H, W, 3), by one metric: float64 (B,).

    The scores are NaN if the pictures are too small for the metric, or if it needs originals and there are
    none.
    """
    large_enough = min(pictures.shape[1:3]) >= metric.min_size
    if not large_enough or (references is None and metric.reference):
        return np.full(len(pictures), np.nan)
    return metric(pictures, references)


class Recordings:
    """The recorded episodes of a process on given pictures; missing ones are recorded when they are needed.

    Args:
        process: process whose schedules are recorded, without a cache.
        pair: function from an image's index and a noise seed to the episode's pictures.
        metric: name of the metric that gives the rewards.
        folder: folder of the recordings, which recordings of all kinds can share. None: :func:`cache_folder`.
        sizes: sides in pixels of the latents that agents may see.
        max_bytes: bound on the bytes of latents kept in memory; the least recently used are dropped first.
        max_calls: maximum number of network calls for recording an episode.

    Raises:
        SkipDiffError: if an episode takes more than ``max_calls`` network calls, or the metric is not given
            by name.
    """

    def __init__(
        self,
        process: SkipProcess,
        pair: Callable[[int, int], Pair],
        metric: Any,
        folder: str | os.PathLike[str] | None = None,
        sizes: Sequence[int] = (32,),
        max_bytes: int = MEMORY,
        max_calls: int = WALK,
    ) -> None:
        if not isinstance(metric, str):
            raise SkipDiffError(
                f"recordings are found by the name of their metric: give a name, not {metric!r}"
            )
        self.calls = optimum_calls(process)
        if self.calls > max_calls:
            raise SkipDiffError(
                f"recording an episode at F = {process.fine_steps} under {process.skip_rule!r} takes "
                f"{self.calls} network calls, more than max_calls={max_calls}: allow more, use a smaller "
                "fine_steps, or play without recordings"
            )
        self.process, self.pair, self.metric, self.sizes = process, pair, metric, tuple(sizes)
        self.folder = cache_folder() if folder is None else Path(folder)
        self.max_bytes = max_bytes
        self.graph = Graph(process.fine_steps, process.skip_rule)
        self.schedules = np.array(self.graph.schedules())
        """The cheapest actions that lead to each outcome, int64 (outcomes, F - 1)."""
        self.metrics = METRICS if metric in METRICS else (*METRICS, metric)
        """The metrics of the outcomes: :data:`METRICS`, and that of the reward."""
        self._known: dict[Any, Any] = {}
        self._latents: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()

    def _remembered(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def about(self, image: int, noise_seed: int) -> dict[str, Any]:
        """Return all that the recording of an image and a noise seed depends on, in the form stored in the
        file."""
        process = self.process
        return self._remembered((image, noise_seed, "about"), lambda: {
            "format": FORMAT, "model": identity_of(process.model, "a recording"),
            "precision": str(process.model.dtype),
            "coarse_steps": process.coarse_steps, "fine_steps": process.fine_steps,
            "skip_rule": process.skip_rule, "noise_seed": noise_seed,
            **hashes(self.pair(image, noise_seed)),
            "sizes": list(self.sizes), "metrics": list(self.metrics),
            "schedule": process.schedule.config, "levels": process.coarse_alpha_bar.tolist(),
        })  # fmt: skip

    def file(self, image: int, noise_seed: int) -> Path:
        """Return the file of the recording of an image and a noise seed, whether or not it exists."""

        def name() -> Path:
            about = json.dumps(self.about(image, noise_seed), sort_keys=True)
            digest = hashlib.blake2b(about.encode(), digest_size=12).hexdigest()
            return self.folder / digest[:2] / f"{digest}.safetensors"

        return self._remembered((image, noise_seed, "file"), name)

    def missing(self, episodes: Iterable[Episode]) -> list[Episode]:
        """Return the episodes that are not recorded yet."""
        return [episode for episode in episodes if not self.file(*episode).is_file()]

    def prepare(self, episodes: Iterable[Episode]) -> None:
        """Make the missing recordings, and report progress on standard error."""
        if missing := self.missing(episodes):
            print(
                f"recording into {self.folder}, once (episodes: {len(missing)}, network calls for each: "
                f"{self.calls})",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            self.record(missing, partial(watched, what="recording"))

    def record(self, episodes: Iterable[Episode], watch: Watch = iter) -> int:
        """Make the missing recordings, and return the number of network calls that this took."""
        calls = 0
        for image, seed in watch(self.missing(episodes)):
            path = self.file(image, seed)
            if path.is_file():
                continue  # another process was faster
            began = time.perf_counter()
            pair = self.pair(image, seed)
            made = record(self.process, self.graph, pair, seed, self.sizes, self.metrics)
            seconds = np.array([time.perf_counter() - began])
            tensors: dict[str, Tensor] = {"values": torch.from_numpy(made.values)}
            tensors["seconds"] = torch.from_numpy(seconds)
            tensors |= {f"latents_{n}": torch.from_numpy(made.latents[n]) for n in self.sizes}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save(tensors, {"about": json.dumps(self.about(image, seed))}))
            calls += self.calls
        return calls

    def _read(self, image: int, noise_seed: int, what: str) -> np.ndarray:
        self.record([(image, noise_seed)])
        path = self.file(image, noise_seed)
        try:
            with safe_open(path, framework="np") as opened:
                self._check(path, opened.metadata() or {}, self.about(image, noise_seed))
                return opened.get_tensor(what)
        except (SafetensorError, OSError) as error:
            raise SkipDiffError(
                f"{path} is damaged ({error}): delete it, and it will be made again"
            ) from None

    @staticmethod
    def _check(path: Path, metadata: dict[str, str], wanted: dict[str, Any]) -> None:
        """Raise a SkipDiffError for a file whose content does not match its name."""
        found = json.loads(metadata.get("about", "{}"))
        for name, value in json.loads(json.dumps(wanted)).items():
            if found.get(name) != value:
                raise SkipDiffError(
                    f"{path} is a recording with {name} = {found.get(name)!r}, not {value!r}: delete it, "
                    "and it will be made again"
                )

    def latents(self, image: int, noise_seed: int, size: int) -> np.ndarray:
        """Return what agents see in each state, then in each outcome, float16
        (states + outcomes, 3, size, size)."""
        key, kept = (image, noise_seed, size), self._latents
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        found = kept[key] = self._read(image, noise_seed, f"latents_{size}")
        while sum(array.nbytes for array in kept.values()) > self.max_bytes:
            kept.popitem(last=False)
        return found

    def values(self, image: int, noise_seed: int) -> np.ndarray:
        """Return the metrics of each outcome, float64 (outcomes, metrics)."""
        return self._remembered(
            (image, noise_seed, "values"), lambda: self._read(image, noise_seed, "values")
        )

    def seconds(self, image: int, noise_seed: int) -> float:
        """Return the time that the recording took, in seconds."""
        return float(self._read(image, noise_seed, "seconds")[0])

    def rewards(self, image: int, noise_seed: int) -> np.ndarray:
        """Return the reward of each outcome, float64 (outcomes,); 0 where it cannot be computed."""

        def compute() -> np.ndarray:
            values = self.values(image, noise_seed)[:, self.metrics.index(self.metric)]
            return or_zero(load_metric(self.metric).rewards(values))

        return self._remembered((image, noise_seed, "rewards"), compute)

    def spread(self, episodes: Iterable[Episode]) -> float:
        """Return the mean over episodes of the standard deviation of their outcomes' rewards; 1 if that is
        0."""
        return float(np.mean([self.rewards(*episode).std() for episode in episodes])) or 1.0

    def optimum(self, image: int, noise_seed: int) -> Optimum:
        """Return every outcome of the recording; ``calls`` is the number of network calls that the
        recording took."""
        values = self.values(image, noise_seed)[:, self.metrics.index(self.metric)]
        rewards = self.rewards(image, noise_seed)
        calls = evaluations(self.schedules, self.process.coarse_steps)
        rows = zip(map(tuple, self.schedules.tolist()), values, rewards, calls, strict=True)
        outcomes = [
            Outcome(actions, float(value), float(reward), int(calls_made))
            for actions, value, reward, calls_made in rows
        ]
        outcomes.sort(key=lambda outcome: (-outcome.reward, outcome.evaluations))
        return Optimum(tuple(outcomes), self.calls)
