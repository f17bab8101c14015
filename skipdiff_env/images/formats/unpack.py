"""Unpacks TIFF's lossless codes into bytes and integers, never more than requested; fewer are an error."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator

import numpy as np

COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32773: "PackBits", 32946: "deflate", 34925: "LZMA"}
"""TIFF's numbers for the compressions that :func:`unpacked` knows."""

PREDICTED = {5, 8, 32946, 34925}
"""Compressions for which all programs interpret TIFF's predictor in the same way."""

REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits in reverse order, for ``bytes.translate``."""

_CLEAR, _END, _FIRST = 256, 257, 258

_AT_ONCE = 2**22
"""Number of bits that are unpacked at once."""


def unpacked(data: bytes, compression: int, size: int) -> bytes:
    """Return the first ``size`` bytes of the unpacked data.

    Raises:
        ValueError, zlib.error, lzma.LZMAError: if the data is damaged or ends too early.
    """
    if compression == 1:
        found = data
    elif compression in (8, 32946):
        found = zlib.decompressobj().decompress(data, size + 1)  # one more, so that the checksum is verified
    elif compression == 34925:
        found = lzma.LZMADecompressor().decompress(data, size + 1)
    else:
        found = bytes((_packbits if compression == 32773 else _lzw)(data, size))
    if len(found) < size:
        raise ValueError("packed data ends too early")
    return found[:size]


def _packbits(data: bytes, size: int) -> bytearray:
    """Unpack Apple's run lengths (TIFF 6.0, section 9)."""
    found = bytearray()
    place = 0
    while len(found) < size and place < len(data):
        count = data[place]
        if count < 128:
            found += data[place + 1 : place + 2 + count]
            place += 2 + count
        else:
            found += data[place + 1 : place + 2] * (257 - count if count > 128 else 0)
            place += 2 if count > 128 else 1
    return found


def _lzw(data: bytes, size: int) -> bytearray:
    """Unpack LZW as in TIFF 6.0 (section 13): codes of 9 to 12 bits, the highest bit first.

    The string of a code has been written before: that of the table's entry i begins where the output of the
    i-th code since the table was cleared began, and is one byte longer than that output.
    """
    found = bytearray()
    for codes in _periods(data):
        starts: list[int] = []
        lengths: list[int] = []
        for code in codes:
            place, length = len(found), 1
            if code < _CLEAR:
                found.append(code)
            elif code - _FIRST < len(starts):
                start, length = starts[code - _FIRST], lengths[code - _FIRST] + 1
                found += found[start : start + length]
                if start + length > place:  # its last byte is the first of what it writes
                    found.append(found[place])
            else:
                raise ValueError("an invalid LZW code")
            starts.append(place)
            lengths.append(length)
        if len(found) >= size:
            break
    return found


def _widths() -> np.ndarray:
    """Return the widths in bits of the codes after a clear code; they grow one code before necessary."""
    entries = _FIRST + np.maximum(np.arange(4097 - _FIRST) - 1, 0)
    return np.select([entries < 511, entries < 1023, entries < 2047], [9, 10, 11], 12)


_WIDTHS = _widths()
_ENDS = np.cumsum(_WIDTHS)


def _periods(data: bytes) -> Iterator[list[int]]:
    """Yield the codes between one clearing of the table and the next."""
    padded = np.frombuffer(data + b"\0" * 4, np.uint8).astype(np.uint32)
    bit, last = 0, 8 * len(data)
    if last < 9 or (data[0] << 1 | data[1] >> 7) != _CLEAR:
        raise ValueError("LZW data that does not begin with TIFF's clear code")
    while bit + 9 <= last:
        ends = bit + _ENDS[: np.searchsorted(_ENDS, last - bit, side="right")]
        starts = ends - _WIDTHS[: len(ends)]
        byte = starts >> 3
        words = padded[byte] << 24 | padded[byte + 1] << 16 | padded[byte + 2] << 8 | padded[byte + 3]
        codes = words >> (32 - (starts & 7) - _WIDTHS[: len(ends)]) & (1 << _WIDTHS[: len(ends)]) - 1
        stops = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        if not len(stops):
            yield codes.tolist()
            return
        yield codes[: stops[0]].tolist()
        if codes[stops[0]] == _END:
            return
        bit = int(ends[stops[0]])


def integers(data: bytes, rows: int, count: int, bits: int, order: str) -> np.ndarray:
    """Unpack (rows, count) unsigned integers of 1 … 16 bits, highest bit first. Each row starts a new byte.

    Args:
        data: rows * ceil(count * bits / 8) bytes.
        rows: number of rows.
        count: number of integers in a row.
        bits: number of bits of each integer.
        order: byte order of 16-bit integers, ``<`` or ``>``.
    """
    if bits in (8, 16):
        found = np.frombuffer(data, f"{order}u{bits // 8}").reshape(rows, count)
        return found.astype(np.uint8 if bits == 8 else np.uint16)
    packed = np.frombuffer(data, np.uint8).reshape(rows, -1)
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint16)
    found = np.empty((rows, count), np.uint8 if bits < 8 else np.uint16)
    step = max(1, _AT_ONCE // (count * bits))
    for top in range(0, rows, step):
        spread = np.unpackbits(packed[top : top + step], axis=1, count=count * bits)
        found[top : top + step] = spread.reshape(-1, count, bits) @ weights
    return found
