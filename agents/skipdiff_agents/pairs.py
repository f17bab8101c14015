"""Which episodes: images and noise seeds, for training and for looking at what was learned."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from skipdiff_env.errors import SkipDiffError

Pair = tuple[int, int]
"""Index of an image in its source, and noise seed."""

UNSEEN = 1_000_000
"""Evaluation's noise seeds begin here; training's begin at 0."""
FRESH = 2_000_000
"""Those of the final evaluation of a run begin here: its evaluation while it learns chose the agent."""


def all_pairs(images: int | Iterable[int], noise_seeds: int, first: int = 0) -> list[Pair]:
    """Every image (a count, or their indices) under ``noise_seeds`` noise seeds from ``first`` on."""
    if noise_seeds < 1:
        raise SkipDiffError(f"noise_seeds={noise_seeds} must be at least 1")
    chosen = range(images) if isinstance(images, int) else images
    return list(product(chosen, range(first, first + noise_seeds)))


def enough(episodes: int, images: int) -> int:
    """Noise seeds an image that make at least so many episodes."""
    return -(-episodes // images)


def kept_back(count: int, kinds: int = 1) -> list[int]:
    """The images that are kept back from training: every tenth of each kind; of four to nine every third.

    Args:
        count: number of images.
        kinds: image number i is of kind i modulo ``kinds``, see :func:`skipdiff_env.images.mixed_quality`.

    Returns:
        their indices, as many of each kind; none where a kind has fewer than four images.
    """
    every = 10 if count >= 10 * kinds else 3
    kept = [i for i in range(count - count % kinds) if i // kinds % every == every - 1]
    return kept if count >= 4 * kinds else []
