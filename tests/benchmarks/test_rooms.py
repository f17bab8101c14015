"""The rooms of the benchmarks and their order."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import benchmarks

ROOT = Path(benchmarks.__file__).parent
BELOW = {
    "measure": set(),
    "speed": {"measure"},
    "agents": {"measure"},
    "restore": {"measure"},
    "training": {"measure"},
    "paper": {"measure", "speed"},
}
"""Which rooms a room may use."""


def used(file: Path) -> set[str]:
    """Other rooms that a file imports from, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 2:
                names = [module] if module else [alias.name for alias in node.names]
            else:
                names = [module.removeprefix("benchmarks.")] if module.startswith("benchmarks.") else []
            found |= {name.partition(".")[0] for name in names}
        elif isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            found |= {part[1] for part in parts if part[0] == "benchmarks" and len(part) > 1}
    return found - {file.parent.name}


def test_every_room_has_its_place():
    assert {folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").is_file()} == {*BELOW}
    assert {file.name for file in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("room", BELOW)
def test_rooms_use_those_below_them(room):
    for file in (ROOT / room).glob("*.py"):
        assert used(file) <= BELOW[room], file.name
    assert room == "measure" or any("measure" in used(file) for file in (ROOT / room).glob("*.py"))
