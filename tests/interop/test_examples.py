"""The examples in agents/examples, on a tiny model folder, as people run them."""

import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipdiff_env.diffusion import NoiseSchedule, random_model, save_model, tiny_config

ROOT = Path(__file__).resolve().parents[2]
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "300"}
"""Nothing leaves the machine, and a busy one is waited for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """T = 20: with S = 10 an episode is one decision long."""
    config = tiny_config(image_size=32, schedule=NoiseSchedule.cosine(20).config)
    return save_model(tmp_path_factory.mktemp("models") / "tiny", random_model(config).network, config)


def run(example, *arguments, python=sys.executable, **options):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [python, ROOT / "agents" / "examples" / example, *map(str, arguments)],
        capture_output=True, text=True, timeout=900,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **RAY}, **options,
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
@pytest.mark.parametrize("num_envs", [1, 2])
def test_torchrl_env(folder, num_envs):
    out = run("torchrl_env.py", "--model", folder, "--metric", "ssim", "--num-envs", num_envs)
    assert re.search(r"^1 decisions, return [\d.]+\n\Z", out, re.MULTILINE)  # TorchRL logs before it


@pytest.mark.ray
def test_ray_rllib(folder):
    """A runner in a process of its own plays 4 episodes as one batch; PPO finds out that calls cost more
    than they are worth. Two decisions (T = 30): at random one call of them on average, and always a last one.
    """
    python = ROOT / ".venv-ray" / "bin" / "python"
    assert python.is_file(), "make test-ray makes the environment first"
    config = tiny_config(image_size=32, schedule=NoiseSchedule.cosine(30).config)
    save_model(folder.parent / "two", random_model(config).network, config)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder.parent / "noise.png")
    out = run(
        "ray_rllib.py", "--model", "two", "--images", "noise.png", "--metric", "ssim", "--step-cost", 1,
        "--observation-size", 16, "--env-runners", 1, "--num-envs", 4, "--steps", 128, "--iterations", 6,
        "--learning-rate", 0.003, python=python, cwd=folder.parent,
    )  # fmt: skip
    found = re.findall(r"iteration (\d+): (\d+) decisions, mean return (-[\d.]+)\n", out)
    assert [(int(i), int(n)) for i, n, _ in found] == [(i, 128 * i) for i in range(1, 7)]
    returns = [float(mean) for *_, mean in found]
    assert -2.4 < returns[0] < -1.5 and returns[-1] > -1.3, returns
