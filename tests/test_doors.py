"""Sampler, command and page are three doors to one house: the same words give the same pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipdiff_env import SkipDiffSampler, load_pretrained
from skipdiff_env.chains import CCSR, CHAINS, default_for, parse
from skipdiff_env.cli import main
from skipdiff_env.diffusion import available_models
from skipdiff_env.images import PHOTOGRAPHS
from skipdiff_env.web.offers import USUAL
from skipdiff_env.web.pictures import read_upload
from skipdiff_env.web.workshop import Workshop

SEED = 3


@pytest.fixture(scope="module")
def lr() -> np.ndarray:
    """A detail of a bundled photograph, uint8 (24, 20, 3)."""
    return np.ascontiguousarray(PHOTOGRAPHS[1].read()[100:124, 130:150])


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop(device="cpu", side=128)


def by_command(lr: np.ndarray, model: str, folder: Path, *words: str) -> np.ndarray:
    Image.fromarray(lr).save(folder / "in.png")
    out = folder / "out.png"
    given = [
        "upscale",
        str(folder / "in.png"),
        "-o",
        str(out),
        "--model",
        model,
        "--device",
        "cpu",
        "--quiet",
    ]
    assert main([*given, "--seed", str(SEED), "--tile", "256", "--force", *words]) == 0
    return np.array(Image.open(out).convert("RGB"))


@pytest.mark.parametrize("model", available_models())
def test_the_default_is_the_same(model: str, lr: np.ndarray, shop: Workshop, tmp_path: Path) -> None:
    sampled = SkipDiffSampler(load_pretrained(model, "cpu"))(lr, seed=SEED).images[0]
    assert np.array_equal(by_command(lr, model, tmp_path), sampled)
    steps = shop.usual_steps(model)
    assert shop.policies(model, steps)[0] == USUAL
    task = shop.task(read_upload(tmp_path / "in.png", "detail"), model, reference=False)
    request = shop.request(task, model, USUAL, shop.usual_start(model, steps), steps, SEED)
    result = shop.enlarge(request)
    assert np.array_equal(result.picture, sampled)
    assert result.evaluations <= shop.calls(request)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_model_brings_its_refiner_at_every_number_of_steps(
    steps: int, lr: np.ndarray, shop: Workshop, tmp_path: Path
) -> None:
    name, chain = "ccsr-natural-4x", f"ccsr:{steps}"
    model = load_pretrained(name, "cpu")
    sampled = SkipDiffSampler(model)(lr, chain, SEED).images[0]
    assert np.array_equal(by_command(lr, name, tmp_path, "--policy", chain), sampled)
    usual = shop.usual_steps(name)
    task = shop.task(read_upload(tmp_path / "in.png", "detail"), name, reference=False)
    request = shop.request(task, name, chain, 1, usual, SEED)
    assert np.array_equal(shop.enlarge(request).picture, sampled) and shop.calls(request) == steps
    plain = SkipDiffSampler(model, refiner=None)(lr, chain, SEED).images[0]
    assert np.array_equal(by_command(lr, name, tmp_path, "--policy", chain, "--refiner", "none"), plain)
    assert np.abs(sampled.astype(int) - plain).mean() > 0.5
    other = SkipDiffSampler(model, refiner=name)(lr, CCSR(steps), SEED).images[0]
    assert np.array_equal(other, sampled)


def test_what_the_default_is() -> None:
    settings = {name: default_for(load_pretrained(name, "cpu")).settings for name in available_models()}
    assert settings["ccsr-natural-4x"]["policy"] == settings["natural-4x-real"]["policy"] == "ccsr:2"
    assert settings["addsr-natural-4x"] == {"policy": "addsr:4"}
    for name in ("ccsr-natural-4x", "natural-4x-real"):
        assert settings[name]["refiner"] == name
    for name in ("face-8x", "natural-4x"):
        plans = json.loads((available_models()[name] / "plans.json").read_text())
        normal = plans["efforts"]["normal"]
        number = normal.removeprefix("plan:")
        assert settings[name]["policy"] == (plans["plans"][number]["plan"] if number != normal else normal)


def test_the_rule_of_auto_was_fitted_to_the_models_that_ship() -> None:
    named = json.loads((available_models()["natural-4x-real"] / "auto.json").read_text())["models"]
    assert named == {name: load_pretrained(name, "cpu").hash for name in ("natural-4x", "natural-4x-real")}


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("7", {"coarse_steps": 10, "start": 7}),
        (4, {"coarse_steps": 10, "start": 4}),
        ("denoise", {"coarse_steps": 10, "start": 10}),
        ("skip", {"coarse_steps": 10, "start": 1}),
        ("random", {"coarse_steps": 10, "policy": "random"}),
        ("ccsr:5", {"policy": "ccsr:5"}),
        ("addsr:1", {"policy": "addsr:1"}),
    ],
)
def test_one_grammar(words: object, settings: dict[str, object]) -> None:
    model = load_pretrained("natural-4x", "cpu")
    assert parse(words, model).settings == settings  # type: ignore[arg-type]
    agent = parse("agent", model).settings
    assert agent["policy"] == "policy.safetensors" and len(agent["policy_hash"]) == 16


def test_random_decisions_depend_on_the_picture_and_the_seed_alone(lr: np.ndarray) -> None:
    sampler = SkipDiffSampler(load_pretrained("natural-4x", "cpu"))
    both = sampler([lr, lr[::-1].copy()], "random", seed=[5, 6]).trace
    alone = [sampler(lr, "random", seed=5).trace[0], sampler(lr[::-1].copy(), "random", seed=6).trace[0]]
    assert [t.actions for t in both] == [t.actions for t in alone]
    assert sampler(lr, "random", seed=7).trace[0].actions != alone[0].actions


def test_a_chain_is_one_entry(lr: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler from outside: registered once, it is there for sampler and command."""

    class Twice(CCSR):
        """CCSR's chain under another name."""

    monkeypatch.setitem(CHAINS, "twice", Twice)
    sampled = SkipDiffSampler(load_pretrained("natural-4x", "cpu"))(lr, "twice:3", SEED)
    assert sampled.trace[0].evaluations == 3
    assert np.array_equal(by_command(lr, "natural-4x", tmp_path, "--policy", "twice:3"), sampled.images[0])
