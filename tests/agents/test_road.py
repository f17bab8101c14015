"""From training to a picture by the commands of README, on a tiny model."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sb3_contrib")
from benchmarks.__main__ import main as benchmarks
from skipdiff_agents.cli import main
from skipdiff_agents.settings import read_settings
from skipdiff_env.cli import main as skipdiff
from skipdiff_env.diffusion import random_model, save_model, tiny_config

ROOT = Path(__file__).resolve().parents[2]


def prepare(folder):
    """A tiny model, pictures, a photograph and a recipe in a folder; options of ``skipdiff-agent train``."""
    model = random_model(tiny_config(image_size=32))
    save_model(folder / "tiny", model.network, model.config)
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(5):
        picture = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"photos/{i}.png")
    Image.fromarray(picture[:12, :12]).save(folder / "photo.jpg")
    settings = read_settings("recurrent_ppo")
    settings |= {"timesteps": 320, "num_envs": 4, "observation_size": 16}
    settings["policy"] = settings["policy"] | {"hidden_size": 8}
    (folder / "small.yaml").write_text(json.dumps(settings))
    tiny = ["--model", "tiny", "--images", "photos", "--metric", "psnr", "--coarse-steps", "20"]
    return ["--algo", "small.yaml", *tiny]


def test_from_training_to_a_picture(tmp_path, monkeypatch, capsys):
    """Each command but the first is what the one before says comes next; the model is told to the first."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- the road -->\n```sh\n(.*?)```", page, re.DOTALL)
    train, evaluate, export, upscale = map(shlex.split, block.splitlines())
    monkeypatch.chdir(tmp_path)
    small = prepare(tmp_path)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "agents"), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-m", "skipdiff_agents.cli", *train[1:], *small],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lines = ran.stderr.splitlines()
    recorded = tmp_path / "skipdiff" / "recordings"
    assert f"recording into {recorded}, once (episodes: 24, network calls for each: 34)" in lines
    assert f"recording into {recorded}, once (episodes: 8, network calls for each: 34)" in lines
    assert any(re.match(r"recording: 1 of 24, \d+ (s|min) left", line) for line in lines)
    assert sum(bool(re.match(r"\d+ of 320 decisions: held-out reward", line)) for line in lines) == 20
    assert re.search(
        r"^held out: agent \d+\.\d+ with .* best fixed start \(\d\) .*, optimum", ran.stdout, re.M
    )
    assert lines[-1] == "next: " + shlex.join(evaluate)

    assert main(evaluate[1:]) == 0
    told = capsys.readouterr()
    rows = [line.split("|")[1].strip() for line in told.out.splitlines()[2:]]
    assert rows[0].startswith("policy.safetensors@") and rows[1:] == [f"start {k}" for k in range(1, 6)]
    assert "regret" in told.out.splitlines()[0]
    assert told.err.splitlines()[-1] == "next: " + shlex.join(export)
    files = len([*recorded.rglob("*.safetensors")])
    assert files == 24 + 8 + 8  # new noise, on what was held out
    assert main([*evaluate[1:], "--images", "photos", "--noise-seeds", "1"]) == 0  # on all
    capsys.readouterr()
    assert len([*recorded.rglob("*.safetensors")]) == files + 4  # 0 … 4, one of which is known

    assert main(export[1:]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"next: {shlex.join(upscale[:-1])} {tmp_path / 'tiny'} --coarse-steps 20"
    assert skipdiff([*shlex.split(last)[2:], "--device", "cpu", "--quiet"]) == 0
    with Image.open("large.png") as large:
        assert large.size == (48, 48)


def test_the_road_is_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "agents"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", paths)
    assert benchmarks(["road", "--out", "out", "--train", *prepare(tmp_path)]) == 0
    page = (tmp_path / "out" / "agents" / "tiny" / "road.md").read_text(encoding="utf-8")
    assert re.search(r"took \d+\.\d minutes, recording included, .* on \d+ cores", page)
    assert "`skipdiff-agent train --algo small.yaml --model tiny" in page
    assert "Made by `python -m benchmarks road --train --algo small.yaml" in page
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows[0] == "policy" and rows[2:] == [f"start {k}" for k in range(1, 6)]
    assert not [*tmp_path.glob("runs")]


def test_a_road_that_ends_early_is_said(tmp_path, capfd):
    assert benchmarks(["road", "--out", str(tmp_path), "--train", "--model", str(tmp_path / "none")]) == 2
    assert "skipdiff-agent train ended with status 2" in capfd.readouterr().err and not [*tmp_path.iterdir()]
