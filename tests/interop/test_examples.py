"""The examples in agents/examples, on a tiny model folder, as people run them."""

import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from skipdiff_env.diffusion import NoiseSchedule, random_model, save_model, tiny_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """T = 20: with S = 10 an episode is one decision long."""
    config = tiny_config(image_size=32, schedule=NoiseSchedule.cosine(20).config)
    return save_model(tmp_path_factory.mktemp("models") / "tiny", random_model(config).network, config)


def run(example, *arguments):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, ROOT / "agents" / "examples" / example, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_async_vector_env(folder):
    """Episodes of one decision; after each of them a step resets. 6 steps of 2 workers: 6 episodes."""
    out = run("async_vector_env.py", "--model", folder, "--metric", "ssim", "--num-envs", 2, "--steps", 6)
    count, mean = re.fullmatch(r"(\d+) episodes, mean reward ([\d.]+)\n", out).groups()
    assert int(count) == 6 and 0 < float(mean) < 1


def test_cleanrl_style(folder, monkeypatch, capsys):
    arguments = ["--model", str(folder), "--metric", "ssim", "--num-envs", "2", "--num-steps", "4"]
    path = ROOT / "agents" / "examples" / "cleanrl_style.py"
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")
    found = re.findall(r"global_step=(\d+), episodic_return=([\d.]+)\n", capsys.readouterr().out)
    assert [int(step) for step, _ in found] == [2, 6] and all(0 < float(mean) < 1 for _, mean in found)


@pytest.mark.skipif(find_spec("torchrl") is None, reason="TorchRL is not installed")
def test_torchrl_env(folder):
    assert re.fullmatch(
        r"1 decisions, return [\d.]+\n", run("torchrl_env.py", "--model", folder, "--metric", "ssim")
    )
