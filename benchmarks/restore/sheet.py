"""Draws an input of every kind next to the results of every way, for visual comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from skipdiff_env.images import ImageSource, make_pair
from skipdiff_env.upscale.compare import side_by_side

from ..measure.drawing import save_picture
from ..measure.sampler import Sampler
from .kinds import Kind

SIDE = 160
"""Side in pixels of the middle of a picture, which is shown."""


def draw(
    path: Path,
    sources: Mapping[Kind, ImageSource],
    ways: Mapping[str, Sampler],
    scale: int,
    about: str,
) -> None:
    """Draw a row for each kind, of another picture each: the input, every result, and the original.

    Args:
        path: WebP file.
        sources: the originals of each kind.
        ways: ways to enlarge an input, by name.
        scale: factor of enlargement.
        about: what it was made from, see :func:`..measure.drawing.made_of`.
    """
    rows = []
    for number, (kind, source) in enumerate(sources.items()):
        pair = make_pair(source, number % len(source), scale=scale)
        assert pair.hr is not None  # the source holds originals
        blocks = np.repeat(np.repeat(pair.lr, scale, 0), scale, 1)
        made = [(name, middle(way.one(pair.lr, 0).image)) for name, way in ways.items()]
        rows.append(side_by_side([(kind.name, middle(blocks)), *made, ("original", middle(pair.hr))]))
    widest = max(row.shape[1] for row in rows)
    padded = [np.pad(r, [(0, 0), (0, widest - r.shape[1]), (0, 0)], constant_values=255) for r in rows]
    save_picture(np.concatenate(padded), path, about)


def middle(image: np.ndarray) -> np.ndarray:
    """Cut the middle of a picture (H, W, 3), at most :data:`SIDE` pixels per side."""
    top, left = (max(0, (side - SIDE) // 2) for side in image.shape[:2])
    return image[top : top + SIDE, left : left + SIDE]
