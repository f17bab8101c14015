"""Reads and writes image files as plain pictures, without the metadata of photographs.

These pictures are upright, uint8 RGB of shape (H, W, 3). Orientation, palette, transparency and 16 bits are
dealt with here when a file is read.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import SkipDiffError
from ..files import write_atomically
from . import raster
from .photo import MAX_PIXELS, Photo, decode_photo, read_photo
from .raster import eight_bits, over_white

RGB8 = NDArray[np.uint8]
"""An image: uint8 of shape (H, W, 3), red first, without a zero side."""


@dataclass(frozen=True)
class Format:
    """A file format: Pillow's name for it, and the settings with which files are saved."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


_JPEG = Format("JPEG", {"quality": 95, "subsampling": "4:4:4"})
_TIFF = Format("TIFF", {"compression": "tiff_adobe_deflate"})

FORMATS: Mapping[str, Format] = {
    ".png": Format("PNG"),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", {"quality": 95}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": Format("BMP"),
}
"""File name suffix → format to write."""


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> RGB8:
    """Read an image file as upright RGB: :func:`.photo.read_photo`, flattened to 8 bits.

    Transparent pictures are laid over white, and 16 bits are rounded to 8. Only CMYK and Lab are converted to
    sRGB; the profiles of other pictures are ignored.

    Args:
        path: the file.
        max_pixels: maximum number of pixels; larger pictures are refused before they are decoded.

    Returns:
        The picture, uint8 (H, W, 3).

    Raises:
        SkipDiffError: if the file is missing, a folder, not an image, damaged, without pixels, or larger than
            ``max_pixels``; the message names the file.
    """
    try:
        return flattened(read_photo(Path(path), max_pixels))
    except SkipDiffError as error:
        raise SkipDiffError(f"{path}: {error}") from error


def decode_image(file: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> RGB8:
    """Do the same as :func:`read_image` for an open binary file; error messages call it ``name``."""
    try:
        return flattened(decode_photo(file, max_pixels))
    except SkipDiffError as error:
        raise SkipDiffError(f"{name}: {error}") from error


def from_pillow(image: Image.Image, name: str) -> RGB8:
    """Convert a Pillow image to pixels as :func:`read_image` does; error messages call it ``name``."""
    if 0 in image.size:
        raise SkipDiffError(f"{name}: has no pixels ({image.width}x{image.height})")
    image.load()
    with contextlib.suppress(Exception):  # the pixels are intact; damaged EXIF cannot give the orientation
        image = ImageOps.exif_transpose(image)
    try:
        return flattened(raster.from_pillow(image))
    except SkipDiffError as error:
        raise SkipDiffError(f"{name}: {error}") from error


def flattened(photo: Photo) -> RGB8:
    """Flatten a photograph as :func:`read_image` does."""
    colour = photo.colour if photo.alpha is None else over_white(photo.colour, photo.alpha)
    return np.array(np.broadcast_to(eight_bits(colour), (*colour.shape[:2], 3)))


def check_rgb8(image: Any, name: str) -> RGB8:
    """Return ``image`` if it is a uint8 (H, W, 3) array without a zero side; else raise a SkipDiffError
    that calls it ``name``."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise SkipDiffError(
            f"{name}: an image must be a uint8 array of shape (H, W, 3), got {array.dtype} {array.shape}"
        )
    return array


def write_image(path: str | Path, image: RGB8) -> None:
    """Write an image, uint8 (H, W, 3), in the format that the suffix of ``path`` names.

    PNG, TIFF and BMP are lossless; JPEG is written at quality 95 without chroma subsampling, WebP at
    quality 95. The file appears whole or not at all: it is written under a temporary name in the
    same folder and then renamed to ``path``, replacing any file there.

    Raises:
        SkipDiffError: if the suffix is unknown, the image does not fit the format, or the file cannot be
            written. No partial file is left.
    """
    path = Path(path)
    data = encode_image(image, path)
    if path.is_dir():
        raise SkipDiffError(f"cannot write {path}: it is a folder; name a file in it")
    if not path.parent.is_dir():
        raise SkipDiffError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    try:
        write_atomically(path, data)
    except OSError as error:
        raise SkipDiffError(f"cannot write {path}: {_reason(error)}") from error


def encode_image(image: RGB8, path: str | Path) -> bytes:
    """Return the bytes that :func:`write_image` would write to ``path``, with the same errors, but write
    nothing."""
    path = Path(path)
    fmt = FORMATS.get(path.suffix.lower())
    if fmt is None:
        given = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise SkipDiffError(f"cannot write {path}: {given} names no image format; use {', '.join(FORMATS)}")
    array = check_rgb8(image, f"cannot write {path}")
    buffer = io.BytesIO()
    try:
        Image.fromarray(array).save(buffer, fmt.name, **fmt.options)
    except (OSError, ValueError) as error:  # JPEG allows 65 500 pixels per side, WebP 16 383
        height, width = array.shape[:2]
        raise SkipDiffError(
            f"cannot write {path}: {width}x{height} does not fit {fmt.name} ({_reason(error)}); use .png"
        ) from error
    return buffer.getvalue()


def _reason(error: BaseException) -> str:
    """Return the message of an error, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
