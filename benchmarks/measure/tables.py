"""Writes the reports of all commands, with their tables."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipdiff_agents.tables import Table
from skipdiff_env.files import write_atomically

from .records import csv_text

RESULTS = Path(__file__).parents[1] / "results"
"""The folder in which every command writes by default."""
CONTENTS = "page.json"
"""The file of what a folder's page says, for programs, see :func:`read_contents`."""


def basis(images: int, seeds: int) -> str:
    """State in words which data a report is based on."""
    return f"{images} image{'s' * (images != 1)}, {seeds} noise seed{'s' * (seeds != 1)} each"


def paragraphs(*blocks: str | Table) -> str:
    """Join text and tables as Markdown, without empty ones."""
    found = (block if isinstance(block, str) else block.markdown() for block in blocks)
    return "\n\n".join(block for block in found if block) + "\n"


@dataclass(frozen=True)
class Report:
    """Tables with their explanations, in a file of their own."""

    name: str
    """Name of the files."""
    title: str
    """Title of the report; empty: none."""
    note: str
    """Note on what the tables show, and on the command that made them."""
    blocks: Sequence[str | Table]
    """Tables, and paragraphs between and below them; empty ones are left out."""
    data: Sequence[Sequence[Any]] = ()
    """The same data for programs, as lines of cells; the first line holds the names of the columns."""
    basis: str = ""
    """Number of images and noise seeds that it is based on, if a page should state it."""
    packed: bool = False
    """Whether the file of the data is compressed, for very many lines."""

    @property
    def text(self) -> str:
        """The title, note and blocks as Markdown."""
        return paragraphs(f"# {self.title}" * bool(self.title), self.note, *self.blocks)

    def write(self, folder: Path) -> None:
        """Write ``<name>.md`` and, if there are data, ``<name>.csv`` or ``<name>.csv.gz``; make the folder if
        it is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{self.name}.md", self.text.encode())
        if self.data:
            lines = csv_text(self.data).encode()
            suffix, content = (".csv.gz", gzip.compress(lines, mtime=0)) if self.packed else (".csv", lines)
            write_atomically(folder / f"{self.name}{suffix}", content)
        if self.basis:
            write_contents(folder, bases={**read_contents(folder).get("bases", {}), self.name: self.basis})


def read_contents(folder: Path) -> dict[str, Any]:
    """Read what a folder's page says: ``bases`` of its reports by name, and what the page itself keeps."""
    file = folder / CONTENTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write_contents(folder: Path, **changes: Any) -> None:
    """Change what a folder's page says."""
    text = json.dumps(read_contents(folder) | changes, indent=1, ensure_ascii=False)
    write_atomically(folder / CONTENTS, (text + "\n").encode())
