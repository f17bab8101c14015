"""Averages of two models: the arithmetic, whose record they carry, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from skipdiff_env import load_pretrained
from skipdiff_env.diffusion import random_model, save_model
from skipdiff_env.diffusion.model import tiny_config
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training.average import average_models

TRUNK: dict[str, Any] = {
    "recipe": "tiny", "steps": 40, "images": 80, "hours": 0.5, "hardware": "a pocket watch", "data": ["a"],
}  # fmt: skip
LEGS = [
    {**TRUNK, "steps": 8, "hours": 0.1, "data": ["b"]},
    {**TRUNK, "steps": 4, "hours": 0.2, "data": ["c"]},
]


def write(path: Path, seed: int, legs: list[dict[str, Any]], **changes: Any) -> Path:
    config = replace(tiny_config(), start=4, training={"legs": legs}, **changes)
    return save_model(path, random_model(config, seed).network, config, dtype=torch.float32)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write(tmp_path / "first", 0, [TRUNK, LEGS[0]])


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return write(tmp_path / "second", 1, [TRUNK, LEGS[1]])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_weights_lie_on_the_line_between_the_two(
    first: Path, second: Path, tmp_path: Path, share: float
) -> None:
    # once loaded, models are shared by all who ask for them
    kept = {key: w.clone() for key, w in load_pretrained(first, "cpu").network.state_dict().items()}
    out = average_models(first, second, share, tmp_path / "out")
    ours, a, b = (load_file(folder / "ddpm.safetensors") for folder in (out, first, second))
    assert ours.keys() == a.keys()
    assert any(not torch.equal(a[key], b[key]) for key in a)
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor.double(), (1 - share) * a[key].double() + share * b[key].double(),
                                   rtol=1e-3, atol=1e-6)  # fmt: skip
    assert all(
        torch.equal(w, kept[key]) for key, w in load_pretrained(first, "cpu").network.state_dict().items()
    )


def test_what_both_trainings_share_is_counted_once(first: Path, second: Path, tmp_path: Path) -> None:
    config = json.loads((average_models(first, second, 0.25, tmp_path / "out") / "config.json").read_text())
    record = config["training"]
    assert record["legs"] == [TRUNK, *LEGS] and record["data"] == ["a", "b", "c"]
    assert (record["steps"], record["hours"]) == (52, 0.8)
    assert [(end["model"], end["share"]) for end in record["average"]] == [("first", 0.75), ("second", 0.25)]
    assert record["average"][0]["hash"] == load_pretrained(first, "cpu").hash
    assert config["start"] is None  # the ends' need not be this one's


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_must_be_one(first: Path, second: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(SkipDiffError, match="share must be from 0 to 1"):
        average_models(first, second, share, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"prediction": "noise"}, "prediction"), ({"residual_scale": 2.0}, "residual_scale")],
)
def test_models_that_mean_something_else_are_refused(
    first: Path, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    other = write(tmp_path / "other", 1, [TRUNK], **changes)
    with pytest.raises(SkipDiffError, match=f"cannot be averaged, since they differ in {field}"):
        average_models(first, other, 0.5, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_model_and_overwrites_none(first: Path, second: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "skipdiff_env.cli", "average", first, second, "--share", "0.4"]
    done = subprocess.run([*command, "-o", tmp_path / "out"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'out'}\n"), done.stderr
    assert load_pretrained(tmp_path / "out", "cpu").config.training["average"][1]["share"] == 0.4
    before = (second / "ddpm.safetensors").read_bytes()
    again = subprocess.run([*command, "-o", second], capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "holds a model already" in again.stderr
    assert (second / "ddpm.safetensors").read_bytes() == before
