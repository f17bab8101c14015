"""CSV files of dataclasses, which grow by one line at a time and survive a kill.

A dataclass may have one field of the type :data:`Scores`, which stands for any number of columns. A file may
therefore come from a time with other columns: a record holds the scores that were measured, and columns that
nobody asks for are kept.

A file may be packed with ``gzip -9n``. Later records are then written to a file beside it.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from skipdiff_env import SkipDiffError
from skipdiff_env.files import write_atomically

T = TypeVar("T")
Scores = dict[str, float]
"""Numbers by the names of their columns."""
_TYPES = {"str": str, "int": int, "float": float}


def read(path: Path, kind: type[T]) -> list[T]:
    """Read the records of ``<path>.gz`` and of a CSV file; none if neither exists.

    A last line that was cut short by a kill is dropped.

    Args:
        path: the file.
        kind: a dataclass whose fields are str, int and float, and at most one Scores.

    Raises:
        SkipDiffError: if it is not a file of such records.
    """
    packed = packed_file(path)
    found = _records(packed, gzip.decompress(packed.read_bytes()).decode(), kind) if packed.is_file() else []
    if not path.is_file():
        return found
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        write_atomically(path, text.encode())
    return found + _records(path, text, kind)


def packed_file(path: Path) -> Path:
    """Return the packed form of a file."""
    return path.with_name(f"{path.name}.gz")


def _records(path: Path, text: str, kind: type[T]) -> list[T]:
    head, *lines = list(csv.reader(text.splitlines())) or [[]]
    types, scores = _columns(kind)
    others = [name for name in head if name not in types]
    if text and ({*types} - {*head} or (others and not scores)):
        raise SkipDiffError(f"{path} has other columns than this version writes: move it away")
    found = []
    try:
        for line in lines:
            cells = dict(zip(head, line, strict=True))
            values: dict[str, Any] = {name: convert(cells[name]) for name, convert in types.items()}
            if scores:
                values[scores] = {name: float(cells[name]) for name in others if cells[name]}
            found.append(kind(**values))
    except ValueError as error:
        raise SkipDiffError(f"{path} holds a damaged row ({error}): remove that line") from None
    return found


def append(path: Path, record: Any) -> None:
    """Add a record in one piece, which is on disk when this returns; a new file begins with its columns.

    If the record has scores without a column in the file, the file gets new columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = _cells(record)
    new = not path.exists() or not path.stat().st_size
    head = list(cells) if new else _widened(path, cells, type(record))
    lines = [head] * new + [[cells.get(name, "") for name in head]]
    with path.open("ab") as file:
        file.write(csv_text(lines).encode())
        file.flush()
        os.fsync(file.fileno())


def csv_text(lines: Sequence[Sequence[Any]]) -> str:
    """Format lines of cells as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _columns(kind: type[Any]) -> tuple[dict[str, Any], str]:
    """Return the types of the columns that are fields, and the name of the field of all others, if any."""
    types = {field.name: str(field.type) for field in fields(kind)}
    scores = next((name for name, given in types.items() if given == "Scores"), "")
    return {name: _TYPES[given] for name, given in types.items() if name != scores}, scores


def _cells(record: Any) -> dict[str, Any]:
    """Return the values of a record by column."""
    cells: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        cells |= value if isinstance(value, dict) else {field.name: value}
    return cells


def _widened(path: Path, cells: dict[str, Any], kind: type[Any]) -> list[str]:
    """Add empty columns that a file lacks after its scores; return its columns."""
    with path.open(encoding="utf-8", newline="") as file:
        head = next(csv.reader(file))
    missing = [name for name in cells if name not in head]
    if missing:
        names = [field.name for field in fields(kind)]
        behind = names[names.index(_columns(kind)[1]) + 1 :]
        at = head.index(behind[0]) if behind else len(head)
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        filled = [missing, *[[""] * len(missing)] * (len(lines) - 1)]
        lines = [[*line[:at], *more, *line[at:]] for line, more in zip(lines, filled, strict=True)]
        write_atomically(path, csv_text(lines).encode())
        head = lines[0]
    return head
