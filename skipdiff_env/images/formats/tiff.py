"""Reads and writes TIFF 6.0 in the layouts of scanners, microscopes and layout programs.

Pillow and OpenCV silently misread some of them (16 bits in separate planes, 12 bits) and do not know others;
tifffile needs native decoders for most layouts, and damaged files crash these; libtiff returns arbitrary
pixels for damaged codes and prints messages. Samples are therefore unpacked here, and JPEG strips, each a
stream of its own, go to the JPEG decoder. Layouts that are not known to be read correctly are refused by
name.
"""

from __future__ import annotations

import contextlib
import mmap
import zlib
from dataclasses import replace
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from ...errors import SkipDiffError
from ..raster import DamagedError, Photo, Source, converted, eight_bits, rescaled, unmultiplied, with_profile
from . import exif, fax, iptc, jpeg
from .exif import Directories, Directory, Value
from .metadata import ICC_TAG, XMP_TAG
from .unpack import COMPRESSIONS, PREDICTED, REVERSED, integers, unpacked

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB, _ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
_CHANNELS = {
    _WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3, _LAB: 3, _ICC_LAB: 3,
}  # fmt: skip
"""PhotometricInterpretation → number of colour channels."""
_NAMES = {4: "mask", 10: "ITU Lab", 32803: "colour filter array", 34892: "linear raw", 51177: "depth map"}
"""Other photometric interpretations."""
_KINDS = {1: "", 2: "signed ", 3: "float ", 5: "complex ", 6: "complex float "}
"""Kinds of numbers by SampleFormat."""
_JPEG = 7
_IN_JPEG = (_BLACK_IS_ZERO, _RGB, _CMYK, _YCBCR)
_FAX_OPTIONS, _JPEG_TABLES = 292, 347
_COMPRESSION_NAMES = {
    6: "old JPEG", 34712: "JPEG 2000", 34887: "LERC", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip
_SUB_DIRECTORIES = 330
_IPTC, _PHOTOSHOP = 33723, 34377
_MOST_CHANNELS = 32
_LARGEST_BLOCK = 2**27
"""Maximum number of pixels of a tile or strip."""

_STRIP_BYTES = 2**20


class _Layout(NamedTuple):
    """How the samples of a page are stored in the file."""

    width: int
    height: int
    bits: tuple[int, ...]
    """Number of bits of each channel."""
    kinds: tuple[int, ...]
    """SampleFormat of each channel; 1 is unsigned."""
    channels: int
    photometric: int
    compression: int
    apart: bool
    """Whether each channel has blocks of its own."""
    block: tuple[int, int]
    """Width and height of a tile, or of every strip but the last."""
    tiled: bool
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    predictor: int
    reversed: bool
    """Whether the bits of each byte are in reverse order."""
    order: str
    """Byte order, ``<`` or ``>``."""
    two_dimensional: bool
    """Whether rows of fax codes may refer to those above them."""
    tables: bytes
    """JPEG tables that the strips or tiles share."""

    @property
    def depth(self) -> int:
        return max(self.bits)

    @property
    def extra(self) -> int:
        """Number of channels besides those of colour."""
        return self.channels - _CHANNELS.get(self.photometric, 0)

    @property
    def block_channels(self) -> int:
        """Number of channels in a strip or tile."""
        return 1 if self.apart else self.channels

    def block_bytes(self, rows: int) -> int:
        """Return the number of unpacked bytes of ``rows`` rows of a strip or tile."""
        return rows * -(-self.block[0] * self.block_channels * self.depth // 8)


def open_tiff(file: BinaryIO) -> Source:
    """Read the header of an opened TIFF or BigTIFF file, for its first page that is not a reduced copy.

    Raises:
        SkipDiffError: if the layout is not supported; the message names it.
    """
    whole = _whole(file)
    found, said, notes = _page(whole)
    layout = _layout(found.base, "<" if whole[:2] == b"II" else ">")
    _check(layout, found.base)
    profile = found.base[ICC_TAG].data if ICC_TAG in found.base else None
    blocks = [said.base[tag].data for tag in (_IPTC, _PHOTOSHOP) if tag in said.base]
    older = next(filter(None, map(iptc.as_xmp, blocks)), b"")
    packet = said.base[XMP_TAG].data if XMP_TAG in said.base else older

    def decode() -> Photo:
        samples = _samples(layout, whole)
        # JPEG's decoder gives RGB for YCbCr
        shown = layout._replace(photometric=_RGB) if (code, colours) == (_JPEG, _YCBCR) else layout
        return _interpreted(shown, found.base, samples, profile).noting(*notes)

    code, colours = layout.compression, layout.photometric
    return Source("tiff", (layout.width, layout.height), decode, said, packet)


def _page(whole: bytes | mmap.mmap) -> tuple[Directories, Directories, list[str]]:
    """Choose the page to read; return it, the metadata of its picture, and notes."""
    starts = exif.pages(whole)
    first = exif.parse(whole)
    if not _is_reduced(first.base) or _SUB_DIRECTORIES in first.base:
        return first, first, [f"only the first of {len(starts)} frames or pages"] if len(starts) > 1 else []
    for number, start in enumerate(starts[1:], 2):
        page = exif.parse(whole, start)
        if not _is_reduced(page.base):
            # metadata are as often with a copy that comes first as with the picture
            said = Directories({**first.base, **page.base}, page.exif or first.exif, page.gps or first.gps)
            return page, said, [f"only page {number} of {len(starts)}: those before it are reduced copies"]
    return first, first, []


def _is_reduced(base: Directory) -> bool:
    """Return whether a page is a smaller copy of another, or its mask: NewSubfileType, else SubfileType."""
    return bool((*_numbers(base, 254), int(_numbers(base, 255) == (2,)))[0] & 0b101)


def _whole(file: BinaryIO) -> bytes | mmap.mmap:
    """Return a file's bytes, mapped if possible, since few of them are needed before the file is decoded."""
    with contextlib.suppress(OSError, ValueError):
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.seek(0)
    return file.read()


def _numbers(base: Directory, tag: int) -> tuple[int, ...]:
    """Return the integers in a tag; none if it is not there or holds something else."""
    numbers = base[tag].numbers() if tag in base else ()
    return numbers if all(isinstance(number, int) for number in numbers) else ()  # type: ignore[return-value]


def _layout(base: Directory, order: str) -> _Layout:
    def number(tag: int, default: int) -> int:
        return (*_numbers(base, tag), default)[0]

    width, height, channels = number(256, 0), number(257, 0), number(277, 1)
    tiled = 322 in base
    strip = min(number(278, height), height)
    block = (number(322, 0), number(323, 0)) if tiled else (width, strip)
    if 0 in (width, height, channels, *block):
        raise DamagedError("a TIFF without a size")
    code = number(259, 1)
    return _Layout(
        width, height,
        bits=_numbers(base, 258) or (1,), kinds=_numbers(base, 339) or (1,), channels=channels,
        photometric=number(262, _WHITE_IS_ZERO), compression=code,
        apart=number(284, 1) == 2 and channels > 1, block=block, tiled=tiled,
        offsets=_numbers(base, 324 if tiled else exif.STRIP_OFFSETS),
        lengths=_numbers(base, 325 if tiled else 279),
        predictor=1 if code in (*fax.CODES, _JPEG) else number(317, 1),
        reversed=number(266, 1) == 2 and code != _JPEG, order=order,
        two_dimensional=bool(number(_FAX_OPTIONS, 0) & 1),
        tables=base[_JPEG_TABLES].data if _JPEG_TABLES in base else b"",
    )  # fmt: skip


def _check(layout: _Layout, base: Directory) -> None:
    """Refuse layouts that would not be read correctly."""
    if _is_reduced(base) and _SUB_DIRECTORIES in base:
        raise SkipDiffError(
            "is a TIFF that begins with a reduced copy, as camera raw files do: develop it first"
        )
    problem = _other_numbers(layout) or _other_colours(layout, base) or _other_coding(layout, base)
    if problem:
        raise SkipDiffError(f"is a TIFF with {problem}: convert it to grey or RGB with 8 or 16 bits first")


def _other_numbers(layout: _Layout) -> str:
    """Say what is not supported about the type of its numbers; empty if nothing."""
    kind = next((kind for kind in layout.kinds if kind not in (1, 4)), 1)  # 4 (undefined) is read as 1
    if len(set(layout.bits)) > 1:
        return f"channels of {' and '.join(map(str, sorted(set(layout.bits))))} bits"
    if kind not in _KINDS:
        return f"sample format {kind}"
    if kind != 1 or not 1 <= layout.depth <= 16:
        return f"{layout.depth}-bit {_KINDS[kind]}pixels, for which white is not defined"
    return ""


def _other_colours(layout: _Layout, base: Directory) -> str:
    """Say what is not supported about its colours; empty if nothing."""
    photometric, depth = layout.photometric, layout.depth
    if photometric not in _CHANNELS or layout.extra < 0 or layout.channels > _MOST_CHANNELS:
        return f"{_NAMES.get(photometric, f'photometric {photometric}')} pixels (channels: {layout.channels})"
    if photometric == _PALETTE and len(_numbers(base, 320)) != 3 * 2**depth:
        return f"no palette for its {depth}-bit palette pixels"
    if photometric == _CMYK and _numbers(base, 332) not in ((), (1,)):
        return "inks other than CMYK"
    if photometric in (_CMYK, _LAB, _ICC_LAB) and depth not in (8, 16):
        return f"{depth}-bit {'CMYK' if photometric == _CMYK else 'Lab'} pixels"
    if photometric == _YCBCR and layout.compression != _JPEG:
        if _numbers(base, 530) != (1, 1):
            return "subsampled YCbCr pixels without JPEG"
        if depth != 8 or 529 in base or 532 in base:
            return f"{depth}-bit YCbCr pixels of an unusual scale"
    return ""


def _other_coding(layout: _Layout, base: Directory) -> str:
    """Say what is not supported about the coding of its samples; empty if nothing."""
    code = layout.compression
    if code in fax.CODES and (layout.channels, layout.depth) != (1, 1):
        return f"fax codes for {layout.depth}-bit pixels"
    if code == _JPEG and (
        layout.depth != 8 or layout.extra or layout.apart or layout.photometric not in _IN_JPEG
    ):
        return f"JPEG codes for {layout.depth}-bit pixels in an unusual layout"
    if code not in (*COMPRESSIONS, *fax.CODES, _JPEG):
        return f"{_COMPRESSION_NAMES.get(code, f'number {code}')} compression"
    if layout.predictor != 1 and code not in PREDICTED:
        return f"predictor {layout.predictor} with a code for which programs read it in different ways"
    if layout.predictor not in (1, 2) or (layout.predictor == 2 and layout.depth not in (8, 16)):
        return f"predictor {layout.predictor} for {layout.depth}-bit pixels"
    if _numbers(base, 32997) not in ((), (1,)) or _numbers(base, 32998) not in ((), (1,)):
        return "more than two dimensions"
    if layout.block[0] * layout.block[1] > _LARGEST_BLOCK:
        return f"tiles of {layout.block[0]}x{layout.block[1]}"
    return ""


def _samples(layout: _Layout, whole: bytes | mmap.mmap) -> np.ndarray:
    """Read the samples as stored, (H, W, channels), in unsigned integers."""
    width, height = layout.block
    across, down = -(-layout.width // width), -(-layout.height // height)
    count = across * down * (layout.channels if layout.apart else 1)
    lengths = layout.lengths
    if layout.compression == 1:  # some files give wrong lengths, or none
        lengths = (layout.block_bytes(height),) * count
    if not len(layout.offsets) == len(lengths) == count:
        raise ValueError("it lacks strips or tiles")
    dtype = np.uint8 if layout.depth <= 8 else np.uint16
    samples = np.empty((layout.height, layout.width, layout.channels), dtype)
    for number, (offset, length) in enumerate(zip(layout.offsets, lengths, strict=True)):
        plane, place = divmod(number, across * down)
        top, left = place // across * height, place % across * width
        target = samples[top : top + height, left : left + width]
        block = _block(layout, whole[offset : offset + length], height if layout.tiled else len(target))
        target[..., plane : plane + block.shape[2]] = block[: target.shape[0], : target.shape[1]]
    return samples


def _block(layout: _Layout, data: bytes, rows: int) -> np.ndarray:
    """Return a strip's or tile's samples, (rows, columns, channels in it)."""
    if layout.compression == _JPEG:
        transformed = {_YCBCR: True, _RGB: False}.get(layout.photometric)
        return jpeg.decoded(data, layout.tables, (layout.block[0], rows), layout.channels, transformed)
    if layout.reversed:
        data = data.translate(REVERSED)
    if layout.compression in fax.CODES:
        data = fax.unpacked(data, layout.compression, rows, layout.block[0], layout.two_dimensional)
    else:
        data = unpacked(data, layout.compression, layout.block_bytes(rows))
    block = integers(data, rows, layout.block[0] * layout.block_channels, layout.depth, layout.order)
    block = block.reshape(rows, layout.block[0], layout.block_channels)
    return np.cumsum(block, axis=1, dtype=block.dtype) if layout.predictor == 2 else block


def _interpreted(layout: _Layout, base: Directory, samples: np.ndarray, profile: bytes | None) -> Photo:
    """Return the photograph that the samples represent, with colour and transparency."""
    photometric = layout.photometric
    colour, rest = samples[..., : -layout.extra or None], samples[..., layout.channels - layout.extra :]
    if photometric != _PALETTE:
        colour = rescaled(colour, layout.depth)
    # all programs treat an undeclared fourth channel of RGB as transparency
    kinds = _numbers(base, 338) if 338 in base else ((2,) if photometric == _RGB else ())
    alpha, others = None, layout.extra
    for kind, plane in zip(kinds, np.moveaxis(rest, -1, 0), strict=False):
        if kind in (1, 2):
            alpha = rescaled(plane, layout.depth)
            colour = unmultiplied(colour, alpha) if kind == 1 else colour
            others -= 1
            break
    if photometric in (_CMYK, _LAB, _ICC_LAB, _YCBCR):
        photo = _as_rgb(photometric, colour, profile)
    elif photometric == _PALETTE:
        palette = np.array(_numbers(base, 320)).reshape(3, -1).T
        palette = (palette // 256 if palette.max() > 255 else palette).astype(np.uint8)
        photo = with_profile(Photo(palette[colour[..., 0]]), profile)
    else:
        colour = np.iinfo(colour.dtype).max - colour if photometric == _WHITE_IS_ZERO else colour
        photo = with_profile(Photo(np.ascontiguousarray(colour)), profile)
    if others:
        photo = photo.noting(f"channels besides colour and transparency are left out: {others}")
    if alpha is not None and not photo.deep:
        alpha = eight_bits(alpha)
    return replace(photo, alpha=None if alpha is None else np.ascontiguousarray(alpha))


def _as_rgb(photometric: int, colour: np.ndarray, profile: bytes | None) -> Photo:
    """Convert CMYK, Lab and YCbCr, which Pillow supports at 8 bits, to RGB."""
    if photometric == _YCBCR:
        return with_profile(Photo(np.array(_image(colour, "YCbCr").convert("RGB"))), profile)
    notes = ("16 bits reduced to 8, as colours had to be converted",) if colour.dtype == np.uint16 else ()
    if photometric == _CMYK:
        return converted(_image(eight_bits(colour), "CMYK"), profile).noting(*notes)
    if colour.dtype == np.uint16:
        colour = _eight_bit_lab(colour, signed=photometric == _LAB)
    if photometric == _ICC_LAB:  # a and b already have an offset of 128, which Pillow will add
        colour = colour ^ np.array([0, 0x80, 0x80], np.uint8)
    return converted(_image(colour, "LAB"), None).noting(*notes)


def _eight_bit_lab(colour: np.ndarray, signed: bool) -> np.ndarray:
    """Convert Lab from 16 to 8 bits; a and b are signed, or half the range was added to them."""
    white, least, most = (65535, -128, 127) if signed else (65280, 0, 255)
    lightness = np.minimum(np.rint(colour[..., :1] * (255 / white)), 255)
    opponents = colour[..., 1:].astype(np.int16 if signed else np.uint16).astype(int)
    opponents = ((opponents + 128) // 256).clip(least, most)
    return np.concatenate([lightness.astype(int), opponents], axis=2).astype(np.uint8)


def _image(pixels: np.ndarray, mode: str) -> Image.Image:
    height, width = pixels.shape[:2]
    return Image.frombytes(mode, (width, height), np.ascontiguousarray(pixels).tobytes())


def encode_tiff(photo: Photo, found: Directories) -> bytes:
    """Encode a TIFF file, deflated with a predictor; ``found`` is its EXIF.

    Raises:
        SkipDiffError: if it would be larger than 4 GB.
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
    try:
        return b"".join(exif.build(found._replace(base=base), strips))
    except OverflowError as error:
        raise SkipDiffError(f"does not fit TIFF ({error}): use --format png") from None


def _strip(pixels: np.ndarray) -> bytes:
    """Deflate rows of pixels, each pixel as the difference from its left neighbour."""
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    return zlib.compress(differences.astype(differences.dtype.newbyteorder("<")).tobytes())
