"""Another engine makes the same picture, and the file says which one it was."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from skipdiff_env.cli.upscale import ENGINES as OF_THE_COMMAND
from skipdiff_env.diffusion import FrozenModel, load_pretrained, random_model, save_model, tiny_config
from skipdiff_env.diffusion.engines import ENGINES, TORCH
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import read_image
from skipdiff_env.images.formats.metadata import read_record
from skipdiff_env.images.photo import read_photo

from .conftest import UNET, Upscale

ATTENDING = replace(UNET, zero_init=False, middle_attention=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose network does something, and attends."""
    model = random_model(tiny_config(unet=ATTENDING))
    return save_model(tmp_path / "lively-4x", model.network, model.config)


def test_the_command_knows_them_all() -> None:
    assert (TORCH, *ENGINES) == OF_THE_COMMAND


@pytest.mark.parametrize("engine", ENGINES)
def test_the_picture_is_the_same_and_the_record_tells(
    engine: str, upscale: Upscale, photograph: Path, folder: Path, tmp_path: Path
) -> None:
    usual, other = tmp_path / "usual.png", tmp_path / "other.png"
    assert upscale(photograph, "-o", usual, model=folder).status == 0
    (done,) = upscale(photograph, "-o", other, "--engine", engine, "--json", model=folder).json
    difference = np.abs(read_image(usual).astype(int) - read_image(other))
    assert difference.max() <= 1
    records = [read_record(read_photo(file).metadata) for file in (usual, other)]
    assert records[0] is not None and "engine" not in records[0], "as ever where nothing is asked for"
    assert records[1] is not None and records[1]["engine"] == done["engine"] == engine
    again = upscale(photograph, "-o", other, "--engine", engine, "--resume", model=folder)
    assert "is there already" in again.out
    refused = upscale(photograph, "-o", other, "--resume", model=folder)
    assert "was made with other settings" in refused.err and refused.status == 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 33, 70), (3, 64, 48)])
def test_any_size_and_batch(engine: str, shape: tuple[int, int, int], folder: Path) -> None:
    batch, height, width = shape
    generator = torch.Generator().manual_seed(0)
    latent, condition = (torch.randn(batch, 3, height, width, generator=generator) for _ in range(2))
    level = torch.linspace(0.1, 0.9, batch)
    usual, other = load_pretrained(folder, "cpu"), load_pretrained(folder, "cpu", engine=engine)
    assert (usual.hash, usual.engine, other.engine) == (other.hash, TORCH, engine)
    made = [model.predict_unclamped(latent, condition, level) for model in (usual, other)]
    assert torch.allclose(*made, atol=1e-4), "and a unit of 8 bits is 0.008"
    assert made[0].std() > 0.01


@pytest.mark.parametrize("library", ["onnxruntime", "onnx"])
def test_what_is_missing_is_named(
    library: str, upscale: Upscale, photograph: Path, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, library, None)
    ran = upscale(photograph, "-o", tmp_path / "x.png", "--engine", "onnx", model=folder)
    assert ran.status == 2
    wanted = f"engine onnx needs the package {library}: pip install 'skipdiff[export]'"
    assert ran.err.strip() == f"skipdiff: error: {wanted}"


def test_what_an_engine_cannot_do_is_refused(folder: Path) -> None:
    with pytest.raises(SkipDiffError, match="unknown engine 'abacus': use torch or onnx"):
        load_pretrained(folder, "cpu", engine="abacus")
    model = load_pretrained(folder, "cpu")
    with pytest.raises(SkipDiffError, match="runs float32 on the CPU, not bfloat16 on cpu"):
        FrozenModel(model.network, model.config, dtype=torch.bfloat16, engine="onnx")

    class Untold(torch.nn.Module):
        def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            raise ValueError("not this way")

    with pytest.raises(
        SkipDiffError, match=r"cannot be written as a graph \(not this way\): use engine torch"
    ):
        FrozenModel(Untold(), model.config, engine="onnx")
