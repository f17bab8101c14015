"""The episodes, as images and noise seeds, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from skipdiff_env.errors import SkipDiffError

Pair = tuple[int, int]
"""Index of an image in its source, and noise seed."""

UNSEEN = 1_000_000
"""First noise seed of evaluations; those of training begin at 0."""
FRESH = 2_000_000
"""First noise seed of a run's final evaluation, since the agent was chosen on those that begin at
:data:`UNSEEN`."""


def all_pairs(images: int | Iterable[int], noise_seeds: int, first: int = 0) -> list[Pair]:
    """Return every image (a count, or their indices) under ``noise_seeds`` noise seeds, which begin at
    ``first``."""
    if noise_seeds < 1:
        raise SkipDiffError(f"noise_seeds={noise_seeds} must be at least 1")
    chosen = range(images) if isinstance(images, int) else images
    return list(product(chosen, range(first, first + noise_seeds)))


def enough(episodes: int, images: int) -> int:
    """Return the number of noise seeds per image that gives at least ``episodes`` episodes."""
    return -(-episodes // images)


def kept_back(count: int, kinds: int = 1) -> list[int]:
    """Return the images that are held out from training: every tenth of each kind, or every third of a kind
    with four to nine.

    Args:
        count: number of images.
        kinds: image number i is of kind i modulo ``kinds``, see :func:`skipdiff_env.images.mixed_quality`.

    Returns:
        Their indices, the same number of each kind; empty if a kind has fewer than four images.
    """
    every = 10 if count >= 10 * kinds else 3
    kept = [i for i in range(count - count % kinds) if i // kinds % every == every - 1]
    return kept if count >= 4 * kinds else []
