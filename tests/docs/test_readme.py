"""README: its numbers stand in result files, its Python runs, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.measure import docs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", docs.documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_tables_are_those_of_the_result_files(path):
    text = path.read_text(encoding="utf-8")
    assert docs.filled(text) == text, "run: python -m benchmarks docs"


YET_TO_NAME = {
    ROOT / "pretrained" / "addsr-natural-4x" / "README.md",
    ROOT / "pretrained" / "ccsr-natural-4x" / "README.md",
}
"""Documents whose prose has figures that name no file so far; what they do name is checked."""


@pytest.mark.parametrize("path", docs.documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_figures_of_prose_are_those_of_files(path):
    wrong = docs.astray(path.read_text(encoding="utf-8"))
    if path in YET_TO_NAME:
        assert any("names no file" in message for message in wrong), "take it off the list"
        wrong = [message for message in wrong if "names no file" not in message]
    assert not wrong, "read the sentence again, and mend it"


def test_a_figure_that_is_not_in_its_file_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    (tmp_path / "a.md").write_text("| x | 25.934 [−1.26%] |\n| y | 17,799 | 3e-4 |\n")
    (tmp_path / "b.csv").write_text("z,0.2000123\n")
    assert docs.astray("It gains 25.93 dB, or 1.3 %. <!-- from a.md -->") == []
    assert docs.astray("1.3 per cent <!-- from a.md lines | x | --> and 2 runs") == []
    assert docs.astray("0.20 of 17,799 <!-- from a.md --><!-- from b.csv -->") == []
    assert docs.astray("0.0003 <!-- from a.md lines | x; | y -->") == []
    assert docs.astray("Gains 25.94 dB <!-- from a.md -->") == ["25.94 is not in a.md"]
    assert docs.astray("17,799 <!-- from a.md lines | x | -->") == ["17,799 is not in a.md"]
    assert docs.astray("- 0.5 here\n- and 1.26 <!-- from a.md -->") == ["0.5 names no file"]
    assert docs.astray("12 % of it") == ["12 names no file"]
    unread = "`0.5` [0.5](0.5.md) $0.5$ Python 3.10, 0.1.0, 95 % intervals\n```\n0.7\n```\n12 runs, 1 000"
    assert docs.astray(unread) == ["0.5 names no file"]  # the text of the link
    assert docs.astray("<!-- table a.md -->\n| 0.5 |\n<!-- end -->") == []
    for missing, said in (("c.md", "c.md is missing"), ("a.md lines w", "has no line with 'w'")):
        with pytest.raises(docs.SkipDiffError, match=said):
            docs.astray(f"0.5 <!-- from {missing} -->")


def test_weights_count_in_millions(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    monkeypatch.setattr(docs, "ROOT", tmp_path)
    save_file({"a": np.zeros((1000, 600), np.float16)}, tmp_path / "m.safetensors")
    assert docs.astray("0.6 M weights, 1.20 MB <!-- from m.safetensors -->") == []
    assert docs.astray("0.7 M weights <!-- from m.safetensors -->") == ["0.7 is not in m.safetensors"]


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
