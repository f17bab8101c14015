"""Whatever lies in a folder: no traceback, nothing partial, nothing lost, and the pixels that are in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upscale.conftest import save_plain

from .invariants import FORMATS, Tree, check
from .run import BLOCK, fuzz
from .structures import Made

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*/*"))
"""Files that once failed. Those in the folder ``whole`` are photographs that must be enlarged."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_plain(tmp_path_factory.mktemp("models") / "plain-4x")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_inputs_that_once_failed(path: Path, format: str, model: Path) -> None:
    tree = Tree({path.name: Made(path.read_bytes(), path.suffix)}, format=format, named=True)
    done, failed = check(tree, model)
    assert done + failed == 1
    assert done or path.parent.name != "whole"


@pytest.mark.parametrize("block", range(5))
def test_generated_trees(block: int, model: Path) -> None:
    done, failed = fuzz(model, block)
    assert done > BLOCK / 4 and failed > BLOCK / 10, "the generators make too little of one kind"
