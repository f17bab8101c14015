"""A tree of files, ``skipdiff upscale`` over it, and what must hold whatever is in it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

from skipdiff_env.cli import main
from tests.upscale.conftest import FAST, enlarged

from .structures import FILES, Made

FORMATS = ("png", "jpeg", "webp", "tiff", "bmp")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
LOSSLESS, LOSSY = 2.6 / 255, 0.06
"""Largest difference, and mean difference, that a result may have. The model sees 8 bits."""

NOTE = "skipdiff: note: "

REASONS = ("too small", "would become", "would replace", "cannot write")
"""Why a whole photograph may be refused."""

OTHER_NUMBERS = ("converted to sRGB", "limited range")
"""What notes say where the result's numbers mean the same and are others."""


@dataclass(frozen=True)
class Tree:
    """Files by their path below a folder, and how the command is called."""

    files: dict[str, Made]
    format: str | None = None
    recursive: bool = False
    named: bool = False
    """Whether each file is named, rather than the folder."""
    out: str = "out"
    """Where results go; ``in`` holds the files."""


_STEMS = st.one_of(
    st.sampled_from(
        ["a", "A", "a b", "-n", "[1]", "a*", "a.b", "ö京", "é", "e\u0301", "a\tb", "a\nb", "%s", "'\"", ".a"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8),
)
_FOLDERS = st.sampled_from(["", "", "", "b/", "b/c/", ".d/", "e.png/"])
_ENDINGS = st.sampled_from(["", "", "", "", "upper", ".png", ".txt"])


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """One to three files in folders."""
    files: dict[str, Made] = {}
    for _ in range(draw(st.integers(1, 3))):
        made, ending = draw(FILES), draw(_ENDINGS)
        suffix = made.suffix.upper() if ending == "upper" else ending or made.suffix
        files[draw(_FOLDERS) + draw(_STEMS) + suffix] = made
    return Tree(
        files, draw(st.sampled_from([None, None, "png", *FORMATS])), draw(st.booleans()), draw(st.booleans()),
        draw(st.sampled_from(["out", "out", "in/out", "in"])),
    )  # fmt: skip


def check(tree: Tree, model: Path) -> tuple[int, int]:
    """Run the command over a tree in a new folder.

    Returns:
        How many photographs were enlarged, and how many refused.

    Raises:
        AssertionError: naming the invariant that does not hold; what the command raises goes through.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path, made in tree.files.items():
            (root / "in" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / "in" / path).write_bytes(made.data)
        before = _contents(root)
        paths = [str(root / "in" / path) for path in tree.files] if tree.named else [str(root / "in")]
        arguments = ["upscale", *paths, "-o", f"{root / tree.out}/", "--json", "--model", str(model), *FAST]
        arguments += ["--tile", "128"]
        arguments += ["--format", tree.format] if tree.format else []
        arguments += ["--recursive"] if tree.recursive else []
        with _captured() as (out, err):
            status = main(arguments)
        entries = [json.loads(line) for line in out[0].split("\n") if line]
        done, failed = _ends(entries)
        assert status == (2 if failed else 0), f"status {status} with {len(failed)} failures"
        errors = [line for line in err[0].split("\n") if line and not line.startswith(NOTE)]
        assert len(errors) == len(failed), f"{len(failed)} failures and these lines: {errors}"
        assert all(line.startswith("skipdiff: error: ") for line in errors), errors
        assert sorted([*done, *failed]) == sorted(_due(tree, root)), "not every input is accounted for once"
        after = _contents(root)
        assert {path: after.get(path) for path in before} == before, "a source was touched"
        assert sorted(after.keys() - before.keys()) == sorted(done.values()), "files that no line names"
        for entry in entries:
            made = tree.files.get(os.path.relpath(entry["input"], root / "in"))
            if made and "output" in entry:
                _compare(made, Path(entry["output"]), entry["notes"])
            elif made and made.pixels is not None:
                assert any(reason in entry["error"] for reason in REASONS), f"refused: {entry['error']}"
        return len(done), len(failed)


@contextlib.contextmanager
def _captured() -> Iterator[tuple[list[str], list[str]]]:
    """What is written to both standard streams, by libraries in C, too."""
    texts: tuple[list[str], list[str]] = ([], [])
    with contextlib.ExitStack() as stack:
        for number, (name, text) in enumerate(zip(("stdout", "stderr"), texts, strict=True), 1):
            stack.enter_context(_stream(name, number, text))
        yield texts


@contextlib.contextmanager
def _stream(name: str, number: int, text: list[str]) -> Iterator[None]:
    kept, was = os.dup(number), getattr(sys, name)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        os.dup2(file.fileno(), number)
        setattr(sys, name, file)
        try:
            yield
        finally:
            setattr(sys, name, was)
            os.dup2(kept, number)
            os.close(kept)
            file.seek(0)
            text.append(file.read())


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _ends(entries: list[dict[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """Inputs that were enlarged, each with its result, and inputs that failed."""
    done = {entry["input"]: entry["output"] for entry in entries if "output" in entry}
    failed = [entry["input"] for entry in entries if "error" in entry]
    assert len(done) + len(failed) == len(entries), "a photograph has two lines"
    return done, failed


def _due(tree: Tree, root: Path) -> list[str]:
    """What must have a line."""
    if tree.named:
        return [str(root / "in" / path) for path in tree.files]
    seen = [
        path
        for path in tree.files
        if path.lower().endswith(SUFFIXES)
        and not any(part.startswith(".") for part in path.split("/"))
        and (tree.recursive or "/" not in path)
    ]
    return [str(root / "in" / path) for path in seen] or [str(root / "in")]


def _compare(made: Made, target: Path, notes: list[str]) -> None:
    """The result's pixels with the enlarged ones of a second decoder."""
    data = np.frombuffer(target.read_bytes(), np.uint8)
    found = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert found is not None, f"{target.name} cannot be read by OpenCV"
    if made.pixels is None or any(word in note for note in notes for word in OTHER_NUMBERS):
        return
    height, width = made.pixels.shape[:2]
    assert found.shape[:2] == (4 * height, 4 * width), f"{found.shape[:2]} of {height, width}"
    scaled = found / np.iinfo(found.dtype).max
    colour = scaled[..., 2::-1] if scaled.ndim == 3 else scaled[..., None]
    difference = np.abs(colour - enlarged(made.pixels, (4 * width, 4 * height)))
    if target.suffix.lower() in (".png", ".tif", ".tiff"):
        assert difference.max() <= LOSSLESS, f"pixels differ by up to {difference.max():.3f}"
    else:
        assert difference.mean() <= LOSSY, f"pixels differ by {difference.mean():.3f} on average"
