"""Every way to enlarge an image that the tables compare, all on the same frozen model.

To add a rival, add a line to :func:`catalogue`, and its numbers of steps to :data:`COUNTS`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skipdiff_env import SkipDiffError, SkipDiffSampler
from skipdiff_env.diffusion import FrozenModel, NoiseKey, image_key, to_uint8
from skipdiff_env.diffusion.few_step import CCSR, FewSteps
from skipdiff_env.diffusion.pretrained import ABOUT_POLICY
from skipdiff_env.diffusion.process import CoarseRule
from skipdiff_env.latent_cache import CachedProcess, LatentCache
from skipdiff_env.policies import shipped_policy

from . import standard

COARSE = (2, 4, 5, 10, 20, 25, 50, 100)
"""S of Figure 1."""
PAIRS = ((4, 25), (5, 20), (20, 5), (25, 4))
"""Step pairs (S, F) beside (10, 10) in Figure 5."""
STANDARD = (
    ("ddim", "DDIM (η = 0)", standard.ddim),
    ("dpm", "DPM-Solver++(2M)", standard.dpm_solver),
    ("ancestral", "uniform chain", standard.ancestral),
)
"""What diffusers samples: key, label, scheduler."""
COUNTS = {
    "ddim": (10, 16, 20, 50),
    "dpm": (10, 16, 20),
    "ancestral": (16,),  # of 20 steps: CSA alone, S = 20
    "ccsr": (1, 2),
}
"""Numbers of steps of every rival, beside those that SkipDiff takes, see :func:`counts`."""
AGENT_PAIRS = {"NIQE": (10, False), "LPIPS": (10, False), "(1, T)": (1, True), "(10, T)": (10, True)}
"""Agents by name: S, and whether F is T instead of T/10. The first two say their reward."""
CACHE_BYTES = 2**28


@dataclass(frozen=True)
class Picture:
    """What a sampler made."""

    image: np.ndarray
    """uint8 (H, W, 3)."""
    evaluations: int
    start: int = 0
    """See :class:`store.Row`."""


@dataclass(frozen=True)
class Sampler:
    """A way to enlarge an image."""

    key: str
    """What rows are kept under."""
    label: str
    """What tables say."""
    run: Callable[[np.ndarray, int], Picture]
    """(LR image uint8 (h, w, 3), noise seed) → result."""
    calls: frozenset[tuple[Any, ...]]
    """Its network calls; those of one name are made once for an image and seed."""


class Walks:
    """CSA and FSR with a memory: what schedules of an image share is computed once.

    Args:
        model: the frozen model.
        coarse_levels: where the topmost level lies; None asks the model.
        variant: said in keys and labels, if this is not the model as it is.
    """

    def __init__(
        self, model: FrozenModel, coarse_levels: CoarseRule | None = None, variant: str = ""
    ) -> None:
        self.model, self.coarse_levels = model, coarse_levels
        self.suffix, self.note = (f"+{variant}", f", {variant}") if variant else ("", "")
        self.cache = LatentCache(CACHE_BYTES)

    def process(self, coarse: int, fine: int | None = None) -> CachedProcess:
        """The process of a step pair, on the common memory."""
        rule = self.coarse_levels
        return CachedProcess(self.model, coarse, fine, coarse_levels=rule, cache=self.cache)

    def coarse(self, coarse: int) -> Sampler:
        """CSA alone, S evaluations; with S = T the full chain."""
        process = self.process(coarse)

        def run(lr: np.ndarray, seed: int) -> Picture:
            state = process.start(_condition(self.model, lr), [NoiseKey(image_key(lr), seed)])
            return Picture(_image(process.denoise(state).x0), coarse)  # x̂0 at level N: the jump N → 0

        full = coarse == self.model.schedule.steps
        label = f"full chain ({coarse} steps)" if full else f"CSA alone (S = {coarse})"
        calls = self._coarse_calls(coarse) | {self._call(coarse, (process.stride,))}
        return Sampler(f"csa-{coarse}{self.suffix}", label + self.note, run, calls)

    def skip(self, coarse: int, fine: int, start: int) -> Sampler:
        """SkipDiff with a fixed start."""
        histories = {self._call(coarse, tuple(range(start, t - 1, -1))) for t in range(start, 0, -1)}
        calls = self._coarse_calls(coarse) | histories
        label = f"SkipDiff ({coarse}, {fine}), start {start}{self.note}"
        key = f"skip-{coarse}-{fine}-{start}{self.suffix}"
        return Sampler(key, label, self._runner(coarse, fine, start), calls)

    def agent(self, coarse: int, fine: int, policy: Path, name: str) -> Sampler:
        """SkipDiff with an exported agent; the file's content is part of the key."""
        digest = hashlib.sha256(policy.read_bytes()).hexdigest()[:8]
        key = f"agent-{coarse}-{fine}-{digest}"
        own = {(key, i) for i in range(fine)}  # at most: it may end where a start has been
        calls = self._coarse_calls(coarse) | own
        return Sampler(key, name, self._runner(coarse, fine, str(policy)), calls)

    def _runner(self, coarse: int, fine: int, policy: int | str) -> Callable[[np.ndarray, int], Picture]:
        sampler = SkipDiffSampler(self.model, coarse, fine)
        sampler.process = self.process(coarse, fine)

        def run(lr: np.ndarray, seed: int) -> Picture:
            out = sampler(lr, policy=policy, seed=seed)
            trace = out.trace[0]
            denoised = next((i for i, action in enumerate(trace.actions[::-1]) if action), fine - 1)
            return Picture(out.images[0], trace.evaluations, denoised + 1)

        return run

    def _coarse_calls(self, coarse: int) -> frozenset[tuple[Any, ...]]:
        return frozenset((f"csa{self.suffix}", coarse, s) for s in range(coarse, 1, -1))

    def _call(self, coarse: int, history: tuple[int, ...]) -> tuple[Any, ...]:
        return (f"fsr{self.suffix}", coarse, history)


class Unclamped:
    """A model whose x̂0 is not clamped to [-1, 1] on the way down."""

    def __init__(self, model: FrozenModel) -> None:
        self.model, self.predict = model, model.predict_unclamped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def counts(kind: str, budgets: Iterable[int]) -> list[int]:
    """Numbers of steps of a kind of :data:`COUNTS`, those of SkipDiff's ``budgets`` among them."""
    return sorted({*COUNTS[kind], *budgets})


def catalogue(
    model: FrozenModel,
    start: int,
    agents: Mapping[str, Path] | None = None,
    budgets: Iterable[int] = (),
) -> dict[str, Sampler]:
    """All samplers that the model's T allows, by key.

    Args:
        model: the frozen model.
        start: the fixed start at (10, T/10).
        agents: policy files by name, see :data:`AGENT_PAIRS`.
        budgets: evaluations at which every rival is there, beside the fixed start's 9 + ``start``.

    Raises:
        SkipDiffError: if 10 does not divide T.
    """
    top = model.schedule.steps
    if top % 10:
        raise SkipDiffError(f"the tables take S = 10, which does not divide this model's T = {top}")
    found = [_bicubic(model), *_skipdiff(model, start, agents or {}), *_ablations(model, start)]
    equal = {9 + start, *budgets}
    for kind, label, make in STANDARD:
        for n in counts(kind, equal):
            if n < top:
                found.append(_standard(model, f"{kind}-{n}", f"{label}, {n} steps", make, n))
    for n in counts("ccsr", equal):
        found.append(_few_steps(model, f"ccsr-{n}", f"CCSR's sampler, {n} steps", CCSR(n)))
    return {sampler.key: sampler for sampler in found}


def shipped_agent(model: str | os.PathLike[str]) -> dict[str, Path]:
    """The agent in a model's folder under the name of its reward, see :data:`AGENT_PAIRS`.

    Nothing if there is none, or one of a reward that the tables have no line for.
    """
    file = shipped_policy(model)
    if file is None:
        return {}
    about = json.loads((file.parent / ABOUT_POLICY).read_text(encoding="utf-8"))
    name = str(about.get("metric")).upper()
    return {name: file} if name in AGENT_PAIRS else {}


def pair_start(start: int, pair: tuple[int, int]) -> int:
    """The start that lies as deep in another step pair's levels: ``start`` tenths of F."""
    return max(1, round(start * pair[1] / 10))


def _skipdiff(model: FrozenModel, start: int, agents: Mapping[str, Path]) -> list[Sampler]:
    walks, top = Walks(model), model.schedule.steps
    found = [walks.coarse(s) for s in sorted({*COARSE, 10, top}) if top % s == 0]
    found += [walks.skip(10, top // 10, k) for k in range(1, top // 10 + 1)]
    found += [walks.skip(*pair, pair_start(start, pair)) for pair in PAIRS if pair[0] * pair[1] == top]
    for name, file in agents.items():
        coarse, whole = AGENT_PAIRS[name]
        found.append(walks.agent(coarse, top if whole else top // 10, file, f"SkipDiff, agent {name}"))
    return found


def _ablations(model: FrozenModel, start: int) -> list[Sampler]:
    """What can be changed without training: the clamp, and where CSA's topmost level lies."""
    other: CoarseRule = "strided" if model.config.coarse_levels == "rebuilt" else "rebuilt"
    free: Any = Unclamped(model)
    moved, unclamped, top = Walks(model, other, other), Walks(free, None, "unclamped"), model.schedule.steps
    found = [unclamped.coarse(top)]
    for walks in (moved, unclamped):
        found += [walks.coarse(10), walks.skip(10, top // 10, start)]
    return found


def _bicubic(model: FrozenModel) -> Sampler:
    def run(lr: np.ndarray, seed: int) -> Picture:
        return Picture(_image(_condition(model, lr)), 0)

    return Sampler("bicubic", "bicubic", run, frozenset())


def _standard(model: FrozenModel, key: str, label: str, make: Any, steps: int) -> Sampler:
    def run(lr: np.ndarray, seed: int) -> Picture:
        scheduler, levels = make(model.schedule, steps)
        noise = NoiseKey(image_key(lr), seed)
        return Picture(_image(standard.sample(model, scheduler, levels, _condition(model, lr), noise)), steps)

    return Sampler(key, label, run, frozenset((key, i) for i in range(steps)))


def _few_steps(model: FrozenModel, key: str, label: str, chain: FewSteps) -> Sampler:
    def run(lr: np.ndarray, seed: int) -> Picture:
        state = chain(model, _condition(model, lr), [NoiseKey(image_key(lr), seed)])
        return Picture(_image(state.x0), chain.steps)

    return Sampler(key, label, run, frozenset((key, i) for i in range(chain.steps)))


def _condition(model: FrozenModel, lr: np.ndarray) -> Tensor:
    return model.condition(torch.from_numpy(lr).permute(2, 0, 1)[None])


def _image(x0: Tensor) -> np.ndarray:
    return np.ascontiguousarray(to_uint8(x0)[0].permute(1, 2, 0).cpu().numpy())
