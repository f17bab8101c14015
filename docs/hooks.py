"""MkDocs hooks, which publish cards, result pages and the developers' guide from where they are.

A page of ``docs/`` links to them as it does in the repository. A link to a file that is not part of the site,
such as source code, becomes plain text there. Formulas become MathML, which browsers draw without a script.
"""

from __future__ import annotations

import html
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PUBLISHED = (
    "CHANGELOG.md", "CONTRIBUTING.md", "pretrained/README.md", "pretrained/*/*.md", "pretrained/*/*.png",
    "benchmarks/results/**/*.md", "benchmarks/results/**/*.png", "benchmarks/results/**/*.webp",
    "benchmarks/results/**/*.csv",
)  # fmt: skip
LINK = re.compile(
    r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
)


def published() -> Iterator[str]:
    """The files outside ``docs/`` that are part of the site, as paths from the root."""
    for pattern in PUBLISHED:
        found = (path.relative_to(ROOT) for path in ROOT.glob(pattern))
        # Sections of speed.md, which joins them
        yield from sorted(path.as_posix() for path in found if path.parent.name != "speed")


def on_files(files: Files, config: Any) -> Files:
    """Add these files to the site."""
    for name in published():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make links that work in the repository work on the site, too."""
    here = page.file.src_uri
    in_docs = (ROOT / "docs" / here).is_file()
    folder = posixpath.join("docs", posixpath.dirname(here)) if in_docs else posixpath.dirname(here)

    def moved(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        path = posixpath.join(path, "README.md") if (ROOT / path).is_dir() else path
        uri = path.removeprefix("docs/")
        if path == "README.md":
            uri = "index.md"
        elif files.get_file_from_path(uri) is None and os.path.exists(ROOT / path):
            return match["text"]
        relative = posixpath.relpath(uri, posixpath.dirname(here) or ".")
        return f"{match['image']}[{match['text']}]({relative}{anchor})"

    return LINK.sub(moved, markdown)


FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **kwargs: Any) -> str:
    """Draw formulas, and keep the arrows of columns beside their names."""

    def drawn(match: re.Match[str]) -> str:
        if match[1] == "span":
            return convert(html.unescape(match[2]))
        return f'<div class="formula">{convert(html.unescape(match[2]), display="block")}</div>'

    return FORMULA.sub(drawn, content).replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓")
