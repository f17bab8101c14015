"""What a way to enlarge images is, for tables and figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from skipdiff_env.diffusion import FrozenModel, NoiseKey, image_key, to_uint8
from skipdiff_env.diffusion.resize import to_arrays, to_planes
from skipdiff_env.images import Pair


@dataclass(frozen=True)
class Picture:
    """What a sampler made."""

    image: np.ndarray
    """uint8 (H, W, 3)."""
    evaluations: int
    start: int = 0
    """See :class:`.store.Row`."""
    seconds: float = math.nan
    """What it took, where that was measured."""


Batch = Callable[[Sequence[np.ndarray], Sequence[int]], list[Picture]]
"""(LR images of one size, uint8 (h, w, 3); a noise seed for each) → a result for each."""


def each(run: Callable[[np.ndarray, int], Picture]) -> Batch:
    """What enlarges one image after the other, of a function of one image and its noise seed."""
    return lambda lrs, seeds: [run(lr, seed) for lr, seed in zip(lrs, seeds, strict=True)]


@dataclass(frozen=True)
class Sampler:
    """A way to enlarge an image."""

    key: str
    """What rows are kept under."""
    label: str
    """What tables say."""
    run: Batch
    """See :data:`Batch`; a function of one image becomes one by :func:`each`."""
    calls: frozenset[tuple[Any, ...]]
    """Its network calls; those of one name are made once for an image and seed."""
    family: str = ""
    """Name of its :class:`.family.Family`; the catalogue fills it in."""
    steps: int = 0
    """S, or the steps of a chain that has no levels to skip."""
    tag: str = ""
    """What stands beside its point in Figure 5."""
    weights: tuple[str, ...] = ()
    """Hashes, of the network and of the refiner, if they are its own."""
    agent: str = ""
    """Name of the agent that decides, if one does."""
    original: bool = False
    """It stands for the originals themselves, of which ``run`` cannot know."""

    def one(self, lr: np.ndarray, seed: int) -> Picture:
        """The result for one LR image, uint8 (h, w, 3)."""
        return self.run([lr], [seed])[0]

    def of(self, pairs: Sequence[Pair], seeds: Sequence[int]) -> list[Picture]:
        """What stands in tables for pairs that have originals: these, or what ``run`` makes of the LR."""
        if not self.original:
            return self.run([pair.lr for pair in pairs], seeds)
        return [Picture(pair.hr, 0) for pair in pairs if pair.hr is not None]


def conditions_of(model: FrozenModel, lrs: Sequence[np.ndarray]) -> Tensor:
    """c of LR images of one size, uint8 (h, w, 3): (B, 3, H, W)."""
    return model.condition(to_planes(np.stack(lrs)))


def noise_of(lrs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[NoiseKey]:
    """The key of each image's noise."""
    return [NoiseKey(image_key(lr), seed) for lr, seed in zip(lrs, seeds, strict=True)]


def pictures_of(x0: Tensor) -> list[np.ndarray]:
    """Images (B, 3, H, W) in [-1, 1] as uint8 (H, W, 3)."""
    return list(to_arrays(to_uint8(x0)))


def _unknown(lrs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Picture]:
    raise ValueError("an LR image does not tell its original: ask Sampler.of")


HR = Sampler("hr", "HR", _unknown, frozenset(), original=True)
"""The originals: how natural and how grainy they are by the metrics that ask for no original."""
