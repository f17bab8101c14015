"""The images of an episode: a crop of the original (HR) and the low-resolution input (LR) made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..diffusion.resize import degrade, to_arrays, to_planes
from ..errors import SkipDiffError
from .io import RGB8
from .sources import ImageSource


@dataclass(frozen=True)
class Pair:
    """The input of one episode, and the original if there is one.

    Attributes:
        lr: the input, uint8 (h, w, 3).
        hr: the original, uint8 (h * scale, w * scale, 3), or None for a source of low-resolution images.
        name: name of the image in its source.
    """

    lr: RGB8
    hr: RGB8 | None
    name: str


def make_pair(
    source: ImageSource,
    index: int,
    *,
    scale: int,
    image_size: int | None = None,
    rng: np.random.Generator | None = None,
) -> Pair:
    """Crop image ``index`` of a source and make its low-resolution input.

    Args:
        source: source of images; its ``low_resolution`` says whether they are originals or inputs.
        index: number of the image.
        scale: factor by which HR is larger than LR.
        image_size: side of the square crop in HR pixels (LR images are cropped to
            ``image_size // scale``), a multiple of ``scale``. None takes the whole image; originals
            then lose at most ``scale - 1`` columns and rows at their edges.
        rng: generator that draws the place of the crop, with exactly two numbers if ``image_size`` is given;
            None crops the centre.

    Raises:
        SkipDiffError: if the image is too small (the message names it), or ``image_size`` does not fit
            ``scale``.
    """
    if image_size is not None and (image_size < scale or image_size % scale):
        fitting = max(image_size // scale, 1) * scale
        raise SkipDiffError(
            f"image_size={image_size} is no positive multiple of the scale {scale}; use {fitting}"
        )
    image, name, lr_only = source[index], source.name(index), source.low_resolution
    if image_size is None:
        image = cut_to_multiple(image, 1 if lr_only else scale, name=name)
    else:
        image = crop(image, image_size // scale if lr_only else image_size, rng, name=name)
    if lr_only:
        return Pair(lr=image, hr=None, name=name)
    lr = shrink(image, scale)
    return Pair(lr=source.degrade(lr, index) if source.degrade else lr, hr=image, name=name)


def episode_pair(
    source: ImageSource,
    index: int,
    noise_seed: int,
    *,
    scale: int,
    image_size: int | None = None,
    crop: Literal["random", "center"] = "random",
) -> Pair:
    """Make the pictures of an episode, see :func:`make_pair`; a random crop is a function of the image's
    number and the noise seed."""
    rng = np.random.default_rng([index, noise_seed]) if crop == "random" else None
    return make_pair(source, index, scale=scale, image_size=image_size, rng=rng)


def crop(image: RGB8, size: int, rng: np.random.Generator | None = None, *, name: str = "image") -> RGB8:
    """Copy a square crop of side ``size``, at a random place if ``rng`` is given, else in the centre.

    Raises:
        SkipDiffError: if the image is too small; the message calls it ``name``.
    """
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise SkipDiffError(f"{name}: is {width}x{height} pixels, too small for a crop of {size}x{size}")
    if rng is None:
        top, left = (height - size) // 2, (width - size) // 2
    else:
        top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
    return image[top : top + size, left : left + size].copy()


def cut_to_multiple(image: RGB8, scale: int, *, name: str = "image") -> RGB8:
    """Return a copy of the image, cropped equally at opposite edges to multiples of ``scale``.

    Raises:
        SkipDiffError: if a side is shorter than ``scale``.
    """
    height, width = (side - side % scale for side in image.shape[:2])
    if not (height and width):
        raise SkipDiffError(
            f"{name}: is {image.shape[1]}x{image.shape[0]} pixels, too small to be shrunk by {scale}"
        )
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width].copy()


def shrink(hr: RGB8, scale: int) -> RGB8:
    """Make the low-resolution image of ``hr`` (uint8 (H, W, 3), sides multiples of ``scale``), in 8 bits.

    Antialiased bicubic (a = -0.5) as in training: :func:`skipdiff_env.diffusion.resize.degrade`, which
    is within one grey level of what Pillow's BICUBIC gives.
    """
    return to_arrays(degrade(to_planes(hr).contiguous(), scale))[0]
