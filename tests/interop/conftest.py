"""No test here may use the network."""

import pytest


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Nothing here may depend on the network."""

    def refuse(*args, **kwargs):
        raise ConnectionError("the tests have no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
