"""Episodes computed once: every state that an agent can see, small, and every outcome with its scores.

Under one noise seed an episode is a walk on a finite graph (see :mod:`skipdiff_env.oracle`). Playing all
of it costs as many network calls as the optimum does, and afterwards training, comparing and looking for
the optimum cost none. A recording is a file, named by all that it depends on: the model's hash and
precision, the steps, both pictures, the noise seed, the sizes and the metrics.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from skipdiff_env.diffusion import DENOISE, SKIP, NoiseKey, SkipProcess, image_key, to_uint8
from skipdiff_env.diffusion.process import History, SkipRule, history_after
from skipdiff_env.diffusion.resize import to_arrays, to_planes
from skipdiff_env.envs.books import evaluations, reward_of
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.files import write_atomically
from skipdiff_env.images import Pair as ImagePair
from skipdiff_env.metrics import load_metric
from skipdiff_env.oracle import Optimum, Outcome, optimum_calls, walk
from skipdiff_env.policies.file import as_seen

from .evaluate import Setting, judge
from .pairs import Pair
from .recorded_env import RecordedVectorEnv

METRICS = ("niqe", "lpips", "psnr", "ssim")
FORMAT = 1
"""Part of every name: to be raised when the content of recordings changes."""


class Graph:
    """All states of an episode, numbered.

    Args:
        fine_steps: F.
        rule: what a skip does.

    Attributes:
        states: number of each history in which there is something to decide; 0 is x_S1.
        outcomes: number of each history at level 1.
        next: int32 (F + 1, len(states), 2): [level, state, action] → the state after it, at level 2 the
            outcome; -1 where the state does not occur at the level.
    """

    def __init__(self, fine_steps: int, rule: SkipRule) -> None:
        self.fine_steps, self.rule = fine_steps, rule
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
        """The cheapest actions that lead to each outcome: skip wherever nothing is denoised."""
        return [
            tuple(DENOISE if t in history else SKIP for t in range(self.fine_steps, 1, -1))
            for history in self.outcomes
        ]


@dataclass(frozen=True)
class Recording:
    """One image under one noise seed."""

    latents: dict[int, np.ndarray]
    """By size n, what agents see in each state, float16 (states, 3, n, n)."""
    values: np.ndarray
    """The metrics of each outcome, float64 (outcomes, metrics), see :func:`scores`."""


def record(
    process: SkipProcess,
    graph: Graph,
    pair: ImagePair,
    noise_seed: int,
    sizes: Sequence[int],
    metrics: Sequence[str],
) -> Recording:
    """Play every schedule of an image under a noise seed; see :class:`Recording`."""
    device = process.model.device
    condition = process.model.condition(to_planes(pair.lr))
    start = process.start(condition, [NoiseKey(image_key(pair.lr), noise_seed)])
    latents = {n: np.zeros((len(graph.states), 3, n, n), np.float16) for n in sizes}
    left = set(graph.states)

    def visit(state: Any) -> None:
        rows = [row for row, history in enumerate(state.history) if history in left]
        if not rows:
            return
        numbers = [graph.states[state.history[row]] for row in rows]
        left.difference_update(state.history[row] for row in rows)
        for n in sizes:
            latents[n][numbers] = as_seen(state.latent[rows], n).cpu().numpy()

    values = np.full((len(graph.outcomes), len(metrics)), np.nan)
    for final, _, _ in walk(process, start, visit=visit):
        numbers = [graph.outcomes[history[:-1]] for history in final.history]
        pictures = to_arrays(to_uint8(final.x0))
        values[numbers] = scores(pictures, pair.hr, metrics, device)
    return Recording(latents, values)


def scores(
    pictures: np.ndarray,
    original: np.ndarray | None,
    metrics: Sequence[str],
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The metrics of pictures, uint8 (B, H, W, 3), of one original: float64 (B, metrics).

    NaN where there is none, see :func:`.judge`.
    """
    references = None if original is None else np.stack([original] * len(pictures))
    return np.stack([judge(load_metric(name, device), pictures, references) for name in metrics], axis=1)


@dataclass(frozen=True)
class RecordedSetting(Setting):
    """A setting whose episodes are recorded, and then looked up; ``metric`` is a name.

    What is missing is recorded when it is first asked for.

    Args:
        folder: where recordings are kept; shared by any settings.
        sizes: of the latents that agents may see; the largest where nothing is said.
        max_bytes: of latents that are kept in memory; what was used longest ago goes first.
    """

    folder: Path = Path("runs/recordings")
    sizes: tuple[int, ...] = (32,)
    max_bytes: int = 2 * 2**30
    # Not arguments: a setting made from another one by replace() must not look up the other's answers.
    _memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _latents: OrderedDict[tuple[int, int, int], np.ndarray] = field(
        default_factory=OrderedDict, init=False, repr=False, compare=False
    )

    @property
    def process(self) -> SkipProcess:
        """The process whose schedules are recorded."""
        return self._remembered("process", self._make_process)

    def _make_process(self) -> SkipProcess:
        process = SkipProcess(self.model, self.coarse_steps, self.fine_steps, self.skip_rule)
        if (calls := optimum_calls(process)) > self.max_calls:
            raise SkipDiffError(
                f"recording an episode at F = {process.fine_steps} under {self.skip_rule!r} takes {calls} "
                f"network calls, more than max_calls={self.max_calls}: allow more, use a smaller "
                "fine_steps, or train without recordings"
            )
        return process

    @property
    def graph(self) -> Graph:
        """States and outcomes of every episode."""
        return self._remembered("graph", lambda: Graph(self.process.fine_steps, self.skip_rule))

    @property
    def metrics(self) -> tuple[str, ...]:
        """What outcomes are scored by: the four of the tables, and the reward's own."""
        return METRICS if self.metric in METRICS else (*METRICS, str(self.metric))

    def _remembered(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._memory:
            self._memory[key] = make()
        return self._memory[key]

    def content(self, image: int) -> dict[str, Any]:
        """Hashes of an episode's two pictures, computed once."""
        return self._remembered((image, "content"), lambda: Setting.content(self, image))

    def file(self, image: int, noise_seed: int) -> Path:
        """Where the recording of an image and a noise seed lies, or would."""
        return self._remembered((image, noise_seed, "file"), lambda: self._name(image, noise_seed))

    def _name(self, image: int, noise_seed: int) -> Path:
        process = self.process
        about = {
            "format": FORMAT, "model": self.model.hash, "levels": self._levels(),
            "precision": self.precision,
            "steps": [process.coarse_steps, process.fine_steps], "rule": self.skip_rule,
            "seed": noise_seed, **self.content(image),
            "sizes": list(self.sizes), "metrics": list(self.metrics),
        }  # fmt: skip
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=12).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def _levels(self) -> list[Any]:
        return [self.process.schedule.config, self.process.coarse_alpha_bar.tolist()]

    def record(self, pairs: Iterable[Pair], progress: Callable[[str], None] | None = None) -> int:
        """Make the recordings that are missing; returns how many network calls that took."""
        missing = [pair for pair in pairs if not self.file(*pair).is_file()]
        calls = 0
        for done, (image, seed) in enumerate(missing):
            if self.file(image, seed).is_file():
                continue  # another process was faster
            if progress:
                progress(f"recording {done + 1}/{len(missing)}: {self.source.name(image)}, noise {seed}")
            began = time.perf_counter()
            made = record(self.process, self.graph, self.pair(image), seed, self.sizes, self.metrics)
            seconds = np.array([time.perf_counter() - began])
            tensors: dict[str, Tensor] = {"values": torch.from_numpy(made.values)}
            tensors["seconds"] = torch.from_numpy(seconds)
            tensors |= {f"latents_{n}": torch.from_numpy(made.latents[n]) for n in self.sizes}
            path = self.file(image, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save(tensors))
            calls += optimum_calls(self.process)
        return calls

    def _read(self, image: int, noise_seed: int, what: str) -> np.ndarray:
        self.record([(image, noise_seed)])
        path = self.file(image, noise_seed)
        try:
            with safe_open(path, framework="np") as opened:
                return opened.get_tensor(what)
        except (SafetensorError, OSError) as error:
            raise SkipDiffError(f"{path} is damaged ({error}): delete it, and it is made anew") from None

    def latents(self, image: int, noise_seed: int, size: int) -> np.ndarray:
        """What agents see in each state, float16 (states, 3, size, size)."""
        key, kept = (image, noise_seed, size), self._latents
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        found = kept[key] = self._read(image, noise_seed, f"latents_{size}")
        while sum(array.nbytes for array in kept.values()) > self.max_bytes:
            kept.popitem(last=False)
        return found

    def values(self, image: int, noise_seed: int) -> np.ndarray:
        """The metrics of each outcome, float64 (outcomes, metrics)."""
        return self._remembered(
            (image, noise_seed, "values"), lambda: self._read(image, noise_seed, "values")
        )

    def seconds(self, image: int, noise_seed: int) -> float:
        """How long the recording took."""
        return float(self._read(image, noise_seed, "seconds")[0])

    def rewards(self, image: int, noise_seed: int) -> np.ndarray:
        """What each outcome pays, float64 (outcomes,); 0 where it cannot be computed."""

        def compute() -> np.ndarray:
            values = self.values(image, noise_seed)[:, self.metrics.index(str(self.metric))]
            return reward_of(load_metric(self.metric).rewards(values))

        return self._remembered((image, noise_seed, "rewards"), compute)

    def relative_rewards(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """``reward_scale``: the mean standard deviation of an episode's outcomes."""
        return {"reward_scale": float(np.mean([self.rewards(*pair).std() for pair in pairs])) or 1.0}

    def envs(
        self, count: int, tensors: bool = False, reward_scale: float | None = None, **others: Any
    ) -> Any:
        """``count`` environments that look everything up; see :class:`.RecordedVectorEnv`."""
        return RecordedVectorEnv(self, count, self.options(**others), tensors, reward_scale)

    def optimum(self, image: int, noise_seed: int) -> Optimum:
        """Every outcome, read off the recording; ``calls`` is what making it took."""
        values = self.values(image, noise_seed)[:, self.metrics.index(str(self.metric))]
        rewards = self.rewards(image, noise_seed)
        schedules = self.graph.schedules()
        calls = evaluations(schedules, self.process.coarse_steps)
        rows = zip(schedules, values, rewards, calls, strict=True)
        outcomes = [
            Outcome(actions, float(value), float(reward), int(calls_made))
            for actions, value, reward, calls_made in rows
        ]
        outcomes.sort(key=lambda outcome: (-outcome.reward, outcome.evaluations))
        return Optimum(tuple(outcomes), optimum_calls(self.process))
