"""The commands around training: train, export, evaluate, oracle; their errors and signals."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sb3_contrib")
from skipdiff_agents.cli import main
from skipdiff_agents.pairs import enough, kept_back
from skipdiff_agents.train import Progress, Run
from skipdiff_env import SkipDiffSampler
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model
from skipdiff_env.images.mixed import KINDS, kind
from skipdiff_env.policies.file import load_policy
from tests.agents.runs import small


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model folder and pictures."""
    folder = tmp_path_factory.mktemp("files")
    model = random_model(tiny_config())
    save_model(folder / "model", model.network, model.config)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    return folder


def options(files):
    return [
        "--model", str(files / "model"), "--images", str(files / "images"), "--metric", "psnr",
        "--coarse-steps", "20", "--noise-seeds", "2", "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(small("recurrent_ppo", 128, num_envs=4)))
    return str(path)


def test_the_commands(tmp_path, files, mine, capsys):
    out = tmp_path / "run"
    assert main(["train", "--algo", mine, "--out", str(out), *options(files), "--timesteps", "64"]) == 0
    assert "policy.safetensors" in capsys.readouterr().out
    exported = tmp_path / "agent"
    assert main(["export", str(out / "checkpoint.zip"), "--format", "torch-export", "-o", str(exported)]) == 0
    policy = load_policy(f"{exported}.pt2")
    sampler = SkipDiffSampler(random_model(tiny_config()), coarse_steps=20)
    assert len(sampler(np.zeros((8, 8, 3), np.uint8), policy=policy).trace[0].actions) == 4

    table = tmp_path / "table.csv"
    arguments = [
        "evaluate",
        "3",
        "denoise",
        "skip",
        "random",
        str(out / "policy.safetensors"),
        *options(files),
    ]
    arguments += ["--optimum", "--also", "ssim", "--best-start-on", str(files / "images"), "-o", str(table)]
    capsys.readouterr()
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    lines = printed.strip().splitlines()
    assert len(lines) == 2 + 6 and lines[2].startswith("| best start (") and "regret" in lines[0]
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 6 * 2 * 2 and all(float(r["ssim"]) <= 1 for r in rows)
    before = table.read_bytes()
    assert main(arguments) == 0  # nothing is played again
    assert capsys.readouterr().out == printed and table.read_bytes() == before

    outcomes = tmp_path / "outcomes.csv"
    assert main(["oracle", *options(files), "-o", str(outcomes)]) == 0
    assert (
        len(capsys.readouterr().out.splitlines()) == 4 and len(list(csv.DictReader(outcomes.open()))) == 4 * 5
    )


def test_several_runs_and_a_price_are_evaluated(tmp_path, files, capsys):
    runs = []
    for name, algorithm in (("plain", "ppo"), ("priced", "ppo_step_cost")):
        path, folder = tmp_path / f"{name}.yaml", str(tmp_path / name)
        path.write_text(json.dumps(small(algorithm, 64, num_envs=4)))
        metric = ["--metric", "ssim"] if name == "priced" else []
        assert main(["train", "--algo", str(path), "--out", folder, *options(files), *metric]) == 0
        runs.append(folder)

    def names(*arguments):
        capsys.readouterr()
        assert main(["evaluate", *arguments, "--device", "cpu", "--noise-seeds", "1"]) == 0
        lines = capsys.readouterr()
        return [line.split("|")[1].strip() for line in lines.out.splitlines()[2:]], lines.err

    both, said = names(*runs)
    assert [name.partition("@")[0] for name in both] == ["policy.safetensors"] * 2
    assert both[1].endswith(" at 0.002") and " at " not in both[0]  # the middle of 2e-4 … 2e-2
    assert f"note: {runs[1]} is played like {runs[0]}, but was trained with another metric\n" in said
    assert names(runs[1], "--step-cost", "0.01")[0][0].endswith(" at 0.01")
    for arguments, match in (
        ([runs[0], "--step-cost", "0.01"], "--step-cost needs an agent that was trained with prices"),
        ([runs[1], "--step-cost", "nan"], "step_cost=nan must be a finite number"),
    ):
        assert main(["evaluate", *arguments, "--device", "cpu"]) == 2
        assert match in capsys.readouterr().err


@pytest.mark.parametrize(("mixed", "kept"), [(False, [9, 19, 29, 39]), (True, [36, 37, 38, 39])])
def test_every_kind_of_fault_is_held_out(tmp_path, files, mine, monkeypatch, mixed, kept):
    (tmp_path / "images").mkdir()
    for i in range(42):
        cv2.imwrite(str(tmp_path / "images" / f"{i:02}.png"), np.full((32, 32, 3), i, np.uint8))
    runs = []

    def train(self, resume, progress_bar, say):
        runs.append(self)
        return Progress(best_reward=0.0)

    monkeypatch.setattr(Run, "train", train)
    arguments = ["train", "--algo", mine, "--out", str(tmp_path / "run"), *options(files)]
    arguments += ["--images", str(tmp_path / "images"), *(["--mixed"] if mixed else [])]
    assert main(arguments) == 0
    held_out = sorted({image for image, _ in runs[0].evaluator.pairs})
    assert len(runs[0].evaluator.pairs) == 8
    assert held_out == kept and {image for image, _ in runs[0].pairs} == {*range(42)} - {*kept}
    assert not mixed or {kind(image) for image in held_out} == {*KINDS}
    assert kept_back(7) == [2, 5] and kept_back(9) == [2, 5, 8] and kept_back(16, 4) == [8, 9, 10, 11]
    assert kept_back(39, 4) == [*range(8, 12), *range(20, 24), *range(32, 36)]
    assert kept_back(3) == kept_back(15, 4) == []
    assert enough(24, 5) == 5 and enough(24, 24) == 1


def test_errors_are_one_line(tmp_path, files, capsys):
    for arguments, match in [
        (["train", "--algo", "sac", "--out", "x", *options(files)], "unknown algorithm 'sac'"),
        (["export", str(tmp_path / "no.zip"), "-o", "a.onnx"], "is missing"),
        (["export", "runs/typo", "-o", "a.onnx"], "runs/typo is missing: give the folder of a run, a policy"),
        (["evaluate", "99", *options(files)], "start=99"),
        (["oracle", *options(files), "--fine-steps", "20", "--skip-rule", "hold"], "1048594 network calls"),
    ]:  # fmt: skip
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("skipdiff-agent: error: ") and error.count("\n") == 1 and match in error


@pytest.mark.slow
def test_a_signal_ends_a_run_that_can_be_resumed(tmp_path, files, mine):
    out, root = tmp_path / "run", Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "skipdiff_agents.cli", "train", "--algo", mine, "--out", str(out)]
    paths = os.pathsep.join([str(root), str(root / "agents"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *options(files), "--timesteps", "1000000", "--every", "64"],
        env=environment,
        stderr=subprocess.PIPE,
    )
    log = out / "evaluations.csv"
    end = time.monotonic() + 120
    while not log.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, errors
    done = json.loads((out / "checkpoint.json").read_text())["timesteps"]
    assert 64 <= done < 1_000_000
    more = ["--resume", "--timesteps", str(done + 64)]
    assert main(["train", "--algo", mine, "--out", str(out), *options(files), *more]) == 0
    assert json.loads((out / "checkpoint.json").read_text())["timesteps"] >= done + 64
