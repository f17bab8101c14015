"""What people come with: each question is answered under a heading, at most two links from the first page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIRST = ROOT / "docs" / "index.md"
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#:\s]+\.md)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

ANSWERS = {
    "how to enlarge a folder": ("folder", r"skipdiff upscale \S+/ -o \S+/"),
    "what a skip does": ("what a skip does", r"lowers the level"),
    "how to add a metric": ("a function", r"metric=\w+\)"),
    "which agent ships": ("which agents ship", r"natural-4x.*PPO"),
    "what it beats": ("what they beat", r"best fixed start"),
    "how the weights were made": ("how they were made", r"commands that made the models"),
    "what the licence of the weights allows": ("terms", r"weights .* research only"),
    "how to cite": ("cite", r"@inproceedings"),
    "how to resume training": ("resume", r"skipdiff-agent train .*--resume"),
    "how to run on a GPU": ("gpu", r"--device"),
    "how to report a bug": ("reporting a bug", r"skipdiff info"),
    "where Table 5 is": ("tables and figures", r"Table 5.*\]\(\S+/table5\.md\)"),
}
"""Words of the heading, in any case, and a pattern of what must stand below it."""


def reached(links: int) -> set[Path]:
    """The pages that so many links in the text of pages lead to, beginning with the first one."""
    pages, new = {FIRST}, {FIRST}
    for _ in range(links):
        new = {
            target
            for page in new
            for link in LINK.findall(page.read_text(encoding="utf-8"))
            if (target := (page.parent / link).resolve()).is_file()
        } - pages
        pages |= new
    return pages


def sections(page: Path) -> Iterator[tuple[str, str]]:
    """Each heading of a page with what stands below it up to the next one; lines of code are no headings."""
    text = page.read_text(encoding="utf-8")
    code = [range(*match.span()) for match in FENCE.finditer(text)]
    heads = [m for m in HEADING.finditer(text) if not any(m.start() in block for block in code)]
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=False):  # a page without a heading has an end all the same
        yield head[1], text[head.end() : end]


@pytest.fixture(scope="module")
def found() -> list[tuple[str, str]]:
    return [section for page in sorted(reached(links=2)) for section in sections(page)]


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_is_answered_near_the_first_page(question: str, found: list[tuple[str, str]]) -> None:
    words, pattern = ANSWERS[question]
    assert any(words in heading.lower() and re.search(pattern, text) for heading, text in found)


def test_what_is_far_away_or_under_no_heading_does_not_count(found: list[tuple[str, str]]) -> None:
    assert reached(links=0) == {FIRST} and len(reached(links=1)) < len(reached(links=2))
    assert not any("best fixed start" in text for page in reached(links=0) for _, text in sections(page))
    assert "made by hand" not in [heading for heading, _ in found]
