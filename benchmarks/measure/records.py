"""CSV files of dataclasses that grow by a line at a time and survive a kill."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion.pretrained import write_atomically

T = TypeVar("T")
_TYPES = {"str": str, "int": int, "float": float}


def columns(kind: type[Any]) -> tuple[str, ...]:
    """The names of a dataclass's fields, which are the file's columns."""
    return tuple(field.name for field in fields(kind))


def read(path: Path, kind: type[T]) -> list[T]:
    """Records of a CSV file; none if it is not there. A last line cut short by a kill is cut off.

    Args:
        path: the file.
        kind: a dataclass whose fields are str, int and float.

    Raises:
        SkipDiffError: if it is no file of such records.
    """
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        write_atomically(path, text.encode())
    lines = list(csv.reader(text.splitlines()))
    if lines and tuple(lines[0]) != columns(kind):
        raise SkipDiffError(f"{path} has other columns than this version writes: move it away")
    types = [_TYPES[str(field.type)] for field in fields(kind)]  # type: ignore[arg-type]
    try:
        return [kind(*(t(cell) for t, cell in zip(types, line, strict=True))) for line in lines[1:]]
    except ValueError as error:
        raise SkipDiffError(f"{path} holds a damaged row ({error}): remove that line") from None


def append(path: Path, record: Any) -> None:
    """Add a record in one piece, on disk before this returns; a new file begins with its columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    if not path.exists() or not path.stat().st_size:
        writer.writerow(columns(type(record)))
    writer.writerow(astuple(record))
    with path.open("ab") as file:
        file.write(lines.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())
