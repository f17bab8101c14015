"""TIFF in all the layouts of scanners, microscopes and layout programs: read by tifffile, written by us.

Pillow and OpenCV misread some of them without a word (16 bits in separate planes, 12 bits) and know others
not at all. What is not known to be read right is refused, with the layout's name.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import SkipDiffError
from . import exif
from .exif import Directories, Value
from .metadata import ICC_TAG, XMP_TAG
from .raster import Photo, Source, converted, eight_bits, rescaled, unmultiplied, with_profile

if TYPE_CHECKING:
    from tifffile import TiffPage

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what matters is raised as well

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB, _ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_CHANNELS = {
    _WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3, _ICC_LAB: 3,
}  # fmt: skip
"""PhotometricInterpretation → channels of colour."""
_JPEG = 7
_COMPRESSIONS = {1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34712, 34925, 50000, 50001}
"""None, CCITT, LZW, JPEG, deflate, PackBits, JPEG 2000, LZMA, Zstandard, WebP."""

_STRIP_BYTES = 2**20


def open_tiff(file: BinaryIO) -> Source:
    """A TIFF or BigTIFF file that has been opened; its first page counts.

    Raises:
        SkipDiffError: if it has a layout that is not read, which is named.
    """
    from tifffile import TiffFile

    tiff = TiffFile(file)
    page: Any = tiff.pages[0]
    _check_layout(page)
    found = exif.parse(_whole(file))

    def decode() -> Photo:
        profile = found.base[ICC_TAG].data if ICC_TAG in found.base else None
        photo = _interpreted(page, _samples(page), profile)
        pages = 1
        with contextlib.suppress(Exception):  # the first page is whole, whatever is wrong with the others
            pages = len(tiff.pages)
        return photo.noting(*([f"only the first of {pages} frames or pages"] if pages > 1 else []))

    packet = found.base[XMP_TAG].data if XMP_TAG in found.base else b""
    return Source("tiff", (page.imagewidth, page.imagelength), decode, found, packet)


def _whole(file: BinaryIO) -> bytes | mmap.mmap:
    """A file's bytes, of which hardly any will be looked at."""
    with contextlib.suppress(OSError, ValueError):
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.seek(0)
    return file.read()


def _numbers(page: TiffPage, tag: int) -> tuple[int, ...]:
    """The integers in a tag; none if it is not there."""
    value = page.tags[tag].value if tag in page.tags else ()
    return tuple(int(number) for number in value) if isinstance(value, tuple) else (int(value),)


def _check_layout(page: TiffPage) -> None:
    """Refuse layouts that would not be read right."""
    bits = set(_numbers(page, 258)) or {1}
    depth = max(bits)
    kinds = {1: "", 2: "signed ", 3: "float "}
    kind = next((kinds.get(n, "undefined ") for n in _numbers(page, 339) if n != 1), "")
    channels = _CHANNELS.get(int(page.photometric), 0)
    extra = page.samplesperpixel - channels
    jpeg = page.compression == _JPEG
    problem = ""
    if _numbers(page, 254)[:1] and _numbers(page, 254)[0] & 1:
        problem = "a reduced copy as its first page, as camera raw files have: develop it first"
    elif int(page.compression) not in _COMPRESSIONS:
        problem = f"{_name(page.compression)} compression"
    elif not channels or extra < 0:
        problem = f"{_name(page.photometric)} pixels of {page.samplesperpixel} channels"
    elif kind or depth > 16:
        problem = f"{depth}-bit {kind}pixels, which do not say what white is"
    elif len(bits) > 1:
        problem = f"channels of {' and '.join(map(str, sorted(bits)))} bits"
    elif page.imagedepth != 1:
        problem = "more than two dimensions"
    elif page.photometric == _PALETTE and (depth > 8 or 320 not in page.tags):
        problem = f"a palette of {depth} bits" if 320 in page.tags else "no palette for its palette pixels"
    elif page.photometric == _CMYK and (_numbers(page, 332) not in ((), (1,)) or depth not in (8, 16)):
        problem = f"{depth}-bit inks other than CMYK" if depth in (8, 16) else f"{depth}-bit CMYK"
    elif page.photometric in (_LAB, _ICC_LAB) and depth not in (8, 16):
        problem = f"{depth}-bit Lab"
    elif page.photometric == _YCBCR and not (jpeg and page.planarconfig == 1):
        subsampled = _numbers(page, 530) not in ((1, 1), ()) or 530 not in page.tags
        if subsampled or depth != 8 or 529 in page.tags or 532 in page.tags:
            problem = f"{depth}-bit {'subsampled ' if subsampled else ''}YCbCr without JPEG"
    if problem:
        save = "" if "develop" in problem else ": convert it to 8 or 16 bits of grey or RGB first"
        raise SkipDiffError(f"is a TIFF with {problem}{save}")


def _name(code: Any) -> str:
    """What tifffile calls a code, or its number."""
    return str(getattr(code, "name", code))


def _samples(page: TiffPage) -> np.ndarray:
    """(H, W, channels) as stored, in unsigned integers."""
    samples = page.asarray()
    if samples.ndim == 3 and page.planarconfig == 2:
        samples = np.moveaxis(samples, 0, -1)
    samples = samples.reshape(page.imagelength, page.imagewidth, -1)
    return samples.astype(np.uint8) if samples.dtype == bool else samples


def _interpreted(page: TiffPage, samples: np.ndarray, profile: bytes | None) -> Photo:
    """Colour and transparency of samples."""
    photometric, bits = int(page.photometric), max(_numbers(page, 258) or (1,))
    channels = _CHANNELS[photometric]
    colour, rest = samples[..., :channels], samples[..., channels:]
    if photometric != _PALETTE:
        colour = rescaled(colour, bits)
    # 4 channels of RGB without a word about the fourth are RGBA to everybody
    kinds = _numbers(page, 338) if 338 in page.tags else ((2,) if photometric == _RGB else ())
    alpha = None
    for kind, plane in zip(kinds, np.moveaxis(rest, -1, 0), strict=False):
        if kind in (1, 2):
            alpha = rescaled(plane, bits)
            colour = unmultiplied(colour, alpha) if kind == 1 else colour
            break
    if photometric in (_CMYK, _LAB, _ICC_LAB, _YCBCR):
        photo = _other_colours(page, colour, profile)
    elif photometric == _PALETTE:
        photo = with_profile(Photo(_palette(page)[colour[..., 0]]), profile)
    else:
        colour = np.iinfo(colour.dtype).max - colour if photometric == _WHITE_IS_ZERO else colour
        photo = with_profile(Photo(np.ascontiguousarray(colour)), profile)
    if alpha is not None and photo.colour.dtype == np.uint8:
        alpha = eight_bits(alpha)
    return replace(photo, alpha=None if alpha is None else np.ascontiguousarray(alpha))


def _other_colours(page: TiffPage, colour: np.ndarray, profile: bytes | None) -> Photo:
    """CMYK, Lab and YCbCr, of which Pillow knows 8 bits, as RGB."""
    notes = ("16 bits reduced to 8, as colours had to be converted",) if colour.dtype == np.uint16 else ()
    if page.photometric == _YCBCR:
        if page.compression == _JPEG:  # which tifffile has converted
            return with_profile(Photo(np.ascontiguousarray(colour)), profile)
        return with_profile(Photo(np.array(_image(colour, "YCbCr").convert("RGB"))), profile)
    if page.photometric == _CMYK:
        return converted(_image(eight_bits(colour), "CMYK"), profile).noting(*notes)
    lightness, opponents = colour[..., :1], colour[..., 1:]
    if colour.dtype == np.uint16:
        white = 65535 if page.photometric == _LAB else 65280
        lightness = np.minimum(np.rint(lightness * (255 / white)), 255).astype(np.uint8)
        signed = opponents.astype(np.int16 if page.photometric == _LAB else np.uint16)
        opponents = (
            np.floor_divide(signed.astype(int) + 128, 256)
            .clip(-128 if page.photometric == _LAB else 0, 127 if page.photometric == _LAB else 255)
            .astype(np.uint8)
        )
    if page.photometric == _ICC_LAB:  # 128 is added already, which Pillow is about to do
        opponents = opponents ^ 0x80
    return converted(_image(np.concatenate([lightness, opponents], axis=2), "LAB"), None).noting(*notes)


def _image(pixels: np.ndarray, mode: str) -> Image.Image:
    height, width = pixels.shape[:2]
    return Image.frombytes(mode, (width, height), np.ascontiguousarray(pixels).tobytes())


def _palette(page: TiffPage) -> np.ndarray:
    """uint8 (colours, 3)."""
    colours = np.asarray(page.colormap).T
    return (colours // 256 if colours.max() > 255 else colours).astype(np.uint8)


def encode_tiff(photo: Photo, found: Directories) -> bytes:
    """A TIFF file, deflated with a predictor; ``found`` is what its EXIF says.

    Raises:
        SkipDiffError: if it would have more than 4 GB.
    """
    pixels = photo.planes()
    height, width, channels = pixels.shape
    rows = max(1, _STRIP_BYTES // (width * channels * pixels.itemsize))
    strips = [_strip(pixels[top : top + rows]) for top in range(0, height, rows)]
    base = {
        **found.base,
        256: exif.longs(width),
        257: exif.longs(height),
        258: exif.shorts(*(8 * pixels.itemsize,) * channels),
        259: exif.shorts(8),
        262: exif.shorts(_BLACK_IS_ZERO if photo.mode == "L" else _RGB),
        277: exif.shorts(channels),
        278: exif.longs(rows),
        279: exif.longs(*map(len, strips)),
        284: exif.shorts(1),
        317: exif.shorts(2),
    }
    if photo.alpha is not None:
        base[338] = exif.shorts(2)  # not premultiplied
    if photo.profile:
        base[ICC_TAG] = Value(exif.UNDEFINED, photo.profile)
    if photo.metadata.xmp:
        base[XMP_TAG] = Value(1, photo.metadata.xmp)
    if photo.metadata.dpi and 282 not in base:
        across, down = photo.metadata.dpi
        base |= {282: exif.rationals(across), 283: exif.rationals(down), 296: exif.shorts(2)}
    try:
        return b"".join(exif.build(found._replace(base=base), strips))
    except OverflowError as error:
        raise SkipDiffError(f"does not fit TIFF ({error}): use --format png") from None


def _strip(pixels: np.ndarray) -> bytes:
    """Rows of pixels, each the difference to its left neighbour, deflated."""
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    return zlib.compress(differences.astype(differences.dtype.newbyteorder("<")).tobytes())
