"""Portraits that are free to show, cut as the faces that models of faces know.

They lie in packages that the benchmarks need anyway; where eyes and mouth are in them was read off by hand.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from skipdiff_env import SkipDiffError
from skipdiff_env.images import ImageSource, read_image


@dataclass(frozen=True)
class Portrait:
    """A portrait in a package's data, and where it comes from. Points are (x, y) in its pixels."""

    name: str
    package: str
    file: str
    subject: str
    author: str
    licence: str
    eyes: tuple[tuple[float, float], tuple[float, float]]
    """The left one in the picture first."""
    mouth: tuple[float, float]
    """Its centre."""

    def read(self, size: int) -> np.ndarray:
        """The aligned face, uint8 (size, size, 3).

        Raises:
            SkipDiffError: if the package is not installed.
        """
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise SkipDiffError(
                f"a portrait comes with {self.package}, which is not installed: pip install it"
            )
        picture = read_image(Path(spec.submodule_search_locations[0]) / self.file)
        return align(picture, self.eyes, self.mouth, size)


PORTRAITS = (
    Portrait(
        name="collins",
        package="skimage",
        file="data/astronaut.png",
        subject="Eileen Collins, astronaut, official portrait",
        author="NASA",
        licence="public domain",
        eyes=((203.5, 101.0), (246.75, 102.75)),
        mouth=(224.5, 145.5),
    ),
    Portrait(
        name="hopper",
        package="matplotlib",
        file="mpl-data/sample_data/grace_hopper.jpg",
        subject="Commodore Grace M. Hopper, official portrait",
        author="James S. Davis, US Navy",
        licence="public domain",
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

    The square's side is 4 times the distance of the eyes or 3.6 times that from eyes to mouth, whichever is
    longer; its centre lies a tenth of the way from the eyes to the mouth.

    Args:
        picture: uint8 (H, W, 3).
        eyes: (x, y) of both, the left one in the picture first.
        mouth: (x, y) of its centre.
        size: side of the result in pixels.

    Returns:
        uint8 (size, size, 3); what lies outside of the picture repeats its border.
    """
    left, right = np.array(eyes[0]), np.array(eyes[1])
    between, across = (left + right) / 2, right - left
    down = np.array(mouth) - between
    direction = across + np.array([down[1], -down[0]])  # eyes, and the perpendicular of eyes to mouth
    half = max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))
    x = direction / np.hypot(*direction) * half
    y = np.array([-x[1], x[0]])
    centre = between + 0.1 * down
    fine = 4 * size  # so that shrinking, not sampling, makes the pixels
    corners = np.array([centre - x - y, centre + x - y, centre - x + y], np.float32)
    turn = cv2.getAffineTransform(corners, np.array([[0, 0], [fine, 0], [0, fine]], np.float32))
    large = cv2.warpAffine(
        picture, turn, (fine, fine), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)


def portraits(size: int) -> ImageSource:
    """All of them, aligned, as images of ``size`` pixels."""
    return ImageSource([(portrait.name, partial(portrait.read, size)) for portrait in PORTRAITS])
