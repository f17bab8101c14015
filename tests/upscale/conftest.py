"""Models that enlarge within milliseconds, and photographs to try them on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from skipdiff_env.cli import main
from skipdiff_env.diffusion import (
    FrozenModel,
    UNetConfig,
    bicubic,
    load_pretrained,
    random_model,
    save_model,
    tiny_config,
)
from tests.images.photo_files import scene

UNET = UNetConfig(
    channels=4, multipliers=(1, 2), res_blocks=1, norm_groups=2, dropout=0.0, attention_sizes=(),
    middle_attention=False, patch_size=2, image_size=32,
)  # fmt: skip


@pytest.fixture(scope="session")
def noisy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights: its results depend on seed, start and everything else."""
    model = random_model(tiny_config(unet=UNET))
    return save_model(tmp_path_factory.mktemp("models") / "noisy-4x", model.network, model.config)


def save_plain(folder: Path) -> Path:
    """A residual model whose residual counts for nothing: what comes out is the bicubic enlargement."""
    model = random_model(tiny_config(unet=UNET, target="residual", residual_scale=1e7))
    return save_model(folder, model.network, model.config)


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of :func:`save_plain`."""
    return save_plain(tmp_path_factory.mktemp("models") / "plain-4x")


@pytest.fixture
def noisy(noisy_folder: Path) -> FrozenModel:
    return load_pretrained(noisy_folder, "cpu")


@pytest.fixture
def plain(plain_folder: Path) -> FrozenModel:
    return load_pretrained(plain_folder, "cpu")


FAST = ("--coarse-steps", "2", "--start", "1")


@dataclass
class Ran:
    """What a command gave."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Upscale = Callable[..., Ran]


def left_in(folder: Path) -> list[str]:
    """Names of everything in a folder and below."""
    return sorted(p.name for p in folder.rglob("*"))


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """:func:`~tests.images.photo_files.scene` as a PNG."""
    path = tmp_path / "in.png"
    Image.fromarray(np.rint(scene() * 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def upscale(plain_folder: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """``skipdiff upscale`` in this process, in two evaluations; arguments are turned into text."""

    def call(*arguments: object, model: Path = plain_folder, method: Sequence[str] = FAST) -> Ran:
        capfd.readouterr()
        status = main(["upscale", *map(str, arguments), "--model", str(model), *method])
        out, err = capfd.readouterr()
        return Ran(status, out, err)

    return call


def enlarged(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic enlargement of float (H, W, C) in 0 … 1 to (width, height)."""
    x = torch.from_numpy(np.asarray(pixels, np.float64)).permute(2, 0, 1)[None]
    return bicubic(x, size[1], size[0]).clamp(0, 1)[0].permute(1, 2, 0).numpy()
