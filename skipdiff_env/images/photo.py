"""Reads photograph files in full: 16 bits, transparency, CMYK, orientation, profiles, metadata.

:func:`read_photo` returns upright pixels at the file's own depth, with everything else that is worth keeping;
:mod:`.photo_file` encodes what a format can hold of it, and reports the rest. PNG, TIFF and HEIF (HEIC and
AVIF) have modules of their own in :mod:`.formats`; Pillow reads the other formats.
"""

from __future__ import annotations

import contextlib
import stat
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import SkipDiffError
from .formats import exif, icc, iptc, xmp
from .formats.coding import coding_of
from .formats.exif import Directories
from .formats.heif import is_heif, open_heif
from .formats.metadata import COMMENT
from .formats.png import SIGNATURE as PNG_SIGNATURE
from .formats.png import open_png
from .formats.tiff import SIGNATURES as TIFF_SIGNATURES
from .formats.tiff import open_tiff
from .raster import DamagedError, Photo, Source, from_pillow, upright

MAX_PIXELS = 89_478_485
"""Maximum number of pixels. Larger pictures are refused before they are decoded: a decompression bomb of a
few kilobytes may claim any size. This is Pillow's own limit, a quarter of a gigabyte of RGB."""


@dataclass(frozen=True)
class Format:
    """A file format and what it can hold."""

    name: str
    suffix: str
    deep: bool = False
    """Whether it can hold 16 bits per channel."""
    alpha: bool = False
    lossy: bool = False
    """Whether it has a quality setting that the user chooses."""
    grey: bool = True
    baggage: bool = True
    """Whether it can hold a profile and metadata."""
    code_points: bool = False
    """Whether it can describe colours by the code points of ITU-T H.273, which HDR needs."""
    max_side: int = 2**31 - 1
    max_profile: int = 2**31 - 1
    """Maximum size of an ICC profile in bytes."""


FORMATS = {
    fmt.name: fmt
    for fmt in (
        Format("png", ".png", deep=True, alpha=True, code_points=True),
        Format("jpeg", ".jpg", lossy=True, max_side=65500, max_profile=255 * 65519),  # 255 segments
        Format("webp", ".webp", alpha=True, lossy=True, grey=False, max_side=16383),
        Format("tiff", ".tif", deep=True, alpha=True),
        Format("bmp", ".bmp", baggage=False),
    )
}
"""The formats in which photographs are written, by name."""

SUFFIXES = {
    ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".webp": "webp",
    ".tif": "tiff", ".tiff": "tiff", ".bmp": "bmp",
}  # fmt: skip
"""File name suffix → format."""

READ_ONLY_SUFFIXES = frozenset({".gif", ".heic", ".heif", ".avif"})
"""Suffixes of files that can only be read; their enlargements are PNG files by default."""

_BY_PILLOW = ("JPEG", "WEBP", "BMP", "GIF")


@dataclass(frozen=True)
class Header:
    """The properties of a photograph that are known without decoding it."""

    width: int
    height: int
    format: str
    """Name of the default format of an enlargement."""


def is_image_name(name: str) -> bool:
    """Return whether a file of this name in a folder or an archive counts as an image; dot files do not."""
    path = Path(name)
    return path.suffix.lower() in {*SUFFIXES, *READ_ONLY_SUFFIXES} and not path.name.startswith(".")


def read_header(path: Path, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the upright size and the format of a photograph.

    Raises:
        SkipDiffError: in the same cases as :func:`read_photo`, except that damaged pixels are not noticed.
    """
    with _opened(path) as file:
        return decode_header(file, max_pixels)


def decode_header(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Header:
    """Do the same as :func:`read_header` for an open binary file."""
    with _decoding(file, max_pixels) as source:
        width, height = source.size[::-1] if source.orientation >= 5 else source.size
        return Header(width, height, source.format if source.format in FORMATS else "png")


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a photograph: PNG, JPEG, WebP, TIFF, BMP, GIF, HEIC or AVIF, recognised by its content.

    Palettes become RGB; CMYK, by its profile, and Lab become sRGB. EXIF orientation is applied, and 16 bits
    are kept. Of several frames or pages, only one is read, usually the first. If a file describes a colour
    space other than sRGB by means other than a profile, the photograph gets a profile for it if possible,
    which it is not for HDR. The result's ``notes`` say what was lost.

    Raises:
        SkipDiffError: if the file is missing, not an image, damaged or too large. The message is one
            line, without the path.
    """
    with _opened(path) as file:
        return decode_photo(file, max_pixels)


def decode_photo(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Photo:
    """Do the same as :func:`read_photo` for an open binary file."""
    with _decoding(file, max_pixels) as source:
        photo = source.decode()
        if photo.profile is None and source.format != "png":  # which can describe colours itself
            photo = replace(photo, profile=_profile_of_camera(photo, source.exif))
        left_out = [f"its {what} is left out" for what in xmp.companions(source.xmp)]
        if not xmp.is_legible(source.xmp):
            left_out.append("its XMP is damaged or not plain XML, and is left out")
        notes = tuple(dict.fromkeys((*photo.notes, *left_out)))
        photo = replace(photo, metadata=source.metadata, notes=notes, coding=source.coding)
        return upright(photo, source.orientation)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise SkipDiffError("no such file") from None
    except OSError as error:  # a closed folder, too long a name, circular links
        raise SkipDiffError(f"cannot be reached ({error.strerror})") from None
    if stat.S_ISDIR(mode):
        raise SkipDiffError("is a folder, not an image file")
    if not stat.S_ISREG(mode):
        raise SkipDiffError("is not a regular file")
    try:
        file = path.open("rb")
    except OSError as error:
        raise SkipDiffError(f"cannot be opened ({error.strerror})") from None
    with file:
        yield file


@contextlib.contextmanager
def _decoding(file: BinaryIO, max_pixels: int) -> Iterator[Source]:
    """Read an image's header; any error, there or when it is decoded, becomes a SkipDiffError."""
    try:
        source = _source(file)
        if 0 in source.size:
            raise SkipDiffError("has no pixels")
        if source.size[0] * source.size[1] > max_pixels:
            raise _too_large(f"is {source.size[0]}x{source.size[1]} pixels,", max_pixels)
        yield source
    except SkipDiffError:
        raise
    except UnidentifiedImageError:
        raise _unreadable(file) from None
    except Image.DecompressionBombError:
        raise _too_large("claims", max_pixels) from None
    except MemoryError:
        raise SkipDiffError("does not fit into memory: shrink or crop it first") from None
    except Exception as error:  # damaged files make decoders raise nearly any error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(reason) from error


def _source(file: BinaryIO) -> Source:
    start = file.read(64)
    file.seek(0)
    if start.startswith(PNG_SIGNATURE):
        return open_png(file)
    if start.startswith(TIFF_SIGNATURES):
        return open_tiff(file)
    return open_heif(file) if is_heif(start) else _open_with_pillow(file)


def _open_with_pillow(file: BinaryIO) -> Source:
    image = _pillow_image(file)

    def decode() -> Photo:
        frames = getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
        profile = _bmp_profile(file) if image.format == "BMP" else image.info.get("icc_profile")
        image.load()
        photo = from_pillow(image, profile)
        return photo.noting(*([f"only the first of {frames} frames or pages"] if frames > 1 else []))

    name = (image.format or "").lower()
    found, resources = exif.parse(image.info.get("exif") or b""), image.info.get("photoshop") or {}
    packet = image.info.get("xmp") or iptc.as_xmp(resources.get(iptc.RESOURCE, b""))
    dpi = image.info.get("dpi", ())
    size, coding, name = image.size, coding_of(image, file), "jpeg" if name == "mpo" else name
    return Source(name, size, decode, found, packet, _comment(image), dpi, coding=coding)


def _comment(image: Image.Image) -> dict[str, str]:
    """Read the comment of a JPEG or GIF, as the PNG text of that keyword."""
    said = image.info.get("comment") or b""
    text = said if isinstance(said, str) else _decoded(said)
    text = text.replace("\0", " ").strip()  # a PNG's text must not hold it
    return {COMMENT: text} if text else {}


def _decoded(text: bytes) -> str:
    """Decode the text as UTF-8, else as Latin-1: the formats do not say which."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _bmp_profile(file: BinaryIO) -> bytes | None:
    """Read the ICC profile in a BMP of version 5, which Pillow does not read."""
    here = file.tell()
    try:
        file.seek(14)
        header = file.read(124)
        if len(header) < 124 or int.from_bytes(header[:4], "little") < 124 or header[56:60] != b"DEBM":
            return None
        offset, size = (int.from_bytes(header[i : i + 4], "little") for i in (112, 116))
        file.seek(14 + offset)
        return file.read(size)
    finally:
        file.seek(here)


_warnings_lock = threading.Lock()
"""warnings.catch_warnings replaces a global list; two threads at once would restore the wrong one."""


def _pillow_image(file: BinaryIO) -> Image.Image:
    """Open an image without Pillow's warnings, which would come before SkipDiff's own errors."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(file, formats=_BY_PILLOW)


def _profile_of_camera(photo: Photo, found: Directories) -> bytes | None:
    """Return Adobe RGB's profile if a file names it as DCF does: index R03, not sRGB in EXIF; else None."""
    index = found.interop[1].text() if 1 in found.interop else b""
    space = found.exif[ExifTags.Base.ColorSpace].numbers() if ExifTags.Base.ColorSpace in found.exif else ()
    if index != b"R03" or space == (1,) or photo.mode != "RGB":
        return None
    return icc.profile(icc.ADOBE_RGB, icc.ADOBE_GAMMA)


def _too_large(what: str, max_pixels: int) -> SkipDiffError:
    return SkipDiffError(
        f"{what} more than the {max_pixels // 10**6} megapixels that are allowed: shrink or crop it first"
    )


def _unreadable(file: BinaryIO) -> SkipDiffError:
    file.seek(0)
    start = file.read(12)
    if not start:
        return SkipDiffError("is empty (0 bytes): copy it again from the source")
    if start.startswith(b"\xff\xd8"):
        return SkipDiffError(
            "is a damaged JPEG, or one that cannot be read (12-bit, lossless): copy it again from the "
            "source, or convert it to PNG"
        )
    if start.startswith((PNG_SIGNATURE, b"GIF8", b"BM")) or start[8:] == b"WEBP" or is_heif(start):
        return DamagedError("its header makes no sense")
    return SkipDiffError("is not a readable image: convert it to PNG, JPEG, WebP, TIFF, BMP or GIF first")
