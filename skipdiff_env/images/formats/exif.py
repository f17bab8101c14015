"""Reads and writes EXIF and TIFF directories as they are in the file: tags, types and bytes.

The bytes are not interpreted, which keeps text in any alphabet, unusual types and makers' own tags unchanged.
In memory, all numbers are little-endian, whatever the file's byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate
from mmap import mmap
from typing import NamedTuple

ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7

_TYPES = {
    1: "1B", 2: "1s", 3: "1H", 4: "1I", 5: "2I", 6: "1b", 7: "1s", 8: "1h", 9: "1i", 10: "2i", 11: "1f",
    12: "1d", 13: "1I", 16: "1Q", 18: "1Q", 129: "1s",
}  # fmt: skip
"""Type → the number of numbers in one value, and their ``struct`` code. 16 and 18 are BigTIFF's own; 129
is EXIF 3's UTF-8."""
_SIZES = {kind: struct.calcsize("<" + code) for kind, code in _TYPES.items()}

EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
STRIP_OFFSETS = 273


class Value(NamedTuple):
    """The value of a tag."""

    type: int
    data: bytes
    """The bytes, little-endian; their number is a multiple of the type's size."""

    def numbers(self) -> tuple[float, ...]:
        """Return its numbers, rationals as quotients (NaN for division by zero); none if it holds text."""
        per_value, code = int(_TYPES[self.type][0]), _TYPES[self.type][1]
        if code == "s":
            return ()
        count = len(self.data) // struct.calcsize("<" + code)
        parts = struct.unpack(f"<{count}{code}", self.data)
        if per_value == 1:
            return parts
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return tuple(over / under if under else float("nan") for over, under in pairs)

    def text(self) -> bytes:
        """Return its bytes up to the first NUL."""
        return self.data.partition(b"\0")[0]


Directory = Mapping[int, Value]


class Directories(NamedTuple):
    """The directories of an EXIF block or a TIFF file."""

    base: Directory = {}
    exif: Directory = {}
    gps: Directory = {}
    interop: Directory = {}


def text(string: str) -> Value:
    """Return a text value, in UTF-8 if ASCII is not sufficient."""
    return Value(ASCII, string.encode() + b"\0")


def shorts(*numbers: int) -> Value:
    """Return a value of 16-bit integers."""
    return Value(SHORT, struct.pack(f"<{len(numbers)}H", *numbers))


def longs(*numbers: int) -> Value:
    """Return a value of 32-bit integers."""
    return Value(LONG, struct.pack(f"<{len(numbers)}I", *numbers))


def rationals(*numbers: float) -> Value:
    """Return a value of numbers from 0 to 2**32 − 1 as fractions, with as many digits as fit."""
    parts: list[int] = []
    for number in numbers:
        under = next(u for u in (1_000_000, 10_000, 100, 1) if number * u < 2**32)
        parts += [round(number * under), under]
    return Value(RATIONAL, struct.pack(f"<{len(parts)}I", *parts))


def parse(block: bytes | mmap, start: int | None = None) -> Directories:
    """Read the directories of an EXIF block or of a whole TIFF or BigTIFF file.

    Damaged entries are left out: values that lie outside the block, and unknown types.

    Args:
        block: the block or file.
        start: offset of the page, see :func:`pages`; None: the first page.
    """
    if block[:6] == b"Exif\0\0":
        block = block[6:]
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 16:
        return Directories()
    (version,) = struct.unpack_from(order + "H", block, 2)
    if version not in (42, 43):
        return Directories()
    big = version == 43
    if start is None:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), block, 8 if big else 4)
    base = _read_directory(block, start, order, big)
    exif = _below(block, base, EXIF_IFD, order, big)
    return Directories(
        base, exif, _below(block, base, GPS_IFD, order, big), _below(block, exif, INTEROP_IFD, order, big)
    )


def pages(block: bytes | mmap) -> list[int]:
    """List the offsets of the pages of a TIFF file, as far as their directories can be followed."""
    order = "<" if block[:2] == b"II" else ">"
    big = block[2:4] in (b"+\0", b"\0+")
    count_code, offset_code = (order + "Q", order + "Q") if big else (order + "H", order + "I")
    place, starts = (8 if big else 4), dict[int, None]()
    while place + struct.calcsize(offset_code) <= len(block):
        (start,) = struct.unpack_from(offset_code, block, place)
        if not start or start in starts or start + struct.calcsize(count_code) > len(block):
            break
        starts[start] = None
        (count,) = struct.unpack_from(count_code, block, start)
        place = start + struct.calcsize(count_code) + count * (4 + 2 * struct.calcsize(offset_code))
    return list(starts)


def _below(
    block: bytes | mmap, directory: dict[int, Value], tag: int, order: str, big: bool
) -> dict[int, Value]:
    """Read the directory that ``tag`` of ``directory`` points to, and remove the tag."""
    pointer = directory.pop(tag, Value(UNDEFINED, b""))
    numbers = pointer.numbers() if pointer.type in (LONG, 13, 16, 18) else ()
    return _read_directory(block, int(numbers[0]), order, big) if len(numbers) == 1 else {}


def _read_directory(block: bytes | mmap, start: int, order: str, big: bool) -> dict[int, Value]:
    count_code, offset_code = (order + "Q", order + "Q") if big else (order + "H", order + "I")
    room = struct.calcsize(offset_code)
    length = 4 + 2 * room
    found: dict[int, Value] = {}
    total = 0
    if start + struct.calcsize(count_code) > len(block):
        return found
    (count,) = struct.unpack_from(count_code, block, start)
    first = start + struct.calcsize(count_code)
    for entry in range(first, min(first + count * length, len(block) - length + 1), length):
        tag, kind = struct.unpack_from(order + "HH", block, entry)
        (values,) = struct.unpack_from(offset_code, block, entry + 4)
        size = _SIZES.get(kind, 0) * values
        where = entry + 4 + room
        if size > room:
            (where,) = struct.unpack_from(offset_code, block, where)
        total += size
        if total > len(block):  # overlapping values: damage, or a decompression bomb
            break
        if 0 < size <= len(block) - where:
            found.setdefault(tag, Value(kind, _little(block[where : where + size], kind, order)))
    return found


def _little(data: bytes, kind: int, order: str) -> bytes:
    """Return the same values in little-endian order."""
    code = _TYPES[kind][1]
    if order == "<" or code == "s":
        return data
    count = len(data) // struct.calcsize("<" + code)
    return struct.pack(f"<{count}{code}", *struct.unpack(f">{count}{code}", data))


def build(found: Directories, strips: Sequence[bytes] = ()) -> list[bytes]:
    """Build the pieces of a TIFF file or, without strips, of an EXIF block (without its "Exif" prefix).

    Pointers to sub-directories and strips are filled in. The same arguments give the same bytes.

    Raises:
        OverflowError: if the file would exceed TIFF's limit of 4 GB.
    """
    below = {tag: entries for tag, entries in ((EXIF_IFD, found.exif), (GPS_IFD, found.gps)) if entries}
    base = {**found.base, **{tag: longs(0) for tag in below}}
    if strips:
        base[STRIP_OFFSETS] = longs(*(0 for _ in strips))
    place = 8 + len(_directory_bytes(base, 8))
    pieces: list[bytes] = []
    for tag, entries in below.items():
        base[tag] = longs(place)
        pieces.append(_directory_bytes(entries, place))
        place += len(pieces[-1])
    if place + sum(map(len, strips)) >= 2**32:
        raise OverflowError("more than the 4 GB that a TIFF file can have")
    if strips:
        base[STRIP_OFFSETS] = longs(*accumulate(map(len, strips[:-1]), initial=place))
    return [b"II*\0\x08\0\0\0", _directory_bytes(base, 8), *pieces, *strips]


def _directory_bytes(directory: Directory, start: int) -> bytes:
    """Encode a directory at ``start``, followed by values that do not fit into it, to an even length."""
    directory = {tag: value for tag, value in directory.items() if value.type not in (16, 18)}
    table = struct.pack("<H", len(directory))
    behind = b""
    first = start + 2 + 12 * len(directory) + 4
    for tag, (kind, data) in sorted(directory.items()):
        field = data.ljust(4, b"\0")
        if len(data) > 4:
            field = struct.pack("<I", first + len(behind))
            behind += data + b"\0" * (len(data) % 2)
        table += struct.pack("<HHI", tag, kind, len(data) // _SIZES[kind]) + field
    return table + b"\0\0\0\0" + behind
