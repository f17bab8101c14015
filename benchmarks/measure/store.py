"""Rows: how good one sampler's result is on one image under one noise seed, kept in a CSV file.

A row is appended in one piece as soon as it is computed, and the same computation is never made twice:
its key holds all that decides the result. Rows of another device count where the precision is the same, so
that a laptop can finish, or draw again, what a GPU began: what the two compute differs by rounding. A page
says how many rows are whose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from .records import Scores, append, read

Key = tuple[str, str, str, int, str]
_COUNTED = ("evaluations", "start")


@dataclass(frozen=True)
class Row:
    """One image, one noise seed, one sampler."""

    model: str
    """The model's hash."""
    dtype: str
    """What the network computed in, and on what: ``float32 cpu``."""
    image: str
    """Name and content of the LR image."""
    seed: int
    sampler: str
    scores: Scores
    """By metric, see :data:`.metrics.METRICS`; a row may be older or younger than one of these."""
    evaluations: int
    """Network calls that the result would take on its own."""
    start: int
    """The fine level at which the walk that led to the result began; 0 where there was none."""

    @property
    def key(self) -> Key:
        """What makes a row the same computation."""
        return self.model, self.dtype, self.image, self.seed, self.sampler

    def value(self, column: str) -> float:
        """A score, ``evaluations`` or ``start``; NaN where the row has none."""
        return getattr(self, column) if column in _COUNTED else self.scores.get(column, math.nan)


class Store:
    """Rows by their keys, and the file behind them.

    Args:
        path: CSV file to read and to append to; None keeps rows in memory alone.

    Raises:
        SkipDiffError: if the file is of another kind.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: dict[Key, Row] = {}
        self._any_device: dict[Key, Row] = {}
        for row in read_rows(path) if path else ():
            self._keep(row)

    def find(self, key: Key) -> Row | None:
        """The row of a key, or one of the same precision from another device."""
        return self.rows.get(key) or self._any_device.get(_deviceless(key))

    def add(self, row: Row) -> None:
        """Keep a row, on disk before this returns."""
        self._keep(row)
        if self.path is not None:
            append(self.path, row)

    def _keep(self, row: Row) -> None:
        self.rows[row.key] = row
        self._any_device[_deviceless(row.key)] = row


def _deviceless(key: Key) -> Key:
    """``key`` with ``float32 cpu`` as ``float32``."""
    return key[0], key[1].partition(" ")[0], *key[2:]


def read_rows(path: Path) -> list[Row]:
    """Rows of a CSV file, see :func:`.records.read`."""
    return read(path, Row)
