"""Ways to enlarge images, for tables and figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from skipdiff_env.diffusion import FrozenModel, NoiseKey, image_key, to_uint8
from skipdiff_env.diffusion.model import bicubic_condition
from skipdiff_env.diffusion.resize import to_arrays, to_planes
from skipdiff_env.images import Pair


@dataclass(frozen=True)
class Picture:
    """The result of a sampler."""

    image: np.ndarray
    """uint8 (H, W, 3)."""
    evaluations: int
    start: int = 0
    """Start of FSR, see :class:`.store.Row`."""
    seconds: float = math.nan
    """Seconds that it took, if they were measured."""


Batch = Callable[[Sequence[np.ndarray], Sequence[int]], list[Picture]]
"""Function of LR images of one size, uint8 (h, w, 3), and a noise seed for each → a result for each."""


def each(run: Callable[[np.ndarray, int], Picture]) -> Batch:
    """Turn a function of one image and its noise seed into one that enlarges one image after the other."""
    return lambda lrs, seeds: [run(lr, seed) for lr, seed in zip(lrs, seeds, strict=True)]


@dataclass(frozen=True)
class Sampler:
    """A way to enlarge an image."""

    key: str
    """Key under which its rows are kept."""
    label: str
    """Its name in tables."""
    run: Batch
    """Function that enlarges images; :func:`each` makes one from a function of one image."""
    calls: frozenset[tuple[Any, ...]]
    """Its network calls by name; calls of the same name are made once per image and seed."""
    family: str = ""
    """Name of its :class:`.family.Family`; the catalogue fills it in."""
    steps: int = 0
    """S, or the number of steps of a chain without levels to skip."""
    tag: str = ""
    """The text beside its point in Figure 5."""
    weights: tuple[str, ...] = ()
    """Hashes of the network and of the refiner, if it has its own."""
    agent: str = ""
    """Name of the agent that decides, if one does."""
    original: bool = False
    """Whether it stands for the originals themselves, which ``run`` does not know."""

    def one(self, lr: np.ndarray, seed: int) -> Picture:
        """Return the result for one LR image, uint8 (h, w, 3)."""
        return self.run([lr], [seed])[0]

    def of(self, pairs: Sequence[Pair], seeds: Sequence[int]) -> list[Picture]:
        """Return the pictures to judge for pairs with originals: these, or what ``run`` makes of the LR."""
        if not self.original:
            return self.run([pair.lr for pair in pairs], seeds)
        return [Picture(pair.hr, 0) for pair in pairs if pair.hr is not None]


def conditions_of(model: FrozenModel, lrs: Sequence[np.ndarray]) -> Tensor:
    """Return c, (B, 3, H, W), of LR images of one size, uint8 (h, w, 3)."""
    return model.condition(to_planes(np.stack(lrs)))


def enlarged(model: FrozenModel, lrs: Sequence[np.ndarray]) -> Tensor:
    """Enlarge LR images bicubically as they are, without the model's restorer, to (B, 3, H, W)."""
    return bicubic_condition(to_planes(np.stack(lrs)), model.scale)


def noise_of(lrs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[NoiseKey]:
    """Return the noise key of each image."""
    return [NoiseKey(image_key(lr), seed) for lr, seed in zip(lrs, seeds, strict=True)]


def pictures_of(x0: Tensor) -> list[np.ndarray]:
    """Convert images (B, 3, H, W) in [-1, 1] to uint8 (H, W, 3)."""
    return list(to_arrays(to_uint8(x0)))


def _unknown(lrs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Picture]:
    raise ValueError("an original cannot be made from its LR image: call Sampler.of")


HR = Sampler("hr", "HR", _unknown, frozenset(), original=True)
"""The originals, which metrics without a reference can judge."""
