"""Keeps rows in a CSV file: the quality of one sampler's result on one image under one noise seed.

A row is appended in one piece as soon as it is computed, and no computation is repeated: the key of a row
holds everything that determines the result. Rows from another device count if the precision is the same,
since the results differ only by rounding. A laptop can therefore finish, or draw again, what a GPU began. A
page states how many rows come from each device.
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
    """The result of one sampler on one image under one noise seed."""

    model: str
    """The model's hash."""
    dtype: str
    """Precision and device of the network: ``float32 cpu``."""
    image: str
    """Name and content of the LR image."""
    seed: int
    sampler: str
    scores: Scores
    """Scores by metric, see :data:`.metrics.METRICS`; a row need not have all of these metrics."""
    evaluations: int
    """Number of network calls that the result alone would take."""
    start: int
    """The fine level at which the walk to the result began; 0 if there was no walk."""

    @property
    def key(self) -> Key:
        """Everything that identifies the computation of a row."""
        return self.model, self.dtype, self.image, self.seed, self.sampler

    def value(self, column: str) -> float:
        """Return a score, ``evaluations`` or ``start``; NaN if the row has none."""
        return getattr(self, column) if column in _COUNTED else self.scores.get(column, math.nan)


class Store:
    """Rows by their keys, and the file that holds them.

    Args:
        path: CSV file to read and to append to; None: rows are kept only in memory.

    Raises:
        SkipDiffError: if the file is not a file of rows.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: dict[Key, Row] = {}
        self._any_device: dict[Key, Row] = {}
        for row in read_rows(path) if path else ():
            self._keep(row)

    def find(self, key: Key) -> Row | None:
        """Return the row of a key, or one of the same precision from another device."""
        return self.rows.get(key) or self._any_device.get(_deviceless(key))

    def add(self, row: Row) -> None:
        """Keep a row, which is on disk when this returns."""
        self._keep(row)
        if self.path is not None:
            append(self.path, row)

    def _keep(self, row: Row) -> None:
        self.rows[row.key] = row
        self._any_device[_deviceless(row.key)] = row


def _deviceless(key: Key) -> Key:
    """Return ``key`` with ``float32 cpu`` shortened to ``float32``."""
    return key[0], key[1].partition(" ")[0], *key[2:]


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a CSV file, see :func:`.records.read`."""
    return read(path, Row)
