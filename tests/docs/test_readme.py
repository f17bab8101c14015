"""README: its numbers stand in result files, its Python runs, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.measure import docs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", docs.documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_tables_are_those_of_the_result_files(path):
    text = path.read_text(encoding="utf-8")
    assert docs.filled(text) == text, "run: python -m benchmarks docs"


def test_every_table_with_numbers_is_such_a_block():
    outside = docs.BLOCK.sub("", README)
    assert not re.search(r"^\|.*\d\.\d.*\|$", outside, re.MULTILINE)


def test_a_stale_number_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    (tmp_path / "t.md").write_text("# T\n\n| a |\n|---|\n| 1 |\n\nmore\n")
    assert docs.filled("x\n<!-- table t.md -->\n| a |\n|---|\n| 2 |\n<!-- end -->\ny") == (
        "x\n<!-- table t.md -->\n| a |\n|---|\n| 1 |\n<!-- end -->\ny"
    )
    (tmp_path / "t.md").write_text("| a | b |\n|---|---|\n| x y | 1 |\n| z | 2 |\n| w | 3 |\n")
    assert "|---|---|\n| w | 3 |\n| x y | 1 |\n<!--" in docs.filled(
        "<!-- table t.md rows w; x y -->\n<!-- end -->"
    )
    with pytest.raises(docs.SkipDiffError, match="has no row 'v'"):
        docs.filled("<!-- table t.md rows w; v -->\n<!-- end -->")
    with pytest.raises(docs.SkipDiffError, match="u.md is missing"):
        docs.filled("<!-- table u.md -->\n<!-- end -->")


def test_python_examples_run(tmp_path, monkeypatch):
    """All of them, in order, in one namespace, as a reader would type them."""
    import numpy as np

    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert blocks
    rng = np.random.default_rng(0)
    names = {"lr": rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["out"].trace[0].evaluations == 16


PAGES = sorted(
    page
    for pattern in ("*.md", "pretrained/**/*.md", "benchmarks/results/**/*.md")
    for page in ROOT.glob(pattern)
)


def test_links_to_files_exist():
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|mailto:)([^)#]+)\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not missing


def test_it_is_short():
    assert len(README.encode()) <= 8192
