"""Photograph files with all their baggage: 16 bits, transparency, CMYK, orientation, profiles, metadata.

:func:`read_photo` gives upright pixels at the file's own depth plus what else is worth keeping;
:func:`encode_photo` puts it all back as far as the format can hold it, and says what it could not.
Pillow does the coding; OpenCV codes colour at 16 bits, which Pillow cannot.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import SkipDiffError
from .io import damage
from .metadata import ORIENTATION, Metadata, read_metadata
from .profiles import profile_fits, to_srgb

MAX_PIXELS = 89_478_485
"""Larger files are refused before they are decoded: a bomb of a few kilobytes may claim any size. This is
Pillow's own limit, a quarter gigabyte of RGB."""


@dataclass(frozen=True)
class Format:
    """A file format and what it can hold."""

    name: str
    suffix: str
    deep: bool = False
    """16 bits a channel."""
    alpha: bool = False
    grey: bool = True
    baggage: bool = True
    """Profile and metadata."""
    max_side: int = 2**31 - 1


FORMATS = {
    fmt.name: fmt
    for fmt in (
        Format("png", ".png", deep=True, alpha=True),
        Format("jpeg", ".jpg", max_side=65500),
        Format("webp", ".webp", alpha=True, grey=False, max_side=16383),
        Format("tiff", ".tif", deep=True, alpha=True),
        Format("bmp", ".bmp", baggage=False),
    )
}
"""What photographs are written as, by name."""

SUFFIXES = {
    ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".webp": "webp",
    ".tif": "tiff", ".tiff": "tiff", ".bmp": "bmp",
}  # fmt: skip
"""File name suffix → format."""

_READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")


@dataclass(frozen=True)
class Photo:
    """An upright photograph."""

    colour: np.ndarray
    """uint8 or uint16 (H, W, 3), or (H, W, 1) if grey."""
    alpha: np.ndarray | None = None
    """(H, W) of the same type, not premultiplied; None if there is none."""
    profile: bytes | None = None
    """ICC profile of ``colour``."""
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    """What reading had to change, in words for the user."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.colour.shape[1], self.colour.shape[0]

    @property
    def deep(self) -> bool:
        """Whether it has 16 bits a channel."""
        return self.colour.dtype == np.uint16


@dataclass(frozen=True)
class Header:
    """What can be known of a photograph without decoding it."""

    width: int
    height: int
    format: str
    """Name of the format that an enlargement is written in unless asked otherwise."""


def read_header(path: Path) -> Header:
    """Size (upright) and format of a photograph. Raises as :func:`read_photo`, but for damaged pixels."""
    with _opened(path) as image:
        width, height = image.size
        with contextlib.suppress(Exception):  # unreadable EXIF cannot say which way is up
            if image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) >= 5:
                width, height = height, width
        return Header(width, height, _own_format(image))


def read_photo(path: Path) -> Photo:
    """Decode a photograph: PNG, JPEG, WebP, TIFF, BMP or GIF, by content, whatever its name.

    Palettes become RGB, CMYK and Lab become sRGB by their profile, EXIF orientation is applied, 16 bits
    are kept; of an animation or several pages the first is read. ``notes`` says what was lost.

    Raises:
        SkipDiffError: in one line without the path, if it is missing, no image, damaged or too large.
    """
    with _opened(path) as image:
        frames = getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
        # Pillow turns TIFF upright by itself and forgets how
        white_is_zero = image.format == "TIFF" and image.tag_v2.get(262) == 0  # type: ignore[attr-defined]
        deep = ";16" in str(getattr(image, "tile", ""))
        image.load()
        metadata = read_metadata(image)
        photo = _pixels(image, path, deep, white_is_zero)
        orientation = 1
        with contextlib.suppress(Exception):
            orientation = image.getexif().get(ORIENTATION, 1)
    notes = photo.notes if frames == 1 else (f"only the first of {frames} frames or pages", *photo.notes)
    return _upright(replace(photo, metadata=metadata, notes=notes), orientation)


def _own_format(image: Image.Image) -> str:
    name = (image.format or "").lower()
    return "jpeg" if name == "mpo" else name if name in FORMATS else "png"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever is wrong with it, then or while it is decoded, becomes a SkipDiffError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise SkipDiffError("no such file") from None
    except OSError as error:  # below a closed folder, a name too long, links in a circle
        raise SkipDiffError(f"cannot be reached ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        raise SkipDiffError("is a folder, not an image file")
    if not stat.S_ISREG(mode):
        raise SkipDiffError("is no regular file")
    try:
        # By file object: files that Pillow opens by name it may map into memory, and then it scrambles
        # TIFFs that lie on their side.
        with _silent_decoders(), path.open("rb") as file, Image.open(file, formats=_READABLE) as image:
            if 0 in image.size:
                raise SkipDiffError("has no pixels")
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(f"{image.width}x{image.height} pixels are")
            yield image
    except SkipDiffError:
        raise
    except UnidentifiedImageError:
        what = _unreadable(path)
        raise SkipDiffError(what) from None
    except Image.DecompressionBombError:
        raise _too_large("it claims to be") from None
    except PermissionError as error:
        raise SkipDiffError(f"cannot be opened ({error.strerror})") from None
    except MemoryError:
        raise SkipDiffError("does not fit into memory: shrink it or cut it first") from None
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise SkipDiffError(damage(error)) from error


def _too_large(what: str) -> SkipDiffError:
    limit = MAX_PIXELS / 1e6
    return SkipDiffError(
        f"{what} more than the {limit:.0f} megapixels that are allowed: shrink it or cut it first"
    )


def _unreadable(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        return "is empty (0 bytes): get a whole copy of it"
    kind = " (it is HEIC or AVIF)" if start[4:8] == b"ftyp" else ""
    return f"is not a readable image{kind}: convert it to PNG, JPEG, WebP, TIFF, BMP or GIF first"


_stderr_lock = threading.Lock()


@contextlib.contextmanager
def _silent_decoders() -> Iterator[None]:
    """Keep libtiff's and OpenCV's own messages off the terminal: what matters is raised as well."""
    with _stderr_lock, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a process without stderr has nothing to silence
            kept = os.dup(2)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
        yield


def _pixels(image: Image.Image, path: Path, deep: bool, white_is_zero: bool) -> Photo:
    """The pixels of a loaded image as they lie in the file, before orientation."""
    if image.mode in ("I", "F"):
        raise SkipDiffError(
            "has 32-bit pixels, which do not say what white is: convert it to 8 or 16 bits first"
        )
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)
        key = image.info.get("transparency")
        alpha = None if key is None else np.where(grey == key, 0, 65535).astype(np.uint16)
        grey = 65535 - grey if white_is_zero else grey
        return Photo(grey[..., None], alpha, profile if profile_fits(profile, "L") else None)
    if image.mode in ("CMYK", "LAB"):
        known = image.mode == "LAB" or profile_fits(profile, image.mode)
        note = f"{image.mode} converted to sRGB" + ("" if known else " without a profile: colours may be off")
        return Photo(np.array(to_srgb(image, profile)), notes=(note,))
    if deep and image.mode in ("RGB", "RGBA"):
        found = _deep_colour(image, path)
        if found is not None:
            return replace(found, profile=profile if profile_fits(profile, "RGB") else None)
    notes = ("16 bits reduced to 8: this kind of file cannot be read in full",) if deep else ()
    grey_mode = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data or image.mode in ("La", "PA"):
        pixels = np.array(image.convert("LA" if grey_mode else "RGBA"))
        colour, alpha = np.ascontiguousarray(pixels[..., :-1]), np.ascontiguousarray(pixels[..., -1])
    else:
        colour, alpha = np.array(image.convert("L" if grey_mode else "RGB")), None
        colour = colour[..., None] if grey_mode else colour
    return Photo(
        colour, alpha, profile if profile_fits(profile, "L" if grey_mode else "RGB") else None, notes=notes
    )


def _deep_colour(image: Image.Image, path: Path) -> Photo | None:
    """Colour at 16 bits, which Pillow cuts to 8; None if OpenCV cannot decode it either."""
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[1::-1] != image.size:
        return None
    colour = np.ascontiguousarray(pixels[..., 2::-1])
    if image.mode == "RGBA":
        alpha = np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] == 4 else None
        if alpha is not None and getattr(image, "tag_v2", {}).get(338) == (1,):  # premultiplied TIFF
            share = np.maximum(alpha, 1)[..., None] / 65535
            colour = np.rint(np.minimum(colour / share, 65535)).astype(np.uint16)
        return Photo(colour, alpha)
    key = image.info.get("transparency")
    if key is None:
        return Photo(colour)
    return Photo(colour, np.where((colour == np.array(key)).all(axis=-1), 0, 65535).astype(np.uint16))


def _upright(photo: Photo, orientation: Any) -> Photo:
    """Apply an EXIF orientation, 1 … 8; anything else is taken for 1."""

    def turn(pixels: np.ndarray) -> np.ndarray:
        if orientation in (5, 6, 7, 8):
            pixels = np.swapaxes(pixels, 0, 1)
        if orientation in (2, 3, 6, 7):
            pixels = pixels[:, ::-1]
        if orientation in (3, 4, 7, 8):
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    alpha = None if photo.alpha is None else turn(photo.alpha)
    return replace(photo, colour=turn(photo.colour), alpha=alpha)
