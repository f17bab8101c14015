"""A model format from outside: one entry of the list, and its folders load everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import skipdiff_env
from skipdiff_env.cli import main
from skipdiff_env.diffusion import load_pretrained, random_model, tiny_config
from skipdiff_env.diffusion.folder import Format, Loaded
from skipdiff_env.diffusion.pretrained import FORMATS
from skipdiff_env.diffusion.unet import UNet

SEED_FILE = "seed.toy"


def read(folder: Path) -> Loaded:
    """A network drawn from the seed in the file."""
    config = tiny_config()
    torch.manual_seed(int((folder / SEED_FILE).read_text()))
    return UNet(config.unet), config, f"toy-{(folder / SEED_FILE).read_text()}"


TOY = Format("toy", (SEED_FILE,), lambda folder: (folder / SEED_FILE).is_file(), read)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("skipdiff_env.diffusion.pretrained.FORMATS", [TOY, *FORMATS])
    (tmp_path / "toy-model").mkdir()
    (tmp_path / "toy-model" / SEED_FILE).write_text("5")
    return tmp_path / "toy-model"


def test_a_format_is_one_entry(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = load_pretrained(folder, "cpu")
    assert (model.name, model.hash) == ("toy-model", "toy-5") and load_pretrained(folder, "cpu") is model
    lr = np.random.default_rng(0).integers(0, 256, (8, 10, 3)).astype(np.uint8)
    Image.fromarray(lr).save(tmp_path / "in.png")
    out = tmp_path / "out.png"
    arguments = ["upscale", str(tmp_path / "in.png"), "-o", str(out), "--model", str(folder), "--json"]
    assert main([*arguments, "--device", "cpu", "--policy", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["model_hash"] == "toy-5"
    sampled = skipdiff_env.SkipDiffSampler(model)(lr, "2").images[0]
    assert np.array_equal(np.array(Image.open(out)), sampled)


def test_a_changed_file_is_read_again(folder: Path) -> None:
    first = load_pretrained(folder, "cpu")
    (folder / SEED_FILE).write_text("71")
    second = load_pretrained(folder, "cpu")
    assert second.hash == "toy-71" and second is not first
    a, b = (next(model.network.parameters()) for model in (first, second))
    assert not torch.equal(a, b)


def test_the_public_surface() -> None:
    assert set(skipdiff_env.__all__) == set(dir(skipdiff_env))
    assert "__version__" in skipdiff_env.__all__
    for name in skipdiff_env.__all__:
        assert getattr(skipdiff_env, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = skipdiff_env.nothing
    assert random_model().folder is None
