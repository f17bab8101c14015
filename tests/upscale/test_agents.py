"""Agents that decide how photographs are enlarged: ``--policy``, and those that come with a model."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from skipdiff_env.diffusion import DENOISE, SKIP, load_pretrained
from skipdiff_env.diffusion.folder import ABOUT_POLICY, POLICY
from skipdiff_env.images.formats.metadata import read_record
from skipdiff_env.images.photo import read_photo
from skipdiff_env.images.tiling import TiledModel
from skipdiff_env.policies import file as policy_file
from skipdiff_env.policies.file import save_policy
from skipdiff_env.policies.network import CLOCK_WEIGHT, FEATURES, SkipProposalNetwork, SPNConfig
from skipdiff_env.policies.purpose import Purpose
from skipdiff_env.sampler import SkipDiffSampler

from .conftest import Ran, Upscale

WIDTH, HEIGHT = 60, 40


PLAN = [1, 1, 0, 0, 0, 1, 0, 0, 0]


@torch.no_grad()
def planner(plan: list[int]) -> SkipProposalNetwork:
    """An agent that looks, but then goes by the clock alone."""
    network = SkipProposalNetwork(SPNConfig(16, 1, "group", "clock", len(plan) + 1)).eval()
    for weights in network.parameters():
        weights.zero_()
    network.clock.layers[0].weight[0, FEATURES : FEATURES + len(plan)] = torch.tensor(plan).float()
    network.actor[0].weight[SKIP, 0], network.actor[0].bias[DENOISE] = 2, 1
    return network


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    return save_policy(tmp_path / "agent.safetensors", planner(PLAN))


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".pt2"])
def test_an_agent_sees_the_whole_image_and_decides_once_a_level(
    suffix: str, upscale: Upscale, photograph: Path, noisy_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if suffix == ".onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    agent = save_policy(tmp_path / f"agent{suffix}", planner(PLAN))
    shapes = []
    as_seen = policy_file.as_seen

    def spy(latent: Tensor, side: int) -> Tensor:
        shapes.append(tuple(latent.shape))
        return as_seen(latent, side)

    monkeypatch.setattr(policy_file, "as_seen", spy)
    out, tile = tmp_path / "out.png", 128
    ran = upscale(
        photograph, "-o", out, "--tile", tile, "--policy", agent, "--json", model=noisy_folder, method=()
    )
    assert (ran.status, ran.err) == (0, "")
    assert shapes == [(1, 3, 4 * HEIGHT, 4 * WIDTH)] * 9  # in 2 x 3 tiles
    sampler = SkipDiffSampler(TiledModel(load_pretrained(noisy_folder, "cpu"), tile))
    expected = sampler(read_photo(photograph).colour, policy=agent)
    np.testing.assert_array_equal(read_photo(out).colour, expected.images[0])
    assert expected.trace[0].actions == PLAN
    entry = ran.json[0]
    assert entry["levels"] == [expected.trace[0].levels]
    assert entry["evaluations"] == expected.trace[0].evaluations
    record = read_record(read_photo(out).metadata)
    digest = hashlib.sha256(agent.read_bytes()).hexdigest()[:16]
    for told in (entry, record):
        assert told is not None
        assert (told["policy"], told["policy_hash"]) == (f"agent{suffix}", digest)
        assert "start" not in told


def test_start_and_policy_exclude_each_other(
    upscale: Upscale, photograph: Path, agent: Path, tmp_path: Path
) -> None:
    ran = upscale(photograph, "-o", tmp_path / "out.png", "--policy", agent)  # the fixture adds --start
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "skipdiff: error: give only one of --effort, --start and --policy\n"
    assert not (tmp_path / "out.png").exists()


def test_a_models_own_agent_decides_unless_told_otherwise(
    upscale: Upscale, photograph: Path, agent: Path, noisy_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(noisy_folder, tmp_path / "with-agent-4x"))
    shutil.copy(agent, folder / POLICY)
    about = {"model": load_pretrained(folder, "cpu").hash, "steps": [10, 10], "skip_rule": "reset"}
    about["sha256"] = hashlib.sha256((folder / POLICY).read_bytes()).hexdigest()
    (folder / ABOUT_POLICY).write_text(json.dumps(about))

    def settings(*method: str, model: Path = folder) -> tuple[object, object]:
        arguments = photograph, "-o", tmp_path / "x.png", "--json", "--dry-run"
        (entry,) = upscale(*arguments, model=model, method=method).json
        return entry.get("policy"), entry.get("start")

    assert settings() == (POLICY, None)
    assert settings("--start", "4") == (None, 4)
    assert settings("--policy", str(agent)) == ("agent.safetensors", None)
    assert settings("--coarse-steps", "20") == (None, 4)  # not what it was trained for
    assert settings(model=noisy_folder) == (None, 7)


def test_an_agent_of_another_model_is_used_with_a_note(
    upscale: Upscale, photograph: Path, noisy_folder: Path, tmp_path: Path
) -> None:
    purpose = Purpose("faces-8x", "0123456789abcdef", 10, 10, "reset", "niqe", "PPO", 0)
    other = save_policy(tmp_path / "other.safetensors", planner(PLAN), purpose=purpose)
    arguments = photograph, "-o", tmp_path / "x.png"
    ran = upscale(*arguments, model=noisy_folder, method=("--policy", str(other)))
    assert ran.status == 0
    assert ran.err == "skipdiff: note: the agent was trained for faces-8x, and may decide badly here\n"
    own = replace(purpose, model_hash=load_pretrained(noisy_folder, "cpu").hash)
    save_policy(other, planner(PLAN), purpose=own)
    assert upscale(*arguments, "--force", model=noisy_folder, method=("--policy", str(other))).err == ""


def test_another_agent_is_another_setting(
    upscale: Upscale, photograph: Path, agent: Path, noisy_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"

    def resume() -> Ran:
        arguments = photograph, "-o", out, "--resume", "--policy", agent
        return upscale(*arguments, model=noisy_folder, method=())

    assert resume().status == 0
    assert resume().out == f"{out}: is there already\n"
    save_policy(agent, planner(PLAN[::-1]))
    assert "was made with other settings" in resume().err


def thrifty() -> SkipProposalNetwork:
    """An agent that skips wherever it can if evaluations are dear, and never if they are cheap."""
    network = SkipProposalNetwork(SPNConfig(16, 1, "group", "clock", 10, (1e-4, 1e-2))).eval()
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
        network.clock.layers[0].weight[0, -1] = 1 / CLOCK_WEIGHT
        network.actor[0].weight[SKIP, 0], network.actor[0].bias[DENOISE] = 2, 1
    return network


@pytest.mark.parametrize(("price", "evaluations"), [("0", 19), ("0.0002", 19), ("0.005", 10)])
def test_an_agent_hears_the_price(
    price: str, evaluations: int, upscale: Upscale, photograph: Path, tmp_path: Path
) -> None:
    out, agent = tmp_path / "out.png", save_policy(tmp_path / "agent.safetensors", thrifty())
    arguments = photograph, "-o", out, "--policy", agent, "--step-cost", price
    (entry,) = upscale(*arguments, "--json", method=()).json
    assert entry["evaluations"] == evaluations
    record = read_record(read_photo(out).metadata)
    for told in (entry, record):
        assert told is not None and told.get("step_cost", 0) == float(price)
    other = upscale(photograph, "-o", out, "--policy", agent, "--step-cost", "7", "--resume", method=())
    assert "was made with other settings" in other.err


@pytest.mark.parametrize("method", [("--start", "3"), (), ("--policy", "skip"), ("--policy", "ccsr")])
def test_only_agents_hear_of_prices(
    method: tuple[str, ...], upscale: Upscale, photograph: Path, agent: Path, tmp_path: Path
) -> None:
    ran = upscale(photograph, "-o", tmp_path / "x.png", "--step-cost", "0.1", method=method)
    assert (ran.status, ran.out) == (2, "")
    assert (
        ran.err
        == "skipdiff: error: step_cost=0.1 needs an agent that was trained with prices: give its file\n"
    )
    method = "--policy", str(agent)
    ran = upscale(photograph, "-o", tmp_path / "x.png", "--step-cost", "0.1", method=method)
    assert ran.status == 2 and re.fullmatch(r"skipdiff: error: .*not trained with prices.*\n", ran.err)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("name", ["agent.safetensors", "agent.onnx", "agent.pt2"])
def test_a_damaged_agent_is_one_line(name: str, upscale: Upscale, photograph: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"rubbish" * 9)
    ran = upscale(photograph, "-o", tmp_path / "new" / "x.png", "--policy", tmp_path / name, method=())
    assert ran.status == 2
    assert re.fullmatch(r"skipdiff: error: [^\n]+\n", ran.err)
    assert not (tmp_path / "new").exists()
