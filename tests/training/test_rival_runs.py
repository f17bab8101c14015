"""The three programs behind CCSR and AddSR, run: they resume, export, learn, and stop when it is no use."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from skipdiff_env import SkipDiffSampler, load_pretrained
from skipdiff_env.chains import CCSR, AddSR
from skipdiff_env.diffusion import random_model, save_model
from skipdiff_env.diffusion.refiner import load_refiner
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training import TrainResult, available_recipes, load_recipe, train
from skipdiff_env.training.blocks import POOL
from skipdiff_env.training.data.bank import load_bank
from skipdiff_env.training.distributed import World
from skipdiff_env.training.programs import make_trainer
from skipdiff_env.training.run.checkpoint import checkpoint_files
from skipdiff_env.training.run.log import read_log
from skipdiff_env.training.trainers import critics
from skipdiff_env.training.trainers.adversarial import AdversarialTrainer
from skipdiff_env.training.trainers.base import BatchMaker, batch_number
from tests.shift_tolerant import forge
from tests.training.training_helpers import assert_same, picture, weights

RECIPES = {"ddpm": "ccsr-natural-4x", "refiner": "ccsr-refiner-4x", "addsr": "addsr-natural-4x"}
SMALL = ["data.crop=32", "batch=2", "validation.images=0", "log_every=1", "optimiser.warmup=1"]
SMALL_REFINER = "refiner.unet={channels: 8, multipliers: [1, 2], norm_groups: 4, dropout: 0.0, res_blocks: 1, patch_size: 2, attention_sizes: [], middle_attention: false}"  # noqa: E501
ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., TrainResult]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        cv2.imwrite(str(path / f"{i}.png"), picture(i, 48, 52))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with weights that do something."""
    config = load_recipe("tiny").model
    return save_model(tmp_path_factory.mktemp("frozen") / "tiny", random_model(config, 3).network, config)


@pytest.fixture(scope="module")
def start(data: Path, model: Path) -> Start:
    def run(program: str, out: Path, max_steps: int | None, *changes: str, **options: Any) -> TrainResult:
        overrides = [*SMALL, *changes]
        if program == "ddpm":
            overrides.append(f"model={model}")
        if program == "refiner":
            overrides.append(SMALL_REFINER)
        if not (options.get("resume") and program == "ddpm"):
            options.setdefault("init", model)
        return train(
            RECIPES[program], [data], out, device="cpu", max_steps=max_steps, overrides=overrides,
            program=program, **options,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def runs(start: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four steps of each program."""
    out = tmp_path_factory.mktemp("runs")
    for program in RECIPES:
        start(program, out / program, 4)
    return {program: out / program for program in RECIPES}


def everything(run: Path) -> dict[str, torch.Tensor]:
    """:func:`weights`, and the discriminator's."""
    state = torch.load(max((run / "checkpoints").glob("*.pt")), weights_only=True)["trainer"]
    return weights(run) | {f"critic.{k}": v for k, v in state.get("critic", {}).items()}


@pytest.mark.parametrize("program", RECIPES)
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    program: str, start: Start, runs: dict[str, Path], tmp_path: Path
) -> None:
    start(program, tmp_path, 2)
    torch.manual_seed(77)
    assert start(program, tmp_path, 4, resume=True).step == 4
    whole, parts = everything(runs[program]), everything(tmp_path)
    assert_same(whole, parts)
    assert (program == "ddpm") is not any(key.startswith("critic.") for key in whole)


def test_a_batch_that_serves_several_steps_is_made_once(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    evaluate = CCSR.evaluate

    def counted(self: CCSR, model: Any, index: int, *seen: torch.Tensor) -> torch.Tensor:
        made.append(index)
        return evaluate(self, model, index, *seen)

    monkeypatch.setattr(CCSR, "evaluate", counted)
    changes = "refiner.reuse=3", "refiner.steps=[2]"
    start("refiner", tmp_path / "whole", 7, *changes)
    assert made == [0, 1] * 3  # batches 0, 1 and 2, at steps 0, 3 and 6
    start("refiner", tmp_path / "parts", 5, *changes)
    start("refiner", tmp_path / "parts", 7, *changes, resume=True)
    assert_same(everything(tmp_path / "whole"), everything(tmp_path / "parts"))


def test_batches_come_again_from_the_last_ones() -> None:
    recipe = load_recipe("ccsr-refiner-4x", overrides=["refiner.reuse=3"])
    numbers = np.array([batch_number(recipe, step) for step in range(9000)])
    newest = np.arange(9000) // 3
    assert np.array_equal(numbers[::3], newest[::3])
    age = newest - numbers
    assert age.min() == 0 and POOL - 20 < age.max() < POOL
    assert (np.bincount(numbers)[:1000] > 0).all() and abs(age[6000:][age[6000:] > 0].mean() - POOL / 2) < 20
    plain = load_recipe("ccsr-refiner-4x")
    assert [batch_number(plain, step) for step in (0, 7, 100)] == [0, 7, 100]


def test_a_refiner_starts_from_another_one(start: Start, runs: dict[str, Path], tmp_path: Path) -> None:
    earlier = runs["refiner"] / "model"
    start("refiner", tmp_path / "run", 1, f"refiner.init={earlier}", "optimiser.lr=1e-9")
    began, now = (load_refiner(folder).network for folder in (earlier, tmp_path / "run" / "model"))
    for name, value in began.state_dict().items():
        assert torch.allclose(now.state_dict()[name], value, atol=1e-3), name
    config = load_pretrained(tmp_path / "run" / "model", "cpu").config
    assert config.refiner is not None
    init = config.refiner.training["legs"][-1]["init"]
    assert [leg["steps"] for leg in config.refiner.training["legs"]] == [4, 1]
    assert config.refiner.training["steps"] == 5
    assert (init["model"], init["refiner_of"]) == ("tiny", "model")
    assert init["refiner_hash"] == load_refiner(earlier).hash
    with pytest.raises(SkipDiffError, match=r"refiner.init: the refiner of .* has another architecture"):
        start("refiner", tmp_path / "other", 1, "refiner.init=ccsr-natural-4x")


def test_the_first_stage_takes_turns(runs: dict[str, Path]) -> None:
    lines = read_log(runs["ddpm"] / "log.jsonl")
    kinds = [next(key for key in ("denoising", "consistency") if key in line) for line in lines]
    assert kinds == ["denoising", "consistency"] * 2
    assert all(line["loss"] == line[kind] for line, kind in zip(lines, kinds, strict=True))
    record = load_pretrained(runs["ddpm"] / "model", "cpu").config.training
    assert record["legs"][-1]["init"]["model"] == "tiny" and record["steps"] == 4


def test_the_log_tells_the_terms_apart(runs: dict[str, Path]) -> None:
    for program, terms in (("refiner", ("l1", "lpips")), ("addsr", ("distillation",))):
        for line in read_log(runs[program] / "log.jsonl"):
            assert line["loss"] == pytest.approx(sum(line[term] for term in terms), rel=1e-5)
            assert {"adversarial", "critic_loss", "critic_norm", "critic_spread"} < line.keys()


def test_a_refiner_learns_from_vgg_instead_of_its_judge(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = "refiner.lpips=0", "refiner.vgg=0.5", "log_every=1"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SkipDiffError, match="pip install --no-deps stlpips_pytorch"):
        start("refiner", tmp_path / "none", 1, *changes)
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(forge(tmp_path)))
    start("refiner", tmp_path / "run", 2, *changes)
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["vgg"] > 0 and "lpips" not in first
    assert first["loss"] == pytest.approx(first["l1"] + first["vgg"], rel=1e-5)


def test_without_weight_there_is_no_discriminator(start: Start, tmp_path: Path) -> None:
    """It is not trained, takes no time and cannot collapse; the rest learns as it would."""
    start("refiner", tmp_path / "run", 2, "refiner.adversarial.weight=0")
    start("refiner", tmp_path / "none", 0, "refiner.adversarial.weight=0")
    for line in read_log(tmp_path / "run" / "log.jsonl"):
        assert not {"adversarial", "critic_loss"} & line.keys()
        assert line["loss"] == pytest.approx(line["l1"] + line["lpips"], rel=1e-5)
    before, after = everything(tmp_path / "none"), everything(tmp_path / "run")
    critic = [key for key in before if key.startswith("critic.")]
    assert critic and all(torch.equal(before[key], after[key]) for key in critic)
    assert not all(torch.equal(before[key], after[key]) for key in before)


def test_a_refiner_goes_next_to_its_model_and_into_the_sampler(runs: dict[str, Path], model: Path) -> None:
    folder = runs["refiner"] / "model"
    assert (folder / "ddpm.safetensors").read_bytes() == (model / "ddpm.safetensors").read_bytes()
    frozen, original = load_pretrained(folder, "cpu"), load_pretrained(model, "cpu")
    assert frozen.hash == original.hash
    assert frozen.config.refiner is not None and frozen.config.refiner.training["steps"] == 4
    assert (frozen.chain, frozen.config.refiner.strength) == ("ccsr:2", 1.0)
    lr = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    refiner = load_refiner(folder)
    for policy in (CCSR(2), 1):
        steps = None if isinstance(policy, CCSR) else 4
        plain = SkipDiffSampler(frozen, steps, refiner=None)(lr, policy=policy)
        fine = SkipDiffSampler(frozen, steps, refiner=folder)(lr, policy=policy)
        assert fine.trace[0].evaluations == plain.trace[0].evaluations
        x0 = torch.from_numpy(plain.images).permute(0, 3, 1, 2).float() / 127.5 - 1
        condition = frozen.condition(torch.from_numpy(lr).permute(0, 3, 1, 2))
        expected = ((refiner(x0, condition) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        assert np.array_equal(fine.images, expected.permute(0, 2, 3, 1).numpy())
    with pytest.raises(SkipDiffError, match="has no refiner"):
        SkipDiffSampler(original, 4, refiner=model)
    with pytest.raises(SkipDiffError, match="refiner=3 must be"):
        SkipDiffSampler(original, 4, refiner=3)  # type: ignore[arg-type]


def test_refiner_and_student_work_in_the_environment(runs: dict[str, Path]) -> None:
    import gymnasium

    from skipdiff_env.latent_cache import LatentCache

    image = picture(9, 32, 32)
    common: dict[str, Any] = {"images": [image], "metric": lambda x: x.mean((1, 2, 3)), "return_image": True}

    def play(**options: Any) -> dict[str, Any]:
        env = gymnasium.make("SkipDiff-v0", **common, **options)
        _, info = env.reset(seed=1, options={"noise_seed": 4})
        done = False
        while not done:
            _, _, done, _, info = env.step(0)
        return info

    student = runs["addsr"] / "model"
    info = play(model=student, coarse_steps=2, fine_steps=4)
    assert info["evaluations"] == 1 + 4 and len(info["actions"]) == 3
    assert play(model=student, coarse_steps=2)["evaluations"] == 3
    out = SkipDiffSampler(load_pretrained(student, "cpu"))(image[::4, ::4], policy=AddSR(4))
    assert out.trace[0].evaluations == 4

    folder, cache = runs["refiner"] / "model", LatentCache()
    plain = play(model=folder, coarse_steps=4)
    fine = play(model=folder, coarse_steps=4, refiner=folder)
    assert fine["evaluations"] == plain["evaluations"]
    assert not np.array_equal(fine["sr_image"], plain["sr_image"])
    for _ in range(2):  # cold and warm
        cached = play(model=folder, coarse_steps=4, refiner=folder, cache=cache)
        assert np.array_equal(cached["sr_image"], fine["sr_image"])


@pytest.mark.parametrize("program", ["refiner", "addsr"])
def test_what_is_not_finite_is_named(
    program: str, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(program, tmp_path, 2)
    good = checkpoint_files(tmp_path)[0]
    monkeypatch.setattr(
        "skipdiff_env.training.trainers.adversarial.critic_hinge", lambda real, fake: real.mean() * math.nan
    )
    with pytest.raises(SkipDiffError, match="unstable at step 3: loss .*critic loss nan") as error:
        start(program, tmp_path, 4, resume=True)
    assert f"last good checkpoint: {good}" in str(error.value)
    assert checkpoint_files(tmp_path) == [good]


def test_a_collapsed_discriminator_ends_the_run(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(critics, "COLLAPSE_STEPS", 2)
    monkeypatch.setattr(critics, "ALIKE", 1e9)
    with pytest.raises(SkipDiffError, match="discriminator had collapsed at step 2: .*same answer"):
        start("addsr", tmp_path, 4)


def test_a_run_goes_on_with_its_own_frozen_model_alone(start: Start, model: Path, tmp_path: Path) -> None:
    start("refiner", tmp_path / "run", 1)
    config = load_recipe("tiny").model
    other = save_model(tmp_path / "other", random_model(config, 4).network, config)
    with pytest.raises(SkipDiffError, match="started with the model tiny .*: give the same model"):
        start("refiner", tmp_path / "run", 2, resume=True, init=other)


def test_recipes_and_commands_must_fit(tmp_path: Path, data: Path) -> None:
    for recipe, program, words in (
        ("tiny", "refiner", "recipe tiny is for skipdiff train-ddpm"),
        ("ccsr-refiner-4x", "addsr", "is for skipdiff train-refiner"),
        ("addsr-natural-4x", "ddpm", "is for skipdiff train-addsr"),
    ):
        with pytest.raises(SkipDiffError, match=words):
            train(recipe, [data], tmp_path / "out", device="cpu", max_steps=1, program=program)  # type: ignore[arg-type]
    with pytest.raises(SkipDiffError, match="does not name a model to train from"):
        train(
            "addsr-natural-4x",
            [data],
            tmp_path / "out",
            device="cpu",
            program="addsr",
            overrides=["init=null"],
        )


@pytest.mark.parametrize("command", ["train-refiner", "train-addsr"])
def test_the_commands_run(command: str, data: Path, model: Path, tmp_path: Path) -> None:
    recipe = RECIPES[command.removeprefix("train-")]
    changes = [
        *SMALL,
        "validation.images=1",
        "validation.metrics=[]",
        "validation.grid=1",
        "precision=float32",
    ]
    if command == "train-refiner":
        changes.append(SMALL_REFINER)
    arguments = [x for change in changes for x in ("--set", change)]
    done = subprocess.run(
        [sys.executable, "-m", "skipdiff_env.cli", command, "--recipe", recipe, "--model", model,
         "--data", data, "--out", tmp_path / "out", "--device", "cpu", "--max-steps", "1", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"step 1 (steps): {tmp_path / 'out' / 'model'}\n"
    config = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert (config["refiner"] is not None) == (command == "train-refiner")
    assert (tmp_path / "out" / "samples-000000001.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("program", RECIPES)
def test_two_minutes_of_training_lower_the_loss(
    program: str, start: Start, data: Path, model: Path, tmp_path: Path
) -> None:
    """On batches that training has not come to, the same ones before and after."""
    changes = ("optimiser.lr=1e-3", "batch=4", "optimiser.warmup=20")
    start(program, tmp_path, 1500, *changes, max_minutes=2)
    small = [SMALL_REFINER] if program == "refiner" else []
    overrides = [*SMALL, *small, *changes, f"model={model}", f"init={model}"]
    recipe, cpu = load_recipe(RECIPES[program], overrides=overrides), torch.device("cpu")
    trainer = make_trainer(recipe, cpu, World())
    if program != "refiner":
        trainer.network.load_state_dict(load_pretrained(model, "cpu").network.state_dict())
    bank, _ = load_bank([data], 32)
    batches = BatchMaker(recipe, bank, cpu, World())

    @torch.no_grad()
    def mean_loss() -> float:
        total = 0.0
        for step in range(10_000, 10_040):
            trainer.step, batch = step, batches(step)
            adversarial = isinstance(trainer, AdversarialTrainer)
            terms = trainer.attempt(batch).losses.values() if adversarial else [trainer._loss(batch)]
            total += sum(term.item() for term in terms)
        return total / 40

    before = mean_loss()
    newest = checkpoint_files(tmp_path)[0]
    trainer.load_state_dict(torch.load(newest, weights_only=True)["trainer"])
    assert mean_loss() < 0.95 * before


@pytest.mark.slow
@pytest.mark.parametrize("program", ["refiner", "addsr"])
def test_the_shipped_recipes_take_a_few_steps(program: str, data: Path, tmp_path: Path) -> None:
    changes = ["batch=1", "data.crop=32", "validation.images=0"]
    assert RECIPES[program] in available_recipes()
    result = train(
        RECIPES[program], [data], tmp_path, device="cpu", max_steps=2, overrides=changes, program=program
    )  # type: ignore[arg-type]
    assert result.step == 2


def test_further_parts_do_not_reach_plain_training(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    train(
        "tiny", [data], tmp_path, device="cpu", max_steps=1, overrides=["validation.images=0", "log_every=1"]
    )
    assert set(read_log(tmp_path / "log.jsonl")[0]) == {
        "step", "loss", "gradient_norm", "lr", "images_per_second", "minutes",
    }  # fmt: skip
