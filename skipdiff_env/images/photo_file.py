"""Encodes a :class:`Photo`: pixels, profile, metadata and the record of how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from ..errors import SkipDiffError
from .formats import icc
from .formats.metadata import COMMENT, Metadata, exif_bytes, exif_directories
from .formats.png import encode_png
from .formats.profiles import to_srgb
from .formats.tiff import encode_tiff
from .photo import Format
from .raster import Photo, eight_bits, over_white

_JPEG_SEGMENT = 65533 - 64
"""Number of bytes that fit into one JPEG segment, besides its name."""


def encode_photo(
    photo: Photo, fmt: Format, software: str, record: Mapping[str, Any], quality: int = 95
) -> tuple[bytes, list[str]]:
    """Encode a photograph as the bytes of a file. The same arguments give the same bytes.

    Args:
        photo: the photograph, with all its metadata.
        fmt: one of :data:`~skipdiff_env.images.photo.FORMATS`.
        software: name of the software that made it, for the EXIF tag.
        record: how it was made, as plain JSON.
        quality: quality of JPEG and WebP, 1 … 100.

    Returns:
        The bytes, and notes on what the format could not hold.

    Raises:
        SkipDiffError: if the picture is too large for the format.
    """
    check_size(photo.size, fmt)
    photo, notes = fit_format(photo, fmt)
    metadata = photo.metadata.at(photo.size)
    photo = replace(photo, metadata=metadata)
    directories = exif_directories(metadata, software, record)
    if fmt.name == "png":
        return encode_png(photo, directories, software), notes
    comment = metadata.texts.get(COMMENT, "").encode()
    lost = [key for key in metadata.texts if (fmt.name, key) != ("jpeg", COMMENT)]
    if lost:
        what, them = ("text", "it") if len(lost) == 1 else ("texts", "them")
        notes.append(f"{fmt.name.upper()} has no place for the {what} {_listed(lost)}: PNG keeps {them}")
    if fmt.name == "tiff":
        return encode_tiff(photo, directories), notes
    options: dict[str, Any] = {}
    if metadata.dpi and (fmt.name != "jpeg" or max(metadata.dpi) < 2**16):  # larger values go into EXIF
        options["dpi"] = metadata.dpi
    if fmt.name == "jpeg":
        block = exif_bytes(directories)
        if len(block) > _JPEG_SEGMENT:
            notes.append("EXIF too long for JPEG, dropped")
            block = exif_bytes(exif_directories(Metadata(), software, record))
        if len(comment) > _JPEG_SEGMENT:
            notes.append("comment too long for JPEG, dropped")
        elif comment:
            options["comment"] = comment
        options |= {"exif": block, "quality": quality, "subsampling": "4:4:4", "icc_profile": photo.profile}
        if metadata.xmp and len(metadata.xmp) <= _JPEG_SEGMENT:
            options["extra"] = _segment(b"http://ns.adobe.com/xap/1.0/\0" + metadata.xmp)
        elif metadata.xmp:
            notes.append("XMP too long for JPEG, dropped")
    elif fmt.name == "webp":
        options = {"exif": exif_bytes(directories), "quality": quality, "icc_profile": photo.profile or b""}
        options |= {"xmp": metadata.xmp, "method": 4}
    buffer = BytesIO()
    photo.pillow().save(buffer, fmt.name.upper(), **options)
    return buffer.getvalue(), notes


def check_size(size: tuple[int, int], fmt: Format) -> None:
    """Raise a SkipDiffError if the format cannot hold a picture of this width and height."""
    if max(size) > fmt.max_side:
        raise SkipDiffError(
            f"{size[0]}x{size[1]} does not fit {fmt.name.upper()} (at most {fmt.max_side} pixels per side): "
            "use --format png"
        )


def fit_format(photo: Photo, fmt: Format) -> tuple[Photo, list[str]]:
    """Return the photograph as the format can hold it, and notes on what was lost."""
    notes = []
    colour, alpha, profile = photo.colour, photo.alpha, photo.profile
    if alpha is not None and not fmt.alpha:
        colour = over_white(colour, alpha)
        if (alpha < np.iinfo(alpha.dtype).max).any():
            notes.append(
                f"transparency laid over white, as {fmt.name.upper()} has none: PNG, WebP and TIFF keep it"
            )
        alpha = None
    if photo.deep and not fmt.deep:
        colour, alpha = eight_bits(colour), None if alpha is None else eight_bits(alpha)
        notes.append(f"16 bits reduced to 8, the most that {fmt.name.upper()} holds: PNG and TIFF keep them")
    codes = photo.code_points
    if codes and not fmt.code_points:
        if profile is None:
            what = f"HDR ({icc.HDR[codes[1]]})" if codes[1] in icc.HDR else "its colour space"
            notes.append(f"{fmt.name.upper()} cannot describe {what}, so colours look wrong: PNG keeps it")
        codes = None
    grey = colour.shape[2] == 1
    if profile and (not fmt.baggage or (grey and not fmt.grey) or len(profile) > fmt.max_profile):
        converted = np.array(to_srgb(Image.fromarray(colour[..., 0] if grey else colour), profile))
        if not np.array_equal(converted, np.broadcast_to(colour, converted.shape)):
            notes.append(f"colours converted to sRGB, as {fmt.name.upper()} cannot hold the profile")
        colour, profile = converted, None
    elif grey and (not fmt.grey or (fmt.name == "tiff" and photo.deep and alpha is not None and not profile)):
        colour = np.repeat(colour, 3, axis=2)  # many programs do not support such a TIFF in grey
    return replace(photo, colour=colour, alpha=alpha, profile=profile, code_points=codes), notes


def _listed(names: Sequence[str], most: int = 3) -> str:
    """Quote the names, or the first few of many."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _segment(payload: bytes) -> bytes:
    """Return a JPEG application segment (APP1)."""
    return b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
