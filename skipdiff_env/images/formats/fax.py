"""Decodes the fax codes of TIFF: ITU-T T.4 (Group 3, in one and two dimensions) and T.6 (Group 4).

A row is described by its *changes*: the columns, in rising order, at which the colour changes, first from
white to black. Codes that cannot be read are errors: unlike fax machines, the decoder does not guess.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import numpy as np

CODES = (2, 3, 4)
"""TIFF's numbers for these compressions: T.4's one-dimensional codes without end-of-line codes, T.4, T.6."""

# Codes of the runs 0 … 63, of 64, 128 … 1728, and of 1792, 1856 … 2560, which both colours share.
_WHITE = """
00110101 000111 0111 1000 1011 1100 1110 1111 10011 10100 00111 01000 001000 000011 110100 110101 101010
101011 0100111 0001100 0001000 0010111 0000011 0000100 0101000 0101011 0010011 0100100 0011000 00000010
00000011 00011010 00011011 00010010 00010011 00010100 00010101 00010110 00010111 00101000 00101001 00101010
00101011 00101100 00101101 00000100 00000101 00001010 00001011 01010010 01010011 01010100 01010101 00100100
00100101 01011000 01011001 01011010 01011011 01001010 01001011 00110010 00110011 00110100 11011 10010 010111
0110111 00110110 00110111 01100100 01100101 01101000 01100111 011001100 011001101 011010010 011010011
011010100 011010101 011010110 011010111 011011000 011011001 011011010 011011011 010011000 010011001 010011010
011000 010011011
"""
_BLACK = """
0000110111 010 11 10 011 0011 0010 00011 000101 000100 0000100 0000101 0000111 00000100 00000111 000011000
0000010111 0000011000 0000001000 00001100111 00001101000 00001101100 00000110111 00000101000 00000010111
00000011000 000011001010 000011001011 000011001100 000011001101 000001101000 000001101001 000001101010
000001101011 000011010010 000011010011 000011010100 000011010101 000011010110 000011010111 000001101100
000001101101 000011011010 000011011011 000001010100 000001010101 000001010110 000001010111 000001100100
000001100101 000001010010 000001010011 000000100100 000000110111 000000111000 000000100111 000000101000
000001011000 000001011001 000000101011 000000101100 000001011010 000001100110 000001100111 0000001111
000011001000 000011001001 000001011011 000000110011 000000110100 000000110101 0000001101100 0000001101101
0000001001010 0000001001011 0000001001100 0000001001101 0000001110010 0000001110011 0000001110100
0000001110101 0000001110110 0000001110111 0000001010010 0000001010011 0000001010100 0000001010101
0000001011010 0000001011011 0000001100100 0000001100101
"""
_LONG = """
00000001000 00000001100 00000001101 000000010010 000000010011 000000010100 000000010101 000000010110
000000010111 000000011100 000000011101 000000011110 000000011111
"""
_PASS, _HORIZONTAL = "pass", "horizontal"
_MODES: dict[str, int | str] = {
    "0001": _PASS, "001": _HORIZONTAL, "1": 0, "011": 1, "000011": 2, "0000011": 3, "010": -1, "000010": -2,
    "0000010": -3,
}  # fmt: skip
"""Codes of a row in two dimensions; a number is the offset of a change to the right of the one above it."""

_LONGEST = 13
_ZEROS = 11
"""Minimum number of zeros that, with a one after them, end a row."""

_Entry = tuple[int, int | str] | None


def _table(codes: Mapping[str, int | str]) -> list[_Entry]:
    """Tabulate length and meaning of the code at the start of each value of the next ``_LONGEST`` bits."""
    found: list[_Entry] = [None] * 2**_LONGEST
    for code, meaning in codes.items():
        rest = _LONGEST - len(code)
        first = int(code, 2) << rest
        found[first : first + 2**rest] = [(len(code), meaning)] * 2**rest
    return found


def _run_table(codes: str) -> list[_Entry]:
    lengths: list[int | str] = [*range(64), *range(64, 1729, 64), *range(1792, 2561, 64)]
    return _table(dict(zip((codes + _LONG).split(), lengths, strict=True)))


_RUNS = _run_table(_WHITE), _run_table(_BLACK)
_MODE = _table(_MODES)


def unpacked(data: bytes, compression: int, rows: int, width: int, two_dimensional: bool) -> bytes:
    """Decode a strip or tile. In the result, each row begins with a new byte, and black pixels are 1.

    Args:
        data: the codes, the highest bit first.
        compression: one of :data:`CODES`.
        rows: number of rows of the strip or tile.
        width: width of the strip or tile in pixels.
        two_dimensional: whether T.4's rows may refer to those above them.

    Raises:
        ValueError: if a code is invalid or missing, or leads backwards or beyond the end of the row.
    """
    reader = _Reader(data, width)
    turns = np.zeros((rows, width + 1), np.uint8)
    changes: list[int] = []
    for row in turns:
        try:
            if compression == 4:
                changes = reader.in_two_dimensions(changes)
            elif compression == 2:
                changes = reader.in_one_dimension()
                reader.place += -reader.place % 8
            elif reader.starts_alone(two_dimensional):
                changes = reader.in_one_dimension()
            else:
                changes = reader.in_two_dimensions(changes)
        except IndexError:
            raise ValueError("fax codes end too early") from None
        row[changes] = 1
    return np.packbits(np.bitwise_xor.accumulate(turns, axis=1)[:, :width], axis=1).tobytes()


class _Reader:
    """Reads codes row by row."""

    def __init__(self, data: bytes, width: int) -> None:
        bytes_ = np.frombuffer(data + b"\0\0", np.uint8).astype(np.uint32)
        self._words = array("I", (bytes_[:-2] << 16 | bytes_[1:-1] << 8 | bytes_[2:]).tobytes())
        self._width = width
        self.place = 0
        """Position of the next bit."""

    def starts_alone(self, two_dimensional: bool) -> bool:
        """Skip the end of the last row; return whether the next row is coded without reference to it."""
        while not self._next(_ZEROS):
            while not self._next(1):
                self.place += 1
            self.place += 1
            alone = not two_dimensional or bool(self._next(1))
            self.place += two_dimensional
            if self._next(_ZEROS):
                return alone
        if two_dimensional:
            raise ValueError("a fax row without a beginning")
        return True

    def in_one_dimension(self) -> list[int]:
        """Read the changes of a row that is coded by itself."""
        changes: list[int] = []
        column, colour = 0, 0
        while column < self._width:
            column += self._run(colour)
            self._change(changes, column)
            colour ^= 1
        return _inside(changes, self._width)

    def in_two_dimensions(self, above: Sequence[int]) -> list[int]:
        """Read the changes of a row that refers to the one above it."""
        width = self._width
        above = [*above, width, width, width]
        changes: list[int] = []
        column, colour, number = -1, 0, 0
        while column < width:
            while above[number] <= column and above[number] < width:
                number += 2
            mode = self._code(_MODE)
            if mode == _PASS:
                column = above[number + 1]
            elif mode == _HORIZONTAL:
                column = max(column, 0)
                for side in (colour, colour ^ 1):
                    column += self._run(side)
                    self._change(changes, column)
            else:
                assert isinstance(mode, int)
                if above[number] + mode < max(column, 0):
                    raise ValueError("fax codes that run backwards")
                column = above[number] + mode
                self._change(changes, column)
                colour ^= 1
                number += -1 if number else 1
        return _inside(changes, width)

    def _change(self, changes: list[int], column: int) -> None:
        """Add a change; a second one at the same column cancels the first."""
        if column > self._width:
            raise ValueError("fax codes longer than a row")
        if changes and changes[-1] == column:
            changes.pop()
        else:
            changes.append(column)

    def _run(self, colour: int) -> int:
        """Read the length of the next run."""
        length, part = 0, 64
        while part >= 64:
            found = self._code(_RUNS[colour])
            assert isinstance(found, int)
            part = found
            length += part
        return length

    def _code(self, table: list[_Entry]) -> int | str:
        found = table[self._next(_LONGEST)]
        if found is None:
            raise ValueError("an invalid fax code")
        self.place += found[0]
        return found[1]

    def _next(self, count: int) -> int:
        """Return the next ``count`` bits, without moving on; zeros follow the last bit."""
        word = self._words[self.place >> 3]
        return (word >> (24 - count - (self.place & 7))) & ((1 << count) - 1)


def _inside(changes: list[int], width: int) -> list[int]:
    return changes[:-1] if changes and changes[-1] == width else changes
