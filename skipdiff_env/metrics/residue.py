"""What is left in flat areas: grain, blotches and blocks where the original has next to none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skipdiff_env.metrics.base import Images, Scores

BLOCK = 16
"""Side of the blocks among which the smoothest are looked for, in pixels."""
SIGMA = 2.0
"""Of the Gaussian that separates grain from shading, in pixels."""
SHARE = 0.1
"""Share of the blocks that count as flat."""
ROUNDING = 12**-0.5
"""Deviation of the error of rounding, in grey levels: what a perfectly flat original counts as."""


def flat_residue(images: Images, references: Images) -> Scores:
    """Deviation of the high-pass in the original's smoothest tenth of blocks, over the original's own.

    1 is as smooth as the original, above it there is grain that was not there, below it something was lost.
    The high-pass is the picture minus its Gaussian blur, all three channels count alike, and the blocks are
    those in which the original's high-pass deviates least.

    Args:
        images: uint8 (B, H, W, 3), at least 16 pixels a side.
        references: the originals, likewise.

    Returns:
        float64 (B,), at least 0.
    """
    return np.array([_one(image, original) for image, original in zip(images, references, strict=True)])


def _one(image: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    power = _power(original)
    count = max(1, round(SHARE * len(power)))
    flat = np.argsort(power, kind="stable")[:count]
    found, own = (float(np.sqrt(x[flat].mean())) for x in (_power(image), power))
    return max(found, ROUNDING) / max(own, ROUNDING)


def _power(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean square of the high-pass in each whole block, over its pixels and channels."""
    import cv2

    pixels = image.astype(np.float32)
    high = pixels - cv2.GaussianBlur(pixels, (0, 0), SIGMA, borderType=cv2.BORDER_REFLECT_101)
    rows, columns = (side // BLOCK for side in image.shape[:2])
    blocks = high[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, 3)
    return np.square(blocks, dtype=np.float64).mean(axis=(1, 3, 4)).ravel()
