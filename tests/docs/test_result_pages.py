"""Pages of results: each names the command that makes it, and shows the paper's figures where they belong."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import COMMANDS
from benchmarks.measure import docs
from benchmarks.measure.tables import RESULTS
from benchmarks.paper.published import CASES, FACES, NATURAL, OWN_SETS, REWARDS, STARTS, shown

ROOT = Path(__file__).parents[2]
PAGES = sorted(RESULTS.rglob("*.md"))
COMMAND = re.compile(r"`python -m benchmarks (?P<name>[\w-]+)(?P<rest> [^`]*)?`")
FIGURES = re.compile(r"\d+\.\d\d / 0\.\d{4} / \d+\.\d\d / 0\.\d{4}")
OWN = {
    "faces": [*FACES.values(), *(of for of, _ in CASES.values()), *STARTS.values(), *REWARDS.values()],
    "natural": [*NATURAL.values()],
}
"""The paper's figures by the set that they are of."""


def test_every_page_of_results_names_its_command():
    missing = [
        str(page.relative_to(ROOT))
        for page in PAGES
        if not COMMAND.search(text := page.read_text(encoding="utf-8"))
        and not re.search(r"^skipdiff train-\w+ ", text, re.MULTILINE)
    ]
    assert PAGES and not missing


def test_these_commands_are_understood():
    pytest.importorskip("sb3_contrib")
    texts = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name, rest in sorted({(m["name"], m["rest"] or "") for m in COMMAND.finditer(texts)}):
        parser = argparse.ArgumentParser(prog=f"{name}{rest}")
        importlib.import_module(f"benchmarks.{COMMANDS[name][0]}").add_arguments(parser)
        parser.parse_args(shlex.split(rest))


def belongs(figures: str, folder: Path) -> bool:
    """Whether some of the paper's figures are about the pictures that a folder's results are of."""
    own = OWN.get(OWN_SETS.get(folder.name, ""), []) if folder.parent.parent == RESULTS else []
    return figures in map(shown, own)


def test_the_paper_s_figures_stand_beside_their_own_set_alone():
    strays, found = [], 0
    for page in PAGES:
        for figures in FIGURES.findall(page.read_text(encoding="utf-8")):
            found += 1
            strays += [f"{page}: {figures}"] * (not belongs(figures, page.parent))
    for page in docs.documents():
        text = page.read_text(encoding="utf-8")
        for block in docs.BLOCK.finditer(text):
            folder = (ROOT / block["file"]).parent
            strays += [f"{page}: {f}" for f in FIGURES.findall(block[0]) if not belongs(f, folder)]
        strays += [f"{page}: {figures}" for figures in FIGURES.findall(docs.BLOCK.sub("", text))]
    assert found > 20 and not strays


def test_the_folder_stays_small():
    files = [file for file in RESULTS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 8 * 2**20


def test_the_tree_stays_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert sum(file.lstat().st_size for file in files if file.is_symlink() or file.exists()) < 100 * 2**20
