"""What every test shares: one thread, the `gpu` marker, folders of properties and of evaluation images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The same examples every time, so that a commit passes or fails; others by --hypothesis-profile default
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_configure() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # for repeatable sums, and a core for every worker of xdist
    torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property: hypothesis and function-scoped fixtures do not mix."""
    return tmp_path_factory.mktemp("properties")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the image archives; they are not part of the repository."""
    shared = Path(os.environ.get("SKIPDIFF_DATA") or Path(__file__).resolve().parents[2] / "shared")
    for folder in (shared, shared / "data"):
        if (folder / "val_set14_bsd20.tar").is_file():
            return folder
    pytest.skip("the evaluation images are not on this machine (set SKIPDIFF_DATA to their folder)")
