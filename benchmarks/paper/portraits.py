"""Portraits that may be shown freely, cut like the faces that face models were trained on.

They come with packages that the benchmarks need. The positions of eyes and mouth were measured by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from skipdiff_env.images import PHOTOGRAPHS, ImageSource, Photograph


@dataclass(frozen=True)
class Portrait:
    """A photograph of a face, and the position of the face. Points are (x, y) in pixels."""

    photograph: Photograph
    eyes: tuple[tuple[float, float], tuple[float, float]]
    """Centres of the eyes; the left one in the picture comes first."""
    mouth: tuple[float, float]
    """Centre of the mouth."""

    def read(self, size: int) -> np.ndarray:
        """Return the aligned face, uint8 (size, size, 3)."""
        return align(self.photograph.read(), self.eyes, self.mouth, size)


PORTRAITS = (
    Portrait(
        next(photo for photo in PHOTOGRAPHS if photo.name == "astronaut"),
        eyes=((203.5, 101.0), (246.75, 102.75)),
        mouth=(224.5, 145.5),
    ),
    Portrait(
        next(photo for photo in PHOTOGRAPHS if photo.name == "hopper"),
        eyes=((222.0, 190.0), (307.0, 186.0)),
        mouth=(268.0, 278.0),
    ),
)


def align(
    picture: np.ndarray,
    eyes: tuple[tuple[float, float], tuple[float, float]],
    mouth: tuple[float, float],
    size: int,
) -> np.ndarray:
    """Turn, cut and shrink a face as FFHQ does (Karras et al. 2019, appendix A).

    The side of the square is 4 times the distance between the eyes or 3.6 times the distance from the eyes to
    the mouth, whichever is longer; its centre lies a tenth of the way from the eyes to the mouth.

    Args:
        picture: uint8 (H, W, 3).
        eyes: (x, y) of both eyes; the left one in the picture comes first.
        mouth: (x, y) of the centre of the mouth.
        size: side of the result in pixels.

    Returns:
        The face, uint8 (size, size, 3); outside the picture, its border is repeated.
    """
    left, right = np.array(eyes[0]), np.array(eyes[1])
    between, across = (left + right) / 2, right - left
    down = np.array(mouth) - between
    direction = across + np.array([down[1], -down[0]])  # eyes, and the perpendicular of eyes to mouth
    half = max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))
    x = direction / np.hypot(*direction) * half
    y = np.array([-x[1], x[0]])
    centre = between + 0.1 * down
    fine = 4 * size  # so that the pixels come from shrinking, not from sampling
    corners = np.array([centre - x - y, centre + x - y, centre - x + y], np.float32)
    turn = cv2.getAffineTransform(corners, np.array([[0, 0], [fine, 0], [0, fine]], np.float32))
    large = cv2.warpAffine(
        picture, turn, (fine, fine), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def portraits(size: int) -> ImageSource:
    """Return all portraits, aligned, as images of ``size`` pixels."""
    return ImageSource([(portrait.photograph.name, partial(portrait.read, size)) for portrait in PORTRAITS])
