"""Training a restorer, and training models behind it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from skipdiff_env import load_pretrained
from skipdiff_env.diffusion import random_model, save_model
from skipdiff_env.diffusion.model import bicubic_condition, chain_image
from skipdiff_env.diffusion.resize import to_signed
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training import TrainResult, load_recipe, train
from skipdiff_env.training.average import average_models
from skipdiff_env.training.data.bank import ImageBank
from skipdiff_env.training.distributed import World
from skipdiff_env.training.programs import make_trainer
from skipdiff_env.training.run.log import read_log
from skipdiff_env.training.trainers.base import BatchMaker
from tests.training.test_rival_runs import SMALL_REFINER
from tests.training.training_helpers import ROOT, assert_same, picture, weights

NOISE = "degradation={noise: {share: 1, low: 20, high: 20}}"
SMALL = ["data.crop=32", "batch=2", "validation.images=0", "log_every=1", "optimiser.warmup=1"]
OTHERS = [f"degradation.{fault}.share=0" for fault in ("blur", "resize", "jpeg", "webp")]
RESTORER = [
    *SMALL, "restorer.network={channels: 8, blocks: 1}", "optimiser.kind=adamw", "data.drawings=0",
    "data.held_out=null", NOISE, *OTHERS, "degradation.again=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for i in range(4):
        cv2.imwrite(str(path / f"{i}.png"), picture(i, 48, 52))
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, without a restorer."""
    config = load_recipe("tiny").model
    return save_model(tmp_path_factory.mktemp("frozen") / "tiny", random_model(config, 3).network, config)


def restoring(data: Path, model: Path, out: Path, steps: int, *changes: str, **options: Any) -> TrainResult:
    return train(
        "restorer-4x-real", [data], out, init=model, device="cpu", max_steps=steps, program="restorer",
        overrides=[*RESTORER, *changes], **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def behind(data: Path, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model behind a restorer of four steps."""
    return restoring(data, plain, tmp_path_factory.mktemp("run"), 4, "optimiser.lr=1e-2").model


def denoising(data: Path, out: Path, steps: int, restorer: Path, **options: Any) -> TrainResult:
    changes = [f"restorer_of={restorer}", "validation.images=0", NOISE]
    return train("tiny", [data], out, device="cpu", max_steps=steps, overrides=changes, **options)


def test_a_restorer_goes_beside_the_model_that_it_is_for(behind: Path, plain: Path) -> None:
    assert (behind / "ddpm.safetensors").read_bytes() == (plain / "ddpm.safetensors").read_bytes()
    before, after = load_pretrained(plain, "cpu"), load_pretrained(behind, "cpu")
    assert after.restorer is not None and after.hash != before.hash
    record = after.restorer.config.training
    assert (record["recipe"], record["steps"], record["images"]) == ("restorer-4x-real", 4, 8)
    assert record["legs"][0]["init"] == {"model": before.name, "hash": before.hash}
    assert record["degradation"] == {"noise": [20.0, 20.0]}
    assert after.config.training == before.config.training


def test_a_resumed_restorer_is_the_uninterrupted_one(data: Path, plain: Path, tmp_path: Path) -> None:
    restoring(data, plain, tmp_path / "whole", 4)
    restoring(data, plain, tmp_path / "parts", 2)
    torch.manual_seed(77)
    assert restoring(data, plain, tmp_path / "parts", 4, resume=True).step == 4
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_restorer_learns_to_remove_noise(data: Path, plain: Path, tmp_path: Path) -> None:
    restoring(data, plain, tmp_path, 150, "optimiser.lr=1e-2", "batch=8", "log_every=10")
    left = [line["left"] for line in read_log(tmp_path / "log.jsonl")]
    assert left[0] > 0.8 and sum(left[-3:]) / 3 < 0.6


def test_a_restorer_starts_from_another_one(data: Path, behind: Path, plain: Path, tmp_path: Path) -> None:
    made = restoring(data, plain, tmp_path / "run", 1, f"restorer.init={behind}", "optimiser.lr=1e-9")
    began, now = (load_pretrained(folder, "cpu").restorer for folder in (behind, made.model))
    assert began is not None and now is not None
    for name, value in began.network.state_dict().items():
        assert torch.allclose(now.network.state_dict()[name], value, atol=1e-4), name
    assert [leg["steps"] for leg in now.config.training["legs"]] == [4, 1]
    assert now.config.training["legs"][1]["init"]["restorer_hash"] == began.hash
    with pytest.raises(SkipDiffError, match="has no restorer of this architecture"):
        restoring(data, plain, tmp_path / "other", 1, f"restorer.init={plain}")


def test_validation_measures_what_is_left_of_the_error(data: Path, plain: Path, tmp_path: Path) -> None:
    options = ["validation.images=2", "validation.metrics=[]", "optimiser.lr=0"]
    restoring(data, plain, tmp_path, 1, *options, val=[data])
    line = read_log(tmp_path / "log.jsonl")[-1]
    assert line["val_left"] == 1  # an untrained one changes nothing
    assert 0.1 < line["val_loss"] < 0.2  # E|n| of noise with σ = 20 of 127.5: 0.125, and rounding
    assert {"psnr/bicubic", "psnr/skip"} <= line.keys()


def test_a_model_is_trained_on_what_its_restorer_makes(data: Path, behind: Path) -> None:
    recipe = load_recipe("tiny", overrides=[f"restorer_of={behind}", NOISE])
    trainer = make_trainer(recipe, torch.device("cpu"), World())
    restore = trainer.restorer
    assert restore is not None
    batch = BatchMaker(recipe, ImageBank([picture(0)]), trainer.device, World(), restore)(0)
    assert not torch.equal(restore(batch.lr), batch.lr)
    assert torch.equal(batch.condition, bicubic_condition(restore(batch.lr), 4))
    unspoiled = BatchMaker(load_recipe("tiny"), ImageBank([picture(0)]), trainer.device, World())(0)
    hr = [chain_image(x.target, x.condition, recipe.model) for x in (batch, unspoiled)]
    torch.testing.assert_close(hr[0], hr[1])
    assert torch.equal(trainer.frozen().condition(batch.lr), batch.condition)


def test_every_program_hands_the_restorer_on(data: Path, behind: Path, tmp_path: Path) -> None:
    restorer = load_pretrained(behind, "cpu").restorer
    assert restorer is not None
    ddpm = denoising(data, tmp_path / "ddpm", 1, behind, init=behind).model
    common: dict[str, Any] = {"init": behind, "device": "cpu", "max_steps": 1}
    refined = train("ccsr-refiner-4x", [data], tmp_path / "refiner", program="refiner",
                    overrides=[*SMALL, NOISE, SMALL_REFINER], **common).model  # fmt: skip
    student = train("addsr-natural-4x", [data], tmp_path / "addsr", program="addsr", 
                    overrides=[*SMALL, NOISE], **common).model  # fmt: skip
    mixed = average_models(ddpm, behind, 0.5, tmp_path / "mixed")
    for folder in (ddpm, refined, student, mixed):
        model = load_pretrained(folder, "cpu")
        assert model.restorer is not None and model.restorer.hash == restorer.hash, folder
    assert load_pretrained(refined, "cpu").hash == load_pretrained(behind, "cpu").hash


def test_a_run_keeps_its_restorer(data: Path, behind: Path, plain: Path, tmp_path: Path) -> None:
    denoising(data, tmp_path / "run", 1, behind)
    assert denoising(data, tmp_path / "run", 2, behind, resume=True).step == 2
    other = restoring(data, plain, tmp_path / "other", 3).model
    weights = tmp_path / "run" / "checkpoints"
    before = sorted(weights.iterdir())
    (behind / "restorer.safetensors").rename(tmp_path / "kept")
    try:
        (behind / "restorer.safetensors").write_bytes((other / "restorer.safetensors").read_bytes())
        with pytest.raises(SkipDiffError, match="behind another restorer"):
            denoising(data, tmp_path / "run", 3, behind, resume=True)
    finally:
        (tmp_path / "kept").replace(behind / "restorer.safetensors")
    assert sorted(weights.iterdir()) == before


def test_a_restorer_keeps_nothing_that_was_measured_without_it(
    data: Path, plain: Path, tmp_path: Path
) -> None:
    model = load_pretrained(plain, "cpu")
    config = replace(model.config, start=3, quality={"set": {"lpips": 0.1}})
    told = save_model(tmp_path / "told", model.network, config)
    made = load_pretrained(restoring(data, told, tmp_path / "run", 1).model, "cpu").config
    assert made.start is None and made.quality == {} and made.restorer is not None


def test_a_restorer_of_a_moved_folder_is_the_same(data: Path, behind: Path, tmp_path: Path) -> None:
    denoising(data, tmp_path / "run", 1, behind)
    moved = shutil.copytree(behind, tmp_path / "moved")
    assert denoising(data, tmp_path / "run", 2, moved, resume=True).step == 2


def test_what_cannot_be_is_refused(data: Path, behind: Path, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(SkipDiffError, match="tiny, which has no restorer"):
        denoising(data, tmp_path / "a", 1, plain)
    with pytest.raises(SkipDiffError, match="restorer_of cannot be combined with restorer"):
        load_recipe("restorer-4x-real", overrides=["restorer_of=natural-4x"])
    with pytest.raises(SkipDiffError, match="their restorers differ"):
        average_models(behind, plain, 0.5, tmp_path / "b")
    with pytest.raises(SkipDiffError, match="it has a restorer, so also set restorer_of="):
        train("tiny", [data], tmp_path / "d", init=behind, device="cpu")
    with pytest.raises(SkipDiffError, match="restorer needs degradation"):
        load_recipe("restorer-4x-real", overrides=["degradation=null"])
    with pytest.raises(SkipDiffError, match="is for skipdiff train-restorer"):
        train("restorer-4x-real", [data], tmp_path / "c", device="cpu")
    assert not list(tmp_path.glob("?/*"))


def test_the_command_trains_one(data: Path, plain: Path, tmp_path: Path) -> None:
    command = ["train-restorer", "--recipe", "restorer-4x-real", "--model", plain, "--data", data]
    changes = [word for change in RESTORER for word in ("--set", change)]
    rest = ["--out", tmp_path / "out", "--max-steps", "1", "--device", "cpu", *changes]
    done = subprocess.run(
        [sys.executable, "-m", "skipdiff_env.cli", *map(str, [*command, *rest])],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"step 1 (steps): {tmp_path / 'out' / 'model'}\n"
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert config["restorer"]["channels"] == 8 and config["refiner"] is None
    lr = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    model = load_pretrained(tmp_path / "out" / "model", "cpu")
    assert model.restorer is not None
    assert torch.equal(model.condition(lr), bicubic_condition(model.restorer(lr), 4))
    assert (to_signed(model.restorer(lr)) - to_signed(lr)).abs().max() < 0.5
