"""Runs the manual's tutorials and renders them as pages, with what they printed and drew.

    python -m benchmarks tutorials [NAME ...] [--check]

A tutorial is a script ``docs/tutorials/NAME.py``. Its docstring begins the page, and each part between
``# %%`` lines is text if it holds only comments, or else code. The page ``NAME.md`` in the same folder holds
text, code and output; pictures that the script saves also go there. ``--check`` runs nothing and reports the
pages that differ from their scripts. ``SKIPDIFF_TUTORIAL_MODEL`` names the model that the tutorials use
(by default, natural-4x).
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skipdiff_env.files import write_atomically

from .docs import ROOT

FOLDER = ROOT / "docs" / "tutorials"
CELL = re.compile(r"^# %%.*\n", re.MULTILINE)
OUTPUT = re.compile(r"^```text\n.*?^```\n\n", re.MULTILINE | re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="tutorials to run [all]")
    parser.add_argument(
        "--check", action="store_true", help="run nothing; exit with status 1 if a page is out of date"
    )


def run(args: argparse.Namespace) -> int:
    """Run the tutorials and write their pages, or check the pages."""
    old = False
    for script in scripts():
        if args.names and script.stem not in args.names:
            continue
        page = script.with_suffix(".md")
        if args.check:
            stale = not page.is_file() or without_output(page.read_text(encoding="utf-8")) != rendered(script)
            old |= stale
            if stale:
                print(f"old: {page.relative_to(ROOT)}")
        else:
            print(page.relative_to(ROOT), flush=True)
            write_atomically(page, executed(script).encode())
    return int(old)


def scripts() -> list[Path]:
    """List the scripts of the tutorials."""
    return sorted(FOLDER.glob("*.py"))


def cells(script: Path) -> list[tuple[str, bool]]:
    """Return the parts of a script in order, each with whether it is code."""
    source = script.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source))
    assert docstring, f"{script} has no docstring"
    found = [(docstring, False)]
    for part in CELL.split(source)[1:]:
        lines = part.strip("\n").splitlines()
        if all(line.startswith("#") or not line for line in lines):
            found.append(("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines), False))
        else:
            found.append(("\n".join(lines), True))
    return found


def rendered(script: Path, outputs: dict[int, str] | None = None) -> str:
    """Return the page of a script, with the output of each part."""
    blocks = []
    for number, (text, is_code) in enumerate(cells(script)):
        blocks.append(f"```python\n{text}\n```" if is_code else text)
        if printed := (outputs or {}).get(number, "").strip("\n"):
            blocks.append(f"```text\n{printed}\n```")
    return "\n\n".join(blocks) + "\n"


def without_output(page: str) -> str:
    """Return a page without its outputs."""
    return OUTPUT.sub("", page + "\n").rstrip("\n") + "\n"


def executed(script: Path, folder: Path = FOLDER) -> str:
    """Run a script in a folder, where it saves its pictures; return its page."""
    names: dict[str, Any] = {"__name__": "__main__"}
    outputs = {}
    with inside(folder):
        for number, (text, is_code) in enumerate(cells(script)):
            if is_code:
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(compile(text, str(script), "exec"), names)
                outputs[number] = printed.getvalue()
    return rendered(script, outputs)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Make a folder the working directory within a ``with`` block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
