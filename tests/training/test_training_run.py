"""Training runs in this process: exact resumption, branches, limits, records."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from skipdiff_env.chains import CSA
from skipdiff_env.diffusion import load_pretrained, random_model, save_model
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics import psnr_y
from skipdiff_env.training import TrainResult, load_recipe
from skipdiff_env.training.data.bank import ImageBank
from skipdiff_env.training.distributed import World
from skipdiff_env.training.run.checkpoint import checkpoint_files, load_newest, save_checkpoint
from skipdiff_env.training.run.log import Progress, RunLog, read_log
from skipdiff_env.training.trainers.base import BatchMaker, Trainer
from skipdiff_env.training.trainers.validation import Validation, usual_chains
from tests.training.training_helpers import assert_same, picture, weights

Run = Callable[..., TrainResult]


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 8 steps; dropout is on."""
    from skipdiff_env.training import train

    out = tmp_path_factory.mktemp("reference")
    train("tiny", [folder], out, device="cpu", max_steps=8, overrides=["validation.images=0"])
    return out


def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(
    run: Run, reference: Path, tmp_path: Path
) -> None:
    assert run(tmp_path, 3).step == 3
    torch.manual_seed(123)  # whatever happened to the random state in between
    assert run(tmp_path, 5, resume=True).step == 5
    result = run(tmp_path, 8, resume=True)
    assert (result.step, result.reason) == (8, "steps")
    assert_same(weights(tmp_path), weights(reference))


def test_the_exported_model_is_the_moving_average(reference: Path) -> None:
    model = load_pretrained(reference / "model", device="cpu")
    saved = weights(reference)
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, saved[f"ema.{key}"].half().float()), key
    assert not torch.equal(saved["ema.mid.0.res_block.block1.block.3.weight"],
                           saved["network.mid.0.res_block.block1.block.3.weight"])  # fmt: skip
    recipe = load_recipe("tiny")
    assert model.config == replace(recipe.model, training=model.config.training)


def test_one_step_is_adamw_and_the_average_by_hand(pictures: list[np.ndarray]) -> None:
    recipe = load_recipe("tiny", overrides=["model.unet.dropout=0", "optimiser.clip=0.1"])
    cpu, bank = torch.device("cpu"), ImageBank(pictures)
    trainer = Trainer(recipe, cpu)
    batch = BatchMaker(recipe, bank, cpu, World())(0)
    before = [p.detach().clone() for p in trainer.network.parameters()]
    signal = batch.level[:, None, None, None]
    sigma = (1 - signal**2).sqrt()
    latent = signal * batch.target + sigma * batch.noise
    output = trainer.network(torch.cat([batch.condition, latent], 1), batch.level)
    loss = (output - (signal * batch.noise - sigma * batch.target)).square().mean()
    gradients = torch.autograd.grad(loss, list(trainer.network.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    measured, measured_norm = trainer.update(batch, 1e-3)
    assert measured.item() == pytest.approx(loss.item(), rel=1e-5)
    assert measured_norm.item() == pytest.approx(norm.item(), rel=1e-4) and norm > 0.1
    for old, g, new, average in zip(
        before, gradients, trainer.network.parameters(), trainer.ema.parameters(), strict=True
    ):
        g = g * 0.1 / norm
        moved = old - 1e-3 * g / (g.abs() + 1e-8)  # the first step of Adam: m̂ = g, √v̂ = |g|
        assert torch.allclose(new, moved, atol=2e-5)
        assert torch.allclose(average, old + (new - old) * (1 - 2 / 11), atol=1e-6)


def test_the_rate_warms_up_and_then_stays() -> None:
    trainer = Trainer(
        load_recipe("tiny", overrides=["optimiser.lr=1.0", "optimiser.warmup=4"]), torch.device("cpu")
    )
    assert [trainer.learning_rate(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert trainer.learning_rate(100, 0.3) == pytest.approx(0.3)


@pytest.mark.parametrize("degraded", [False, True])
def test_processes_draw_rows_of_the_same_batch(pictures: list[np.ndarray], degraded: bool) -> None:
    extras = ["data.zoom=1.5", "data.colour=0.1", "batch=12"]
    if degraded:
        effect = "{share: 0.5, low: 1, high: 30}"
        extras += [
            f"degradation={{noise: {effect}, jpeg: {effect}, blur: {{share: 0.5, low: 0.2, high: 1}}}}"
        ]
    recipe, bank, cpu = load_recipe("tiny", overrides=extras), ImageBank(pictures), torch.device("cpu")
    whole = BatchMaker(recipe, bank, cpu, World())(7)
    shares = [BatchMaker(recipe, bank, cpu, World(rank, 3))(7) for rank in range(3)]
    for name in ("target", "condition", "level", "noise"):
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(whole, name)), name
    assert not torch.equal(BatchMaker(recipe, bank, cpu, World())(8).noise, whole.noise)
    with pytest.raises(SkipDiffError, match="batch = 12 must be a multiple of 5, the number of processes"):
        BatchMaker(recipe, bank, cpu, World(0, 5))


def test_images_decoded_when_needed_train_the_same_weights(run: Run, reference: Path, tmp_path: Path) -> None:
    streamed = ("data.in_memory=false",)
    run(tmp_path, 4, overrides=streamed)
    run(tmp_path, 8, overrides=streamed, resume=True)
    assert_same(weights(tmp_path), weights(reference))


def test_a_truncated_newest_checkpoint_falls_back_with_a_warning(
    run: Run, reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, 3)
    run(tmp_path, 5, resume=True)
    newest, older = checkpoint_files(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-5000])
    capsys.readouterr()
    run(tmp_path, 8, resume=True)
    said = capsys.readouterr().err
    assert f"warning: {newest} is damaged" in said and f"continuing {older}" in said
    assert_same(weights(tmp_path), weights(reference))
    for file in checkpoint_files(tmp_path):
        file.write_bytes(b"")
    with pytest.raises(SkipDiffError, match="none of its checkpoints can be read"):
        run(tmp_path, 9, resume=True)


def test_two_checkpoints_are_kept_and_none_after_the_one_that_was_written(tmp_path: Path) -> None:
    for step in (1, 2, 3, 9):
        save_checkpoint(tmp_path, step, {"step": step})
    (tmp_path / "checkpoints" / "step-000000007.pt").write_bytes(b"damaged")
    (tmp_path / "checkpoints" / ".0123.part").write_bytes(b"of a run that was killed")
    save_checkpoint(tmp_path, 5, {"step": 5})
    assert [int(file.stem[5:]) for file in checkpoint_files(tmp_path)] == [5, 3]
    assert load_newest(tmp_path, print)[0] == {"step": 5}
    assert not list(tmp_path.rglob("*.part"))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"path": Path("a forged object")})
    said: list[str] = []
    with pytest.raises(SkipDiffError, match="can be read"):
        load_newest(tmp_path, said.append)
    assert "damaged" in said[0]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_what_is_needed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, 3)
    good = checkpoint_files(tmp_path)[0]
    update = Trainer.update

    def explode(self: Trainer, batch: object, lr: float) -> tuple[torch.Tensor, torch.Tensor]:
        loss, norm = update(self, batch, lr)
        return (loss * math.nan if self.step == 6 else loss), norm

    monkeypatch.setattr(Trainer, "update", explode)
    with pytest.raises(SkipDiffError, match=r"unstable at step 6: loss nan.*learning rate 0.002") as error:
        run(tmp_path, 8, resume=True)
    assert f"last good checkpoint: {good}" in str(error.value)
    assert checkpoint_files(tmp_path) == [good]


def test_a_resumed_run_must_be_the_same_run(run: Run, reference: Path, tmp_path: Path) -> None:
    with pytest.raises(SkipDiffError, match="already holds a run"):
        run(reference, 9)
    with pytest.raises(SkipDiffError, match=r"recipe differs in batch, optimiser.lr"):
        run(reference, 9, resume=True, overrides=("batch=2", "optimiser.lr=1e-4"))
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    with pytest.raises(SkipDiffError, match=r"other data \(6 images, .* now 1 images"):
        run(reference, 9, resume=True, data=[tmp_path])
    with pytest.raises(SkipDiffError, match="it holds no checkpoint"):
        run(tmp_path, 9, resume=True)
    with pytest.raises(SkipDiffError, match="give only one of them"):
        run(tmp_path, 9, resume=True, init="x")


def test_a_resumed_run_must_hold_out_the_same_images(folder: Path, run: Run, tmp_path: Path) -> None:
    """Which of them are held out decides what is drawn from the others."""
    run(tmp_path / "a", 2, overrides=("validation.images=2",))
    for changes, val in ((("validation.images=3",), []), ((), []), (("validation.images=2",), [folder])):
        with pytest.raises(SkipDiffError, match="other data.*2 of them held out") as error:
            run(tmp_path / "a", 3, resume=True, overrides=changes, val=val)
        assert "\n" not in str(error.value)
    run(tmp_path / "a", 3, resume=True, overrides=("validation.images=2", "validation.every=1"))
    # Validation images of their own may come and go.
    run(tmp_path / "b", 2, overrides=("validation.images=2",), val=[folder])
    run(tmp_path / "b", 3, resume=True, overrides=("validation.images=3",), val=[folder])
    run(tmp_path / "b", 4, resume=True)


def test_a_cool_down_branch_leaves_the_trunk_as_it_is(run: Run, reference: Path, tmp_path: Path) -> None:
    run(tmp_path, 4, overrides=("log_every=1",))
    result = run(tmp_path, None, resume=True, cooldown=3, overrides=("log_every=1",))
    branch = tmp_path / "cooldown-000000004"
    assert result == TrainResult(7, "cool-down", branch / "model")
    warm = [min(1, (step + 1) / 5) for step in (4, 5, 6)]
    rates = [line["lr"] for line in read_log(branch / "log.jsonl")]
    assert rates == pytest.approx([0.002 * w * left for w, left in zip(warm, (1, 2 / 3, 1 / 3), strict=True)])
    record = load_pretrained(branch / "model", device="cpu").config.training
    assert (record["steps"], record["legs"][-1]["cooldown_steps"]) == (7, 3)
    assert checkpoint_files(branch) == []  # finished
    for file in ("ddpm.safetensors", "config.json"):  # the run's model is the one to use
        assert (tmp_path / "model" / file).read_bytes() == (branch / "model" / file).read_bytes()
    run(tmp_path, 8, resume=True)
    assert_same(weights(tmp_path), weights(reference))


def test_requests_that_make_no_sense_are_refused(run: Run, tmp_path: Path) -> None:
    for options, message in (
        ({"cooldown": 3, "cooldown_minutes": 1.0}, "not both"),
        ({"cooldown_minutes": 1.0}, "last minutes of max-minutes"),
        ({"cooldown_minutes": 2.0, "max_minutes": 1.0}, "last minutes of max-minutes"),
        ({"cooldown": 0}, "longer than 0"),
    ):
        with pytest.raises(SkipDiffError, match=message):
            run(tmp_path, None, **options)
    if not torch.cuda.is_available():
        from skipdiff_env.training import train

        with pytest.raises(SkipDiffError, match="there is no device 'cuda' here: use auto or cpu"):
            train("tiny", [tmp_path], tmp_path, device="cuda")


def test_init_takes_weights_and_carries_their_record_on(run: Run, reference: Path, tmp_path: Path) -> None:
    run(tmp_path / "b", 2, init=reference / "model", overrides=("optimiser.lr=0",))
    start, end = (load_pretrained(x / "model", device="cpu") for x in (reference, tmp_path / "b"))
    assert_same(start.network.state_dict(), end.network.state_dict())  # at rate 0 they do not move
    run(tmp_path / "b", 3, resume=True, overrides=("optimiser.lr=0",))
    faults = "degradation={jpeg: {share: 0.5, low: 60, high: 95}, noise: {low: 1, high: 2}}"
    run(tmp_path / "c", 4, init=tmp_path / "b" / "model", overrides=(faults,))
    record = load_pretrained(tmp_path / "c" / "model", device="cpu").config.training
    assert [leg["steps"] for leg in record["legs"]] == [8, 3, 4]
    assert (record["steps"], record["images"]) == (15, 15 * 4)
    assert record["legs"][1]["init"] == {"model": "model", "hash": start.hash}
    assert record["hours"] == pytest.approx(sum(leg["hours"] for leg in record["legs"]), abs=2e-4)
    assert "CPU thread" in record["hardware"] and record["recipe"] == "tiny"
    assert [leg.get("degradation") for leg in record["legs"]] == [None, None, {"jpeg": [60, 95]}]
    assert record["degradation"] == {"jpeg": [60, 95]}, "that of the last leg; no picture got noise"


def test_init_refuses_other_architectures_by_name(run: Run, tmp_path: Path) -> None:
    recipe = load_recipe("tiny")
    for config, message in (
        (replace(recipe.model, prediction="noise"), "its prediction is 'noise', but recipe tiny has 'v'"),
        (
            replace(recipe.model, unet=replace(recipe.model.unet, level_embedding="signal")),
            "unet.level_embedding",
        ),
    ):
        save_model(tmp_path / "other", random_model(config).network, config)
        with pytest.raises(SkipDiffError, match=message):
            run(tmp_path / "out", 1, init=tmp_path / "other")
    attending = replace(recipe.model, unet=replace(recipe.model.unet, attention_sizes=(16,)))
    save_model(tmp_path / "other", random_model(attending).network, attending)
    with pytest.raises(SkipDiffError, match="it has attention at other levels"):
        run(tmp_path / "out", 1, init=tmp_path / "other")
    with pytest.raises(SkipDiffError, match="unknown model"):
        run(tmp_path / "out", 1, init=tmp_path / "nowhere")


def test_validation_writes_figures_a_picture_and_curves(folder: Path, run: Run, tmp_path: Path) -> None:
    changes = ("validation.images=3", "validation.every=4", "log_every=4")
    run(tmp_path, 8, overrides=changes, val=[folder])
    lines = [line for line in read_log(tmp_path / "log.jsonl") if "val_loss" in line]
    assert [line["step"] for line in lines] == [4, 8]
    assert {"psnr/bicubic", "psnr/coarse", "psnr/skip"} < lines[0].keys()
    assert lines[0]["psnr/bicubic"] == lines[1]["psnr/bicubic"]
    for step in (4, 8):
        grid = cv2.imread(str(tmp_path / f"samples-{step:09d}.png"))
        assert grid.shape == (24 + 36, 4 * 36 - 4, 3)  # bicubic, S = 10, S = 20 and HR at 32 pixels
    curves = cv2.imread(str(tmp_path / "curves.png"))
    assert curves.shape[0] == 3 * 300 and (curves < 100).any()  # loss, val_loss, psnr
    assert list((tmp_path / "tensorboard").iterdir())
    # Whether and when one validates changes nothing in what is trained.
    bare = tmp_path / "bare"
    run(bare, 8)
    assert_same(weights(tmp_path), weights(bare))


def test_validation_scores_what_its_pictures_show(pictures: list[np.ndarray]) -> None:
    recipe = load_recipe("tiny", overrides=["validation.images=4"])
    validation = Validation(recipe, pictures, torch.device("cpu"), print)
    assert validation.hr.shape == (4, 32, 32, 3)
    assert np.array_equal(validation.hr[0], pictures[0][4:36, 6:38])
    model = Trainer(recipe, torch.device("cpu")).frozen()  # zero-initialised: it predicts v = 0
    chains = usual_chains(model)
    samples, again = validation.samples(model, chains), validation.samples(model, chains)
    assert all(np.array_equal(samples[name], again[name]) for name in samples)
    figures = validation.figures(samples)
    for name, images in samples.items():
        assert figures[f"psnr/{name}"] == pytest.approx(psnr_y(images, validation.hr).mean())
    assert validation.loss(model) == validation.loss(model) > 0
    assert validation.samples(model, {"all": CSA(model.schedule.steps)}, 2)["all"].shape == (2, 32, 32, 3)


def test_small_validation_images_do_not_shrink_the_others(pictures: list[np.ndarray]) -> None:
    recipe, said = load_recipe("tiny", overrides=["validation.images=4"]), list[str]()
    small = [picture(8, 20, 60), picture(9, 17, 30)]
    validation = Validation(recipe, [small[0], *pictures, small[1]], torch.device("cpu"), said.append)
    assert validation.hr.shape == (4, 32, 32, 3)
    assert np.array_equal(validation.hr[0], pictures[0][4:36, 6:38])
    assert said == ["validation images left out because a side is below 32 pixels: 2"]
    # where there is nothing else, they do
    assert Validation(recipe, small, torch.device("cpu"), said.append).hr.shape == (2, 16, 16, 3)
    assert said[1:] == ["validation images have 16 pixels per side: none has 32"]


def test_a_missing_metrics_package_costs_a_word(
    pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "skipdiff_env.metrics", None)
    said: list[str] = []
    recipe = load_recipe("tiny", overrides=["validation.metrics=[lpips, niqe]"])
    assert Validation(recipe, pictures, torch.device("cpu"), said.append).metrics == []
    assert len(said) == 1 and "without lpips and niqe" in said[0]


def test_the_log_drops_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 1 / step})
    log.close()
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    resumed = RunLog(tmp_path, 2)
    resumed.write({"step": 3, "loss": 0.5})
    resumed.close()
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.5},
    ]  # fmt: skip


def test_the_progress_line_shows_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import time

    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = Progress("tiny", 8, stream)
    for step in range(1, 80):
        now = step / 2
        progress.update(step, 0.25, step / 80, 120.0)
    assert progress.rate() == pytest.approx(16)
    assert (
        stream.getvalue() == "[###############.....] tiny  step 60  loss 0.2500  16.0 images/s  2 min left\n"
    )
