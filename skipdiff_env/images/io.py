"""Reading and writing image files through Pillow: the one place where files become pixels and back.

Every image inside SkipDiff is uint8 RGB of shape (H, W, 3), upright. What a file may hold besides
(orientation, palette, transparency, 16 bits) is settled here on the way in.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from ..errors import SkipDiffError

RGB8 = NDArray[np.uint8]
"""An image: uint8 of shape (H, W, 3), red first, no side zero."""


@dataclass(frozen=True)
class Format:
    """A file format: Pillow's name for it and the settings we save with."""

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
"""File name suffix → format, for reading as for writing. Reading goes by content, not by suffix."""

_READABLE = sorted({fmt.name for fmt in FORMATS.values()})
_READABLE_TEXT = ", ".join(_READABLE)

# Of a PNG's texts and profile (workflows, monitors' tables) Pillow takes 64 MiB in all, but 1 MiB of each.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

# warnings.catch_warnings swaps a global list: two threads in it at once would leave it wrong.
_warnings_lock = threading.Lock()


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image in a folder or an archive (no dot files)."""
    path = Path(name)
    return path.suffix.lower() in FORMATS and not path.name.startswith(".")


def read_image(path: str | Path, max_pixels: int | None = None) -> RGB8:
    """Read an image file as upright RGB.

    EXIF orientation is applied. Transparency is laid over white. 16-bit grey is rounded to 8 bits;
    of 16-bit colour Pillow keeps the upper byte, which is within one level of that. Of several
    frames or pages the first is read.

    Args:
        path: the file.
        max_pixels: refuse larger pictures before their pixels are decoded.

    Returns:
        uint8 (H, W, 3).

    Raises:
        SkipDiffError: in one line naming the file, if it is missing, a folder, not an image (PNG,
            JPEG, WebP, TIFF or BMP), damaged, of no size, or larger than ``max_pixels`` or Pillow's limit
            against decompression bombs (``PIL.Image.MAX_IMAGE_PIXELS``, 89 megapixels).
    """
    path = Path(path)
    if path.is_dir():
        raise SkipDiffError(f"{path}: is a folder, not an image file")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise SkipDiffError(f"{path}: no such file") from None
    except OSError as error:
        raise SkipDiffError(f"{path}: cannot be opened ({_reason(error)})") from error
    with file:
        return decode_image(file, str(path), max_pixels)


def decode_image(file: BinaryIO, name: str, max_pixels: int | None = None) -> RGB8:
    """:func:`read_image` from an open binary file; ``name`` stands for it in error messages."""
    try:
        with _strict_size_quiet_metadata():
            image = Image.open(file, formats=_READABLE)
        with image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise SkipDiffError(
                    f"{name}: is {image.width}x{image.height} pixels, more than the {max_pixels / 1e6:g} "
                    "megapixels allowed here; shrink or cut it first"
                )
            return from_pillow(image, name)
    except SkipDiffError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise SkipDiffError(
            f"{name}: claims more than {limit:.0f} megapixels, the limit against decompression bombs; "
            "shrink or cut it first"
        ) from None
    except UnidentifiedImageError:
        file.seek(0, os.SEEK_END)
        what = f"is not an image that can be read ({_READABLE_TEXT})" if file.tell() else "is empty (0 bytes)"
        raise SkipDiffError(f"{name}: {what}") from None
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise SkipDiffError(f"{name}: {damage(error)}") from error


def from_pillow(image: Image.Image, name: str) -> RGB8:
    """The pixels of a Pillow image as :func:`read_image` gives them; ``name`` is for error messages."""
    if 0 in image.size:
        raise SkipDiffError(f"{name}: has no pixels ({image.width}x{image.height})")
    image = _upright(image)
    if image.mode in ("I", "F"):
        raise SkipDiffError(
            f"{name}: has 32-bit pixels, which do not say what white is; convert it to 8 or 16 bits first"
        )
    if image.mode.startswith("I;16"):
        grey = np.rint(np.asarray(image) / 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB"))


def check_rgb8(image: Any, name: str) -> RGB8:
    """Return ``image`` if it is a uint8 (H, W, 3) array without a zero side, else refuse it by name."""
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise SkipDiffError(
            f"{name}: an image must be a uint8 array of shape (H, W, 3), got {array.dtype} {array.shape}"
        )
    return array


def write_image(path: str | Path, image: RGB8) -> None:
    """Write uint8 (H, W, 3) in the format that the suffix of ``path`` names.

    PNG, TIFF and BMP are lossless; JPEG is written at quality 95 without chroma subsampling, WebP at
    quality 95. The file appears whole or not at all: it is written under a temporary name in the
    same folder and then renamed, replacing a file of that name.

    Raises:
        SkipDiffError: in one line, if the suffix is unknown, the image does not fit the format, or
            the file cannot be written. Nothing is left behind.
    """
    path = Path(path)
    data = encode_image(image, path)
    if path.is_dir():
        raise SkipDiffError(f"cannot write {path}: it is a folder; name a file in it")
    if not path.parent.is_dir():
        raise SkipDiffError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise SkipDiffError(f"cannot write {path}: {_reason(error)}") from error
    finally:  # nothing is there any more after the renaming; all else (Ctrl-C too) leaves a part to remove
        with contextlib.suppress(OSError):
            temporary.unlink()


def encode_image(image: RGB8, path: str | Path) -> bytes:
    """The bytes that :func:`write_image` would put at ``path``. Same errors, and nothing is written."""
    path = Path(path)
    fmt = FORMATS.get(path.suffix.lower())
    if fmt is None:
        given = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise SkipDiffError(f"cannot write {path}: {given} names no image format; use {', '.join(FORMATS)}")
    array = check_rgb8(image, f"cannot write {path}")
    buffer = io.BytesIO()
    try:
        Image.fromarray(array).save(buffer, fmt.name, **fmt.options)
    except (OSError, ValueError) as error:  # JPEG ends at 65 535 pixels a side, WebP at 16 383
        height, width = array.shape[:2]
        raise SkipDiffError(
            f"cannot write {path}: {width}x{height} does not fit {fmt.name} ({_reason(error)}); use .png"
        ) from error
    return buffer.getvalue()


@contextlib.contextmanager
def _strict_size_quiet_metadata() -> Iterator[None]:
    """Pillow only warns between its size limit and twice that: make it one limit. Hush other warnings."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        with _strict_size_quiet_metadata():
            return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole, and EXIF that cannot be read cannot say which way is up
        return image


def damage(error: Exception) -> str:
    """What is wrong with an image file whose decoding ended in an error, in one line."""
    if "MAX_TEXT" in str(error):  # Pillow's words, and it has no class for them
        size = PngImagePlugin.MAX_TEXT_MEMORY // 2**20
        return f"holds texts or a profile of more than {size} MB: take them out first, as with exiftool -all="
    return f"is damaged or truncated ({_reason(error)}): get a whole copy of it"


def _reason(error: BaseException) -> str:
    """What an error says, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
