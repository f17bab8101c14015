"""What a way to enlarge images is, for tables and figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from skipdiff_env.diffusion import FrozenModel, to_uint8
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

    def of(self, pair: Pair, seed: int) -> Picture:
        """What stands in tables for a pair that has an original: that, or what ``run`` makes of the LR."""
        if not self.original:
            return self.run(pair.lr, seed)
        assert pair.hr is not None
        return Picture(pair.hr, 0)


def condition_of(model: FrozenModel, lr: np.ndarray) -> Tensor:
    """c of one LR image, uint8 (h, w, 3): (1, 3, H, W)."""
    return model.condition(to_planes(lr))


def picture_of(x0: Tensor) -> np.ndarray:
    """An image (1, 3, H, W) in [-1, 1] as uint8 (H, W, 3)."""
    return to_arrays(to_uint8(x0))[0]


def _unknown(lr: np.ndarray, seed: int) -> Picture:
    raise ValueError("an LR image does not tell its original: ask Sampler.of")


HR = Sampler("hr", "HR", _unknown, frozenset(), original=True)
"""The originals: how natural and how grainy they are by the metrics that ask for no original."""
