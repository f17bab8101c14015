"""Writing a :class:`Photo`: pixels, profile, metadata and the record of how it was made, as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from ..errors import SkipDiffError
from .metadata import ICC_TAG, XMP_TAG, exif_bytes, exif_directory
from .photo import Format, Photo
from .profiles import to_srgb

_JPEG_SEGMENT = 65533 - 64
"""Room in one JPEG segment, less its name."""


def encode_photo(
    photo: Photo, fmt: Format, software: str, record: Mapping[str, Any], quality: int = 95
) -> tuple[bytes, list[str]]:
    """A photograph as the bytes of a file. The same arguments give the same bytes.

    Args:
        photo: what to write, with all its metadata.
        fmt: one of :data:`~skipdiff_env.images.photo.FORMATS`.
        software: what made it, for the EXIF tag.
        record: how it was made, JSON-plain.
        quality: of JPEG and WebP, 1 … 100.

    Returns:
        The bytes, and what the format could not hold, in words.

    Raises:
        SkipDiffError: if the picture is too large for the format.
    """
    check_size(photo.size, fmt)
    photo, notes = fit_format(photo, fmt)
    if fmt.name == "png":
        photo, notes = _within_png(photo, notes)
    directory = exif_directory(photo.metadata, software, record)
    if fmt.name == "png":
        return _png(photo, directory, software), notes
    if fmt.name == "tiff":
        return _tiff(photo, directory), notes
    options: dict[str, Any] = {"dpi": photo.metadata.dpi} if photo.metadata.dpi else {}
    if fmt.name == "jpeg":
        block = exif_bytes(directory)
        if len(block) > _JPEG_SEGMENT:
            notes.append("EXIF too long for JPEG, dropped")
            block = exif_bytes(exif_directory(type(photo.metadata)(), software, record))
        options |= {"exif": block, "quality": quality, "subsampling": "4:4:4", "icc_profile": photo.profile}
        xmp = photo.metadata.xmp
        if xmp and len(xmp) <= _JPEG_SEGMENT:
            options["extra"] = _segment(b"http://ns.adobe.com/xap/1.0/\0" + xmp)
        elif xmp:
            notes.append("XMP too long for JPEG, dropped")
    elif fmt.name == "webp":
        options = {"exif": exif_bytes(directory), "quality": quality, "icc_profile": photo.profile or b""}
        options |= {"xmp": photo.metadata.xmp, "method": 4}
    return _saved(_image(photo), fmt.name.upper(), **options), notes


def check_size(size: tuple[int, int], fmt: Format) -> None:
    """Raise a SkipDiffError if the format cannot hold a picture of this width and height."""
    if max(size) > fmt.max_side:
        raise SkipDiffError(
            f"{size[0]}x{size[1]} does not fit {fmt.name.upper()} (at most {fmt.max_side} a side): "
            "use --format png"
        )


def fit_format(photo: Photo, fmt: Format) -> tuple[Photo, list[str]]:
    """The photograph as the format can hold it, and what that cost."""
    notes = []
    colour, alpha, profile = photo.colour, photo.alpha, photo.profile
    if alpha is not None and not fmt.alpha:
        white = np.iinfo(colour.dtype).max
        share = alpha[..., None] / white
        colour = np.rint(colour * share + white * (1 - share)).astype(colour.dtype)
        if (alpha < white).any():
            notes.append(
                f"transparency laid over white, as {fmt.name.upper()} has none: PNG, WebP and TIFF keep it"
            )
        alpha = None
    if photo.deep and not fmt.deep:
        colour = np.rint(colour / 257).astype(np.uint8)
        alpha = None if alpha is None else np.rint(alpha / 257).astype(np.uint8)
        notes.append(f"16 bits reduced to 8, all that {fmt.name.upper()} holds: PNG and TIFF keep them")
    grey = colour.shape[2] == 1
    if profile and (not fmt.baggage or (grey and not fmt.grey)):
        converted = np.array(to_srgb(Image.fromarray(colour[..., 0] if grey else colour), profile))
        if not np.array_equal(converted, np.broadcast_to(colour, converted.shape)):
            notes.append(f"colours converted to sRGB, as {fmt.name.upper()} cannot hold the profile")
        colour, profile = converted, None
    elif grey and (not fmt.grey or (colour.dtype == np.uint16 and alpha is not None)):
        colour = np.repeat(colour, 3, axis=2)  # OpenCV codes no 16-bit grey with alpha
        if profile:
            profile = None
            notes.append("grey profile dropped: at 16 bits with transparency the file has to be RGB")
    return replace(photo, colour=colour, alpha=alpha, profile=profile), notes


def _image(photo: Photo) -> Image.Image:
    """An 8-bit photograph as a Pillow image: L, LA, RGB or RGBA."""
    planes = [photo.colour] if photo.alpha is None else [photo.colour, photo.alpha[..., None]]
    pixels = np.concatenate(planes, axis=2)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _saved(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _deep_file(photo: Photo, suffix: str, *options: int) -> bytes:
    """A 16-bit photograph coded by OpenCV: pixels alone."""
    planes = [photo.colour[..., ::-1]]
    if photo.alpha is not None:
        planes.append(photo.alpha[..., None])
    good, data = cv2.imencode(suffix, np.ascontiguousarray(np.concatenate(planes, axis=2)), options)
    if not good:
        raise SkipDiffError("cannot be encoded at 16 bits: use another --format")
    return data.tobytes()


def _segment(payload: bytes) -> bytes:
    """A JPEG application segment (APP1)."""
    return b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload


def _within_png(photo: Photo, notes: list[str]) -> tuple[Photo, list[str]]:
    """The photograph without the texts that would make a PNG unreadable, see :mod:`.io`."""
    room, kept = PngImagePlugin.MAX_TEXT_MEMORY, photo.metadata
    if len(photo.profile or b"") > room:
        raise SkipDiffError(
            f"has a profile of more than {room >> 20} MB, too long for PNG: use --format tiff"
        )
    if len(kept.xmp) + sum(len(text.encode()) for text in kept.texts.values()) > room:
        photo = replace(photo, metadata=replace(kept, texts={}, xmp=b""))
        notes = [*notes, "XMP and texts too long for PNG, dropped"]
    return photo, notes


def _png(photo: Photo, directory: Mapping[int, Any], software: str) -> bytes:
    texts = PngImagePlugin.PngInfo()
    for key, value in {**photo.metadata.texts, "Software": software}.items():
        texts.add_itxt(key, value)
    if photo.metadata.xmp:
        texts.add_itxt("XML:com.adobe.xmp", photo.metadata.xmp.decode("utf-8", "replace"))
    options: dict[str, Any] = {"pnginfo": texts, "exif": exif_bytes(directory), "icc_profile": photo.profile}
    if photo.metadata.dpi:
        options["dpi"] = photo.metadata.dpi
    if not photo.deep:
        return _saved(_image(photo), "PNG", **options)
    # The chunks that Pillow puts around a 1x1 picture, around the pixels that OpenCV coded. Both begin
    # with 8 bytes of signature and 25 of IHDR; an IDAT chunk's length stands before its name.
    carrier, pixels = _saved(Image.new("RGB", (1, 1)), "PNG", **options), _deep_file(photo, ".png")
    return pixels[:33] + carrier[33 : carrier.index(b"IDAT") - 4] + pixels[pixels.index(b"IDAT") - 4 :]


def _tiff(photo: Photo, directory: Mapping[int, Any]) -> bytes:
    """Pixels coded by Pillow or OpenCV, in a file whose directory we write: neither takes all the tags."""
    if photo.deep:
        coded = _deep_file(photo, ".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 8)  # deflate
    else:
        coded = _saved(_image(photo), "TIFF", compression="tiff_adobe_deflate", tiffinfo={317: 2})
    with Image.open(BytesIO(coded)) as image:
        layout: TiffImagePlugin.ImageFileDirectory_v2 = image.tag_v2
        tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=layout.prefix)
        for tag, value in layout.items():
            tags.tagtype[tag] = layout.tagtype[tag]
            tags[tag] = value
        strips = [coded[start : start + count] for start, count in zip(layout[273], layout[279], strict=True)]
    # Pillow adds to the offsets where the directory ends, which is where the strips go
    tags[273] = tuple(int(n) for n in np.cumsum([0, *(len(s) for s in strips[:-1])]))
    if photo.alpha is not None:
        tags[338] = 2  # not premultiplied
    for tag, value in directory.items():
        tags[tag] = value
    if photo.profile:
        tags[ICC_TAG] = photo.profile
    if photo.metadata.xmp:
        tags[XMP_TAG] = photo.metadata.xmp
    if photo.metadata.dpi and 282 not in directory:
        tags[282], tags[283], tags[296] = *photo.metadata.dpi, 2  # inches
    buffer = BytesIO()
    tags.save(buffer)
    buffer.write(b"".join(strips))
    return buffer.getvalue()
