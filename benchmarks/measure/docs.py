"""Copies result tables into README, manual and model cards, so that their numbers are those of the files.

    python -m benchmarks docs [--check]

A block ``<!-- table FILE -->`` … ``<!-- end -->`` is filled with the first table of FILE, a path from
the repository's root; ``<!-- table FILE rows A; B -->`` takes the rows alone that begin with these cells.
``--check`` only says which blocks differ from their files.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from skipdiff_env import SkipDiffError

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(<!-- table (?P<file>\S+)(?: rows (?P<rows>[^\n]+?))? -->\n).*?(<!-- end -->)", re.DOTALL
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments."""
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 if a block is old"
    )


def documents() -> list[Path]:
    """The files that may hold blocks."""
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "pretrained").glob("**/README.md")),
    ]


def first_table(path: Path, rows: str | None = None) -> str:
    """The first Markdown table of a file, or those of its rows that ``rows`` names, by their first cells.

    Raises:
        SkipDiffError: if the file is missing, holds none, or lacks a row.
    """
    if not path.is_file():
        raise SkipDiffError(f"{path} is missing: run the benchmark that writes it")
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith("|")), None)
    if begin is None:
        raise SkipDiffError(f"{path} holds no table")
    end = next((i for i in range(begin, len(lines)) if not lines[i].startswith("|")), len(lines))
    head, body = lines[begin : begin + 2], lines[begin + 2 : end]
    if rows is not None:
        by_name = {line.split("|")[1].strip(): line for line in body}
        wanted = [name.strip() for name in rows.split(";")]
        missing = [name for name in wanted if name not in by_name]
        if missing:
            raise SkipDiffError(f"{path} has no row {missing[0]!r}: name others, or run its benchmark")
        body = [by_name[name] for name in wanted]
    return "\n".join([*head, *body]) + "\n"


def filled(text: str) -> str:
    """``text`` with every block as its file has it."""

    def block(match: re.Match[str]) -> str:
        return match[1] + first_table(ROOT / match["file"], match["rows"]) + match[4]

    return BLOCK.sub(block, text)


def run(args: argparse.Namespace) -> int:
    """Fill the blocks, or check them."""
    old = [path for path in documents() if filled(text := path.read_text(encoding="utf-8")) != text]
    for path in old:
        print(f"{'old' if args.check else 'filled'}: {path.relative_to(ROOT)}")
        if not args.check:
            path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return int(args.check and bool(old))
