"""The one writer of tables, and of the reports that they stand in."""

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
"""Where every command writes, unless told otherwise."""
CONTENTS = "page.json"
"""What a folder's page says, for programs: see :func:`read_contents`."""


def basis(images: int, seeds: int) -> str:
    """What a report rests on, in words."""
    return f"{images} image{'s' * (images != 1)}, {seeds} noise seed{'s' * (seeds != 1)} each"


def paragraphs(*blocks: str | Table) -> str:
    """Text and tables below one another, without those that are empty."""
    found = (block if isinstance(block, str) else block.markdown() for block in blocks)
    return "\n\n".join(block for block in found if block) + "\n"


@dataclass(frozen=True)
class Report:
    """Tables with all that is to be said of them, in a file of their own."""

    name: str
    """Of the files."""
    title: str
    """Empty for none."""
    note: str
    """What the tables show, and the command that made them."""
    blocks: Sequence[str | Table]
    """Tables, and paragraphs between and below them; empty ones are left out."""
    data: Sequence[Sequence[Any]] = ()
    """The same for programs: lines of cells, the columns' names first."""
    basis: str = ""
    """How many images and noise seeds it rests on, where a page is to say so."""
    packed: bool = False
    """Whether the data are so many lines that their file is compressed."""

    @property
    def text(self) -> str:
        """Title, note and blocks as Markdown."""
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
    """What a folder's page says: ``bases`` of its reports by name, and what the page itself keeps there."""
    file = folder / CONTENTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write_contents(folder: Path, **changes: Any) -> None:
    """Change what a folder's page says."""
    text = json.dumps(read_contents(folder) | changes, indent=1, ensure_ascii=False)
    write_atomically(folder / CONTENTS, (text + "\n").encode())
