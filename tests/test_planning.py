"""The search for plans: what it tries, what it holds them against, and that it can be gone on with."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env import SkipDiffSampler, find_plan
from skipdiff_env.chains import EFFORTS, Plan, parse, shipped_plans, uniform
from skipdiff_env.cli import main
from skipdiff_env.diffusion import NoiseSchedule, load_pretrained, random_model, save_model, tiny_config
from skipdiff_env.diffusion.model import FrozenModel
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import shrink
from skipdiff_env.metrics import load_metric
from skipdiff_env.planning import PlanSearch, shaped_plan
from skipdiff_env.planning.search import _first_guesses, _plan

optuna = pytest.importorskip("optuna", reason="the extra 'plans' is not installed")

HR = [np.random.default_rng(i).integers(0, 256, (32, 32, 3)).astype(np.uint8) for i in range(5)]


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return random_model(dataclasses.replace(tiny_config(), schedule=NoiseSchedule.cosine(20).config))


@given(
    top=st.integers(2, 100),
    share=st.floats(0, 1),
    jumps=st.floats(0, 1),
    reached=st.floats(-5, 120),
    told=st.floats(0, 1),
    eta=st.floats(0, 1),
    power=st.floats(0.3, 3),
)
def test_every_shape_is_a_plan(
    top: int, share: float, jumps: float, reached: float, told: float, eta: float, power: float
) -> None:
    evaluations = 2 + round(share * (top - 2))
    first = round(jumps * (evaluations - 1))
    plan = shaped_plan(top, evaluations, first, reached, told, (eta, 1 - eta), (power, 1 / power))
    assert len(plan.calls) == evaluations and plan.top == top
    assert all(call.told == int(call.told) and call.to == int(call.to) for call in plan.calls)
    assert sum(before.to != after.told for before, after in pairwise(plan.calls)) <= 1


def test_shapes_by_hand() -> None:
    assert str(shaped_plan(100, 4, 3, 26, 20 / 26, (0.5, 0.0), (0.8, 1.0))) == "100>80>57>26|20>0 eta 0.5"
    assert shaped_plan(100, 8, 0, 0, 0, (1.0, 0.0), (2.0, 1.0)) == uniform(100, 8)
    assert str(shaped_plan(10, 9, 5, 1, 0.1, (0, 0), (1, 1))) == "10>9>8>6>5>4>3>2>1>0"


def test_a_search_is_gone_on_with_and_says_what_it_found(model: FrozenModel, tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    settings: dict[str, Any] = {"image_size": 32, "study": tmp_path / "new" / "study", "batch": 2}
    first = find_plan(model, HR, 4, "psnr", trials=5, **settings)
    assert first.trials == 5 and len(first.plan.calls) == 4
    more = find_plan(model, HR, 4, "psnr", trials=30, tell=lambda *t: told.append(t), **settings)
    assert more.trials == 30 and len(told) == 25 and told[0][0] == 6
    best = [value for _, value in told]
    assert best == sorted(best, reverse=True)
    again = find_plan(model, HR, 4, "psnr", trials=30, **settings)
    assert again.plan == more.plan and again.figures == more.figures
    other = find_plan(model, HR, 3, {"psnr": 1.0}, trials=2, **settings)
    assert other.trials == 2 and len(other.plan.calls) == 3

    sampler, hr = SkipDiffSampler(model), np.stack(HR)

    def mean(policy: Any, metric: str) -> float:
        made = [sampler([shrink(x, 4) for x in HR], policy, seed).images for seed in (0, 1)]
        return float(np.mean([load_metric(metric)(images, hr) for images in made]))

    for name, value in more.figures.items():
        assert value == pytest.approx(mean(more.plan, name), rel=1e-3)
    search = PlanSearch(model, HR, "psnr", **settings)
    assert search.reference["psnr"] == pytest.approx(mean(None, "psnr"), rel=1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("evaluations", [2, 3, 6, 12, 16, 40])
def test_the_first_guesses_are_among_what_is_searched(evaluations: int) -> None:
    for guess in _first_guesses(evaluations):
        plan = _plan(optuna.trial.FixedTrial(guess), evaluations, 100)  # warns of what is out of range
        assert len(plan.calls) == evaluations


def test_without_a_file_the_same_seed_finds_the_same(model: FrozenModel) -> None:
    found = [find_plan(model, HR, 3, "ssim", trials=8, image_size=32, seed=3) for _ in range(2)]
    assert found[0].plan == found[1].plan and found[0].figures == found[1].figures


def test_bad_requests_are_named(model: FrozenModel) -> None:
    for evaluations in (1, 21):
        with pytest.raises(SkipDiffError, match="must be a whole number from 2 to 20"):
            find_plan(model, HR, evaluations, "psnr", image_size=32)
    with pytest.raises(SkipDiffError, match="differ in size: give image_size="):
        find_plan(model, [HR[0], HR[1][:16]], 4, image_size=None)
    with pytest.raises(SkipDiffError, match="no trial was finished"):
        find_plan(model, HR, 4, "psnr", trials=0, image_size=32)
    with pytest.raises(SkipDiffError, match="unknown"):
        find_plan(model, HR, 4, "beauty", image_size=32)


def test_the_command(model: FrozenModel, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", model.network, model.config)
    for i, image in enumerate(HR):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    command = ["find-plan", "-m", str(folder), "--images", str(tmp_path), "--evaluations", "3", "2"]
    command += ["--metric", "psnr", "ssim:0.5", "--trials", "3", "--image-size", "32", "--device", "cpu"]
    command += ["--precision", "float32", "--every", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "skipdiff_env.cli", *command],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder / 'plans.json'}\n"
    assert done.stderr.count("(3 plans, ") == 2
    about = json.loads((folder / "plans.json").read_text())
    assert about["objective"] == {"psnr": 1.0, "ssim": 0.5} and about["reference"]["psnr"] > 0
    assert about["precision"] == "float32" and about["every"] == 2
    plans = shipped_plans(load_pretrained(folder, "cpu"))
    assert {n: len(plan.calls) for n, plan in plans.items()} == {2: 2, 3: 3}
    assert all(Plan.read(entry["plan"]) in plans.values() for entry in about["plans"].values())


def test_efforts_may_be_held_against_another_chain(
    model: FrozenModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_model(tmp_path / "model", model.network, model.config)
    Image.fromarray(HR[0]).save(tmp_path / "0.png")
    command = ["find-plan", "-m", str(folder), "--images", str(tmp_path / "0.png"), "--evaluations", "3"]
    command += ["--metric", "psnr", "--trials", "3", "--image-size", "32", "--device", "cpu"]
    other = [*command, "--coarse-steps", "4", "--start", "3", "--efforts"]
    assert main(other) != 0
    assert "holds no plans from which efforts could be chosen: find plans first" in capsys.readouterr().err
    assert not (folder / "plans.json").exists()
    assert main(command) == 0
    before = json.loads((folder / "plans.json").read_text())
    assert before["compared_with"] == "start 1 after 10 coarse steps"
    assert main(other) == 0
    after = json.loads((folder / "plans.json").read_text())
    assert after["efforts_from"]["compared_with"] == "start 3 after 4 coarse steps"
    assert after["efforts_from"]["reference"] != before["reference"]
    chosen = after["efforts"]
    assert set(chosen) <= {*EFFORTS} and set(chosen.values()) <= {*after["efforts_from"]["plans"]}
    assert {k: v for k, v in after.items() if not k.startswith("efforts")} == {
        k: v for k, v in before.items() if k != "efforts"
    }
    frozen = load_pretrained(folder, "cpu")
    for effort, text in chosen.items():
        assert parse(effort, frozen) == Plan.read(text)
    (folder / "plans.json").write_text(json.dumps(after | {"model": "another"}))
    assert main(other) != 0
    assert "is for the weights another" in capsys.readouterr().err
