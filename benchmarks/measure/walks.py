"""CSA and FSR with a memory, as samplers for the tables."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skipdiff_env.chains import parse_skipdiff
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.diffusion.process import CoarseRule
from skipdiff_env.latent_cache import CachedProcess, LatentCache

from .sampler import Batch, Picture, Sampler, conditions_of, noise_of, pictures_of

CACHE_BYTES = 2**30
"""Size of the memory in bytes; a batch of 256-pixel images with all starts takes half of it."""


class Walks:
    """Samplers that compute only once what the schedules of an image share.

    Args:
        model: the frozen model.
        coarse_levels: rule that places the coarse levels, the topmost one included; None: that of the model.
        variant: name of the variant for keys and labels; empty for the unchanged model.
    """

    def __init__(
        self, model: FrozenModel, coarse_levels: CoarseRule | None = None, variant: str = ""
    ) -> None:
        self.model, self.coarse_levels = model, coarse_levels
        self.suffix, self.note = (f"+{variant}", f", {variant}") if variant else ("", "")
        self.cache = LatentCache(CACHE_BYTES)

    def process(self, coarse: int, fine: int | None = None) -> CachedProcess:
        """Return the process of a step pair, which uses the common memory."""
        return self._process(self.model, coarse, fine)

    def _process(self, *arguments: Any) -> CachedProcess:
        return CachedProcess(*arguments, coarse_levels=self.coarse_levels, cache=self.cache)

    def coarse(self, coarse: int) -> Sampler:
        """Make the sampler of CSA alone, with S evaluations; with S = T it is the full chain."""
        process = self.process(coarse)  # not that of chains.CSA (F = 0), which shares no latents with F = N

        def run(lrs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Picture]:
            state = process.start(conditions_of(self.model, lrs), noise_of(lrs, seeds))
            # x̂0 at level N: the jump N → 0
            return [Picture(image, coarse) for image in pictures_of(process.denoise(state).x0)]

        full = coarse == self.model.schedule.steps
        label = f"full chain ({coarse} steps)" if full else f"CSA alone (S = {coarse})"
        calls = self._coarse_calls(coarse) | {self._call(coarse, (process.stride,))}
        key = f"csa-{coarse}{self.suffix}"
        return Sampler(key, label + self.note, run, calls, steps=coarse, tag=str(coarse))

    def skip(self, coarse: int, fine: int, start: int) -> Sampler:
        """Make the sampler of SkipDiff with a fixed start."""
        histories = {self._call(coarse, tuple(range(start, t - 1, -1))) for t in range(start, 0, -1)}
        calls = self._coarse_calls(coarse) | histories
        label = f"SkipDiff ({coarse}, {fine}), start {start}{self.note}"
        key = f"skip-{coarse}-{fine}-{start}{self.suffix}"
        return Sampler(key, label, self._runner(coarse, fine, start), calls, steps=coarse, tag=str(start))

    def agent(self, coarse: int, fine: int, policy: Path, name: str) -> Sampler:
        """Make the sampler of SkipDiff with an exported agent; the file's content is part of the key."""
        digest = hashlib.sha256(policy.read_bytes()).hexdigest()[:8]
        key = f"agent-{coarse}-{fine}-{digest}"
        own = {(key, i) for i in range(fine)}  # at most, since it may end where a start has been
        calls = self._coarse_calls(coarse) | own
        run = self._runner(coarse, fine, str(policy))
        return Sampler(key, f"SkipDiff, agent {name}", run, calls, steps=coarse, agent=name)

    def _runner(self, coarse: int, fine: int, policy: int | str) -> Batch:
        chain = replace(parse_skipdiff(policy, self.model, coarse, fine), process=self._process)

        def run(lrs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Picture]:
            final = chain(self.model, conditions_of(self.model, lrs), noise_of(lrs, seeds))
            starts = [
                1 + next((i for i, action in enumerate(actions[::-1]) if action), fine - 1)
                for actions in final.actions.tolist()
            ]
            made = zip(pictures_of(final.x0), final.evaluations.tolist(), starts, strict=True)
            return [Picture(*picture) for picture in made]

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
