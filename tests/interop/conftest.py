"""Makes ``tests/reference`` importable however pytest was started; one thread, for repeatable sums."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Nothing here may depend on the network."""

    def refuse(*args, **kwargs):
        raise ConnectionError("the tests have no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
