"""Keeps the figures in the README, the manual and the model cards equal to those in the result files.

    python -m benchmarks docs [--check]

Tables: a block ``<!-- table FILE -->`` … ``<!-- end -->`` is filled with the first table of FILE, a path from
the repository's root; ``<!-- table FILE rows A; B -->`` takes only the rows that begin with these cells.

Prose: a line that holds a figure (a number with a point or comma, or a percentage) ends with one or several
``<!-- from FILE -->``. Each of its figures must be a number in one of these files, rounded.
``<!-- from FILE lines A; B -->`` takes only the lines of FILE that contain these texts. A file of weights
stands for two numbers: its weights and its bytes, in millions.

``--check`` fills no block; it only reports blocks that differ from their files. Figures in prose are never
changed: the sentence around them may no longer hold, and has to be read again.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from pathlib import Path

from skipdiff_env import SkipDiffError
from skipdiff_env.files import write_atomically

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(<!-- table (?P<file>\S+)(?: rows (?P<rows>[^\n]+?))? -->\n).*?(<!-- end -->)", re.DOTALL
)
FROM = re.compile(r"<!-- from (?P<file>\S+)(?: lines (?P<lines>[^\n]+?))? -->")
UNREAD = re.compile(
    r"^```.*?^```|`[^`\n]*`|\]\([^)\n]*\)|\$[^$\n]+\$|^---$.*?^---$|https?://\S+"
    r"|\b(?:Python|torch|version|arXiv|CC BY(?:-SA)?) \d[\d.]*|(?<!\S)\d+\.\d+\.\d+"
    r"|95 % (?:bootstrap )?intervals?",
    re.DOTALL | re.MULTILINE,
)
"""Text without figures of results: code, link targets, formulas, a page's header, versions of software and
licences, and the widths of intervals."""
FIGURE = re.compile(r"(?<![\w.,])(?:\d+\.\d+|\d{1,3}(?:,\d{3})+|\d+(?= ?%| per cent))(?![\w.]*\w)")
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing; exit with status 1 if a block or a figure is out of date",
    )


def documents() -> list[Path]:
    """List the files that may hold blocks and figures."""
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "pretrained").glob("**/README.md")),
    ]


def first_table(path: Path, rows: str | None = None) -> str:
    """Return the first Markdown table of a file, or those of its rows that begin with the cells in ``rows``.

    Raises:
        SkipDiffError: if the file is missing, holds no table, or lacks a row.
    """
    lines = _text(path).splitlines()
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
    """Return ``text`` with every block filled from its file."""

    def block(match: re.Match[str]) -> str:
        return match[1] + first_table(ROOT / match["file"], match["rows"]) + match[4]

    return BLOCK.sub(block, text)


def figures(text: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Yield each figure in prose, with the files, and the texts of their lines, that its line names."""
    prose = UNREAD.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), BLOCK.sub("", text))
    for line in prose.splitlines():
        named = [(match["file"], match["lines"]) for match in FROM.finditer(line)]
        for match in FIGURE.finditer(FROM.sub("", line)):
            yield match[0], named


def astray(text: str) -> list[str]:
    """List the figures in prose whose line names no file, or which are not in the files that it names.

    Raises:
        SkipDiffError: if one of these files is missing, or has no such line.
    """
    found = []
    for figure, named in figures(text):
        digits, plain = len(figure.partition(".")[2]), figure.replace(",", "")
        known = (number for file, lines in named for number in numbers(ROOT / file, lines))
        if not named:
            found.append(f"{figure} names no file")
        elif not any(f"{number:.{digits}f}" == plain for number in known):
            found.append(f"{figure} is not in {', '.join(file for file, _ in named)}")
    return found


def numbers(path: Path, lines: str | None = None) -> Iterator[float]:
    """Yield the numbers in a file, or in its lines that contain one of the texts, without their signs.

    Raises:
        SkipDiffError: if the file is missing, or no line contains one of them.
    """
    if path.suffix == ".safetensors":
        yield from _weights(path)
        return
    text = _text(path)
    for part in lines.split(";") if lines else []:
        if part.strip() not in text:
            raise SkipDiffError(f"{path} has no line with {part.strip()!r}")
    for line in text.splitlines():
        if not lines or any(part.strip() in line for part in lines.split(";")):
            yield from (float(match[0].replace(",", "")) for match in NUMBER.finditer(line))


def _weights(path: Path) -> Iterator[float]:
    """Yield the number of weights and of bytes, in millions."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    yield sum(math.prod(shape) for shape in shapes) / 1e6
    yield path.stat().st_size / 1e6


def _text(path: Path) -> str:
    if not path.is_file():
        raise SkipDiffError(f"{path} is missing: run the benchmark that writes it")
    return path.read_text(encoding="utf-8")


def run(args: argparse.Namespace) -> int:
    """Fill or check the blocks, and check the figures in prose."""
    wrong = False
    for path in documents():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        new = filled(text)
        if new != text:
            print(f"{'old' if args.check else 'filled'}: {name}")
            wrong |= args.check
            if not args.check:
                write_atomically(path, new.encode())
        for message in astray(text):
            print(f"{name}: {message}")
            wrong = True
    return int(wrong)
