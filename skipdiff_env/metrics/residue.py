"""Grain, blotches and blocks in flat areas, relative to the original."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skipdiff_env.metrics.base import Images, Scores

BLOCK = 16
"""Side in pixels of the blocks from which the smoothest are chosen."""
SIGMA = 2.0
"""σ in pixels of the Gaussian that separates grain from shading."""
SHARE = 0.1
"""Share of the blocks that count as flat."""
ROUNDING = 12**-0.5
"""Standard deviation of the rounding error in grey levels; smaller deviations count as this one."""


def flat_residue(images: Images, references: Images) -> Scores:
    """Compute the root mean square of the picture's high-pass, divided by that of the original's, in the
    tenth of all blocks in which the original is smoothest.

    At 1, the picture is as smooth as the original; above 1, it has more grain; below 1, it has lost some. The
    high-pass is the picture minus its Gaussian blur. All three channels count equally, and the smoothest
    blocks are those in which the original's high-pass has the smallest root mean square.

    Args:
        images: the pictures, uint8 (B, H, W, 3), each side at least 16 pixels.
        references: the originals, uint8 of the same shape.

    Returns:
        The ratios, float64 (B,), above 0.
    """
    return np.array([_one(image, original) for image, original in zip(images, references, strict=True)])


def _one(image: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    power = _power(original)
    count = max(1, round(SHARE * len(power)))
    flat = np.argsort(power, kind="stable")[:count]
    found, own = (float(np.sqrt(x[flat].mean())) for x in (_power(image), power))
    return max(found, ROUNDING) / max(own, ROUNDING)


def _power(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the mean square of the high-pass in each whole block, over its pixels and channels."""
    import cv2

    pixels = image.astype(np.float32)
    high = pixels - cv2.GaussianBlur(pixels, (0, 0), SIGMA, borderType=cv2.BORDER_REFLECT_101)
    rows, columns = (side // BLOCK for side in image.shape[:2])
    blocks = high[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, 3)
    return np.square(blocks, dtype=np.float64).mean(axis=(1, 3, 4)).ravel()
