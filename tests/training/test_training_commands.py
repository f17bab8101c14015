"""Training as people start it: as a command, killed, with packages missing, in several processes."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training import TrainResult, available_recipes, load_recipe
from skipdiff_env.training.run.checkpoint import checkpoint_files
from tests.training.training_helpers import assert_same, start, start_two, weights

QUICK = ["--recipe", "tiny", "--device", "cpu", "--set", "validation.images=0", "--set", "batch=4"]
COMMAND = "import sys; from skipdiff_env.cli import main; sys.exit(main(['train-ddpm', *sys.argv[1:]]))"
WITHOUT = """
import sys
missing = "gymnasium PIL pyiqa torchvision skimage scipy tqdm tensorboard matplotlib".split()
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in missing else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while not any(int(file.stem[5:]) >= step for file in checkpoint_files(out)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.05)


def test_a_killed_run_resumes_to_the_weights_of_an_uninterrupted_one(
    folder: Path, run: Callable[..., TrainResult], tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = start(COMMAND, *QUICK, "--data", folder, "--out", out, "--set", "checkpoint_minutes=0.0001")
    wait_for_step(process, out, 6)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    reached = int(checkpoint_files(out)[0].stem[5:])
    assert reached >= 6
    total = reached + 4
    assert run(out, total, resume=True).step == total
    run(tmp_path / "whole", total)
    assert_same(weights(out), weights(tmp_path / "whole"))


def test_a_second_run_into_one_folder_is_refused(
    folder: Path, run: Callable[..., TrainResult], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = start(COMMAND, *QUICK, "--data", folder, "--out", out, "--set", "checkpoint_minutes=0.0001")
    wait_for_step(first, out, 2)
    refused = (
        f"cannot use {out}: another run is writing there: wait until the other run has ended, or give "
        "another folder"
    )
    for resume in (False, True):
        with pytest.raises(SkipDiffError, match=refused):
            run(out, resume=resume)
    second = start(COMMAND, *QUICK, "--data", folder, "--out", out, "--resume")
    assert second.communicate(timeout=120) == ("", f"skipdiff: error: {refused}\n")
    assert second.returncode == 2
    assert first.poll() is None, first.communicate()
    first.kill()
    first.communicate()
    reached = int(checkpoint_files(out)[0].stem[5:])
    assert run(out, reached + 1, resume=True).step == reached + 1  # a dead run holds nothing
    assert not (out / ".lock").exists()


def test_a_run_that_does_not_begin_leaves_no_folder(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SkipDiffError, match="none of the images"):
        run(tmp_path / "out", data=[tmp_path / "empty"])
    assert not (tmp_path / "out").exists()


def test_sigterm_ends_a_run_on_a_bare_machine_with_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    process = start(
        WITHOUT + COMMAND, *QUICK, "--data", folder, "--out", tmp_path, "--set", "checkpoint_minutes=0.01",
        "--set", "validation={images: 2, grid: 1, metrics: [lpips], every: 5}",
    )  # fmt: skip
    wait_for_step(process, tmp_path, 6)
    before = int(checkpoint_files(tmp_path)[0].stem[5:])
    process.send_signal(signal.SIGTERM)
    output, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    assert "TensorBoard is not installed" in said and "validation measures PSNR only" in said
    step = int(checkpoint_files(tmp_path)[0].stem[5:])
    assert step >= before and output == f"step {step} (SIGTERM): {tmp_path / 'model'}\n"
    assert torch.load(checkpoint_files(tmp_path)[0], weights_only=True)["trainer"]["step"] == step
    assert (tmp_path / "model" / "config.json").is_file() and (tmp_path / "samples-000000005.png").is_file()


def test_two_processes_at_half_the_batch_are_one_at_the_whole(
    folder: Path, run: Callable[..., TrainResult], tmp_path: Path
) -> None:
    options = ["--data", folder, "--out", tmp_path / "two", "--max-steps", 5, "--set", "log_every=1"]
    options += ["--set", "model.unet.dropout=0.0"]  # each process has its own
    for rank, process in enumerate(start_two(COMMAND, *QUICK, *options)):
        output, said = process.communicate(timeout=180)
        assert process.returncode == 0, said
        assert rank == 0 or "images" not in said  # only the first one speaks
    changes = ("model.unet.dropout=0.0", "log_every=1")
    run(tmp_path / "one", 5, overrides=changes)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one.items():
        assert torch.allclose(value, two[key], rtol=1e-3, atol=2e-5), key
    from skipdiff_env.training.run.log import read_log

    losses = [[line["loss"] for line in read_log(tmp_path / name / "log.jsonl")] for name in ("one", "two")]
    assert len(losses[0]) == 5 and losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from skipdiff_env.cli import main

    status = main(["train-ddpm", "--recipe", "natural-5x", "--data", str(tmp_path), "--out", str(tmp_path)])
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert captured.err.startswith("skipdiff: error: unknown recipe 'natural-5x'")
    assert captured.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [r for r in available_recipes() if r != "tiny" and load_recipe(r).program == "ddpm"]
)
def test_every_recipe_takes_a_few_steps(recipe: str, folder: Path, tmp_path: Path) -> None:
    from skipdiff_env.training import train

    changes = ["batch=1", "data.crop=32", "data.resize_short=null", "validation.images=0", "init=null"]
    result = train(recipe, [folder], tmp_path, device="cpu", max_steps=3, overrides=changes)
    assert result.step == 3 and (result.model / "ddpm.safetensors").stat().st_size > 1e7


@pytest.mark.slow
def test_data_and_logging_cost_little_of_a_step() -> None:
    from benchmarks.speed.training import training_speed

    row = training_speed("natural-4x", steps=5, device="cpu", images=8)
    assert 0 < row["overhead_share"] <= 0.05
    assert row["images_per_second"] > 0 and 0 < row["peak_share"] < 1.5
