"""Reads HEIC with pillow-heif (extra ``heic``), and AVIF with Pillow 11.3 or newer (extra ``avif``).

HEIC's depth of up to 12 bits is kept, in 16-bit samples; Pillow reads AVIF at 8 bits. H.273's code points
for the colours are kept, and HDR is enlarged as HDR if the format of the result can describe it.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, features

from ...errors import SkipDiffError
from ..raster import Photo, Source, from_pillow, rescaled, unmultiplied, with_profile
from . import exif, icc
from .metadata import ORIENTATION

_AVIF, _HEIC = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def is_heif(start: bytes) -> bool:
    """Return whether a file with this beginning is HEIC or AVIF."""
    return start[4:8] == b"ftyp" and not _brands(start).isdisjoint(_AVIF | _HEIC)


def open_heif(file: BinaryIO) -> Source:
    """Read the header of an opened HEIC or AVIF file.

    Raises:
        SkipDiffError: if the library that reads it is not installed.
    """
    file.seek(0)
    avif = not _brands(file.read(64)).isdisjoint(_AVIF)
    file.seek(0)
    return _open_avif(file) if avif else _open_heic(file)


def _brands(start: bytes) -> set[bytes]:
    """Return the brands that the first box names."""
    length = int.from_bytes(start[:4], "big")
    return {start[place : place + 4] for place in (8, *range(16, min(length, len(start)), 4))}


def _missing(kind: str, extra: str, library: str) -> SkipDiffError:
    return SkipDiffError(
        f"is {kind}, which needs {library}: pip install 'skipdiff[{extra}]', or convert it to PNG or JPEG"
    )


def _open_heic(file: BinaryIO) -> Source:
    try:
        import pillow_heif
    except ImportError:
        raise _missing("HEIC", "heic", "pillow-heif") from None

    container = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
    image: Any = container[container.primary_index]

    def decode() -> Photo:
        photo = _heic_pixels(image)
        nclx = image.info.get("nclx_profile") or {}
        codes = (nclx.get("color_primaries", 2), nclx.get("transfer_characteristics", 2))
        photo = _coloured(photo, image.info.get("icc_profile"), codes)
        notes = [f"only the first of {len(container)} frames or pages"] if len(container) > 1 else []
        if any("gainmap" in name.lower() for name in image.info.get("aux", {})):
            notes.append("its gain map (HDR) is left out")
        if image.info.get("depth_images"):
            notes.append("its depth map is left out")
        return photo.noting(*notes)

    found = exif.parse(image.info.get("exif") or b"")
    return Source("heic", image.size, decode, found, image.info.get("xmp") or b"", turned=True)


def _heic_pixels(image: Any) -> Photo:
    pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype == np.uint16:  # values in the upper bits; white must be the maximum
        bits = image.info["bit_depth"]
        pixels = rescaled(pixels >> (16 - bits), bits)
    channels = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    colour = np.ascontiguousarray(pixels[..., :channels])
    if channels == pixels.shape[2]:
        return Photo(colour)
    alpha = np.ascontiguousarray(pixels[..., -1])
    return Photo(unmultiplied(colour, alpha) if image.premultiplied_alpha else colour, alpha)


def _open_avif(file: BinaryIO) -> Source:
    if not features.check("avif"):
        raise _missing("AVIF", "avif", "Pillow 11.3 or newer")
    codes, bits = _avif_properties(file)
    file.seek(0)
    image = Image.open(file, formats=["AVIF"])

    def decode() -> Photo:
        image.load()
        photo = _coloured(from_pillow(image), image.info.get("icc_profile"), codes)
        frames = getattr(image, "n_frames", 1)
        notes = [f"only the first of {frames} frames or pages"] if frames > 1 else []
        if bits > 8:
            notes.append(f"{bits} bits reduced to 8: this kind of file cannot be read at full depth")
        return photo.noting(*notes)

    return Source("avif", image.size, decode, _avif_exif(image), image.info.get("xmp") or b"")


def _avif_exif(image: Image.Image) -> exif.Directories:
    """Return the file's EXIF, with the orientation of the picture itself.

    If the two orientations differ, Pillow rewrites the EXIF, with question marks for non-ASCII text. If the
    decoder also gives the original block, only the orientation is taken from the rewritten one.
    """
    shown = exif.parse(image.info.get("exif") or b"")
    with contextlib.suppress(AttributeError, IndexError, TypeError):  # Pillow does not guarantee this decoder
        found = exif.parse(image._decoder.get_info()[4] or b"")  # type: ignore[attr-defined]
        turn = {tag: value for tag, value in shown.base.items() if tag == ORIENTATION}
        return found._replace(base={**found.base, **turn})
    return shown


def _coloured(photo: Photo, profile: bytes | None, codes: tuple[int, int]) -> Photo:
    """Return the photograph with its colour space: an ICC profile, else H.273's primaries and transfer."""
    meaning = bytes([min(codes[0], 255), min(codes[1], 255), 0, 1])  # those of the decoded full-range RGB
    photo = with_profile(photo, profile)
    if codes[1] not in icc.HDR and (photo.profile or icc.is_open(meaning) or icc.is_srgb(meaning)):
        return photo
    profile = photo.profile or icc.from_code_points(meaning, photo.mode == "L")
    return replace(photo, profile=profile, code_points=meaning)


def _avif_properties(file: BinaryIO) -> tuple[tuple[int, int], int]:
    """Read primaries and transfer (2: unspecified), and bits per channel, of the first picture in a file."""
    codes, bits = (2, 2), 8
    file.seek(0, 2)
    for name, place, length in _boxes(file, 0, file.tell()):
        file.seek(place)
        body = file.read(min(length, 16))
        if name == b"colr" and body[:4] == b"nclx" and codes == (2, 2) and len(body) >= 8:
            codes = struct.unpack(">HH", body[4:8])
        elif name == b"av1C" and len(body) >= 3 and body[2] & 0x40:
            bits = 12 if body[2] & 0x20 else 10
    return codes, bits


def _boxes(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and length of the content of all boxes, including those within other boxes."""
    while place + 8 <= end:
        file.seek(place)
        length, name = struct.unpack(">I4s", file.read(8))
        length = length or end - place
        if length < 8:  # a 64-bit length, for gigabytes, or damage
            return
        inside = {b"meta": 12, b"iprp": 8, b"ipco": 8}.get(name)
        if inside:
            yield from _boxes(file, place + inside, min(place + length, end))
        else:
            yield name, place + 8, min(length, end - place) - 8
        place += length
