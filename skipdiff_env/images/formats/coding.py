"""How strongly a file was compressed, according to its header: JPEG's tables, WebP's quantiser.

Both are converted to the quality setting of libjpeg or libwebp, 1 … 100.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin

_JPEG_ANNEX_K = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip
"""The luminance table of ITU-T T.81, Annex K, by vertical and horizontal frequency: quality 50."""
_SAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_KEY_FRAME = b"\x9d\x01\x2a"
"""The start code of VP8's key frames, which follows their first three bytes."""
_FRAME_HEADER, _ANIMATION_HEADER = 1024, 16
"""Number of bytes to read at the start of a frame, whose first hundred include the quantiser, and number of
bytes before the chunks of an animation frame."""


@dataclass(frozen=True)
class Coding:
    """A lossy coder and its strength."""

    name: str
    """``JPEG`` or ``WebP``."""
    quality: int | None
    """1 … 100, on the scale of libjpeg or libwebp; None for a former WebP, whose pixels do not reveal it."""
    chroma: str = "4:2:0"
    """Chroma subsampling, ``4:4:4`` or coarser; empty if unknown."""

    def __str__(self) -> str:
        return f"a lossy {self.name}" if self.quality is None else f"{self.name} quality {self.quality}"

    def below(self, quality: float) -> bool:
        """Return whether the quality is known to be lower than this."""
        return self.quality is not None and self.quality < quality


def luminance_table(quality: int) -> np.ndarray:
    """Return libjpeg's quantisation steps for luminance at a quality of 1 … 100, int (8, 8)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_JPEG_ANNEX_K * scale + 50) // 100, 1, 255)


def table_quality(table: np.ndarray) -> int:
    """Return the quality whose luminance table in libjpeg is nearest to ``table``, (8, 8), in mean log ratio.

    The result is exact for libjpeg's own tables; cameras and other programs have tables of other shapes.
    """
    steps = np.log(np.maximum(table, 1))
    return min(range(1, 101), key=lambda q: float(np.abs(steps - np.log(luminance_table(q))).sum()))


def coding_of(image: Image.Image, file: BinaryIO) -> Coding | None:
    """Read the coding of an opened JPEG or WebP from its header; None for a lossless WebP or another file."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and getattr(image, "quantization", None):
        table = np.reshape(image.quantization[min(image.quantization)], (8, 8))
        chroma = _SAMPLING.get(JpegImagePlugin.get_sampling(image), "") if len(image.layer) == 3 else ""
        return Coding("JPEG", table_quality(table), chroma)
    if image.format == "WEBP":
        index = _webp_quantiser(file)
        return None if index is None else Coding("WebP", webp_quality(index))
    return None


def webp_quality(quantiser: float) -> int:
    """Return libwebp's quality for VP8's quantiser index, 0 … 127.

    This inverts libwebp's rule: the index is 127 · (1 - ∛c), where q is the quality (0 … 1), and c is 2/3 · q
    if q is below 0.75, else 2 · q - 1.
    """
    linear = (1 - quantiser / 127) ** 3
    quality = 1.5 * linear if linear < 0.5 else (linear + 1) / 2
    return int(np.clip(round(100 * quality), 1, 100))


def _webp_quantiser(file: BinaryIO) -> float | None:
    """Return the mean quantiser index of a WebP's first frame; None if that is lossless."""
    frame = _webp_frame(file)
    return _quantiser(_Bits(frame[10:])) if frame[3:6] == _KEY_FRAME else None


def _webp_frame(file: BinaryIO) -> bytes:
    """Find the first bytes of a WebP's first frame, if it is lossy, by the lengths of RIFF's chunks."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        if kind in (b"VP8 ", b"VP8L"):
            return file.read(min(length, _FRAME_HEADER)) if kind == b"VP8 " else b""
        # An animation frame holds chunks of its own; other chunks are padded to an even length.
        file.seek(_ANIMATION_HEADER if kind == b"ANMF" else length + length % 2, os.SEEK_CUR)
    return b""


class _Bits:
    """VP8's Boolean decoder (RFC 6386, section 7.3) for bits that are equally likely to be 0 and 1."""

    def __init__(self, data: bytes) -> None:
        self._data, self._next = data, 2
        self._value, self._range, self._shifts = int.from_bytes(data[:2].ljust(2, b"\0"), "big"), 255, 0

    def read(self, count: int) -> int:
        """Return the next ``count`` bits as a number."""
        number = 0
        for _ in range(count):
            number = 2 * number + self._bit()
        return number

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) * 128 >> 8)
        found = self._value >= split << 8
        if found:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifts += 1
            if self._shifts == 8:
                self._shifts = 0
                self._value |= self._data[self._next] if self._next < len(self._data) else 0
                self._next += 1
        return int(found)

    def signed(self, count: int) -> int:
        """Return an optional number (0 if it is left out), which is followed by its sign."""
        if not self.read(1):
            return 0
        number = self.read(count)
        return -number if self.read(1) else number


def _quantiser(bits: _Bits) -> float:
    """Return the frame's quantiser index, or the mean of its segments' (RFC 6386, sections 9.2 to 9.6)."""
    bits.read(2)  # colour space, clamping
    segments, absolute = [0], False
    if bits.read(1):
        new_map, new_data = bits.read(1), bits.read(1)
        if new_data:
            absolute = bool(bits.read(1))
            segments = [bits.signed(7) for _ in range(4)]
            for _ in range(4):
                bits.signed(6)  # loop filter
        if new_map:
            for _ in range(3):
                bits.read(1) and bits.read(8)
    bits.read(10)  # loop filter: kind, level, sharpness
    if bits.read(1) and bits.read(1):
        for _ in range(8):
            bits.signed(6)
    bits.read(2)  # partitions
    base = bits.read(7)
    return float(np.mean([index if absolute else base + index for index in segments]))
