"""Decodes JPEG streams within other files; such streams share tables and do not specify their colours."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

_SCAN = 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_APPLICATIONS = {*range(0xE0, 0xF0), 0xFE}
"""Application segments and comments, which do not affect the pixels once the colour space is known."""


def decoded(
    stream: bytes, tables: bytes, size: tuple[int, int], channels: int, transformed: bool | None
) -> np.ndarray:
    """Decode a strip or tile to uint8 (H, W, channels); RGB if its colours were transformed.

    Args:
        stream: a JPEG stream, which may lack tables.
        tables: a stream that holds the tables; empty if there are none.
        size: width and height. The stream may have more rows.
        channels: 1, 3 or 4.
        transformed: whether three channels are YCbCr; None if it does not matter.

    Raises:
        ValueError, OSError: if the stream is damaged, or has another size or number of channels.
    """
    parts = [segment for segment, _ in _segments(tables)] if tables else []
    for segment, marker in _segments(stream):
        parts.append(segment)
        if marker in _FRAMES:
            height, width = (int.from_bytes(segment[at : at + 2], "big") for at in (5, 7))
            if width != size[0] or height < size[1] or segment[9] != channels:
                raise ValueError(f"a JPEG of an unexpected size, {width}x{height}x{segment[9]}")
    adobe = b""
    if transformed is not None:
        adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transformed])
    whole = b"\xff\xd8" + adobe + b"".join(parts)
    with Image.open(BytesIO(whole), formats=["JPEG"]) as image:
        image.load()
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
    if pixels.shape[2] != channels:
        raise ValueError(f"a JPEG with an unexpected number of channels, {pixels.shape[2]}")
    # the decoder treats four channels as Adobe's CMYK, which is inverted
    return 255 - pixels[: size[1]] if channels == 4 else pixels[: size[1]]


def _segments(stream: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the segments that affect the pixels, with their markers; scan and all that follows are one."""
    if stream[:2] != b"\xff\xd8":
        raise ValueError("a JPEG without a beginning")
    place = 2
    while place + 4 <= len(stream):
        marker = stream[place + 1]
        if stream[place] != 0xFF:
            raise ValueError("a JPEG without segments")
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == _SCAN:
            yield stream[place:], marker
            return
        length = 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
        if marker not in _APPLICATIONS:
            yield stream[place : place + length], marker
        place += length
