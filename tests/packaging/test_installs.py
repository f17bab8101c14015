"""A wheel, an editable install and the bare source tree: each finds its models and runs its commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skipdiff_env._version import __version__

NO_NETWORK = """
import socket
def refuse(*args, **kwargs):
    raise OSError("this must not touch the network")
socket.socket.connect = socket.getaddrinfo = refuse
"""

PROBE = f"""{NO_NETWORK}
import importlib, json, sys
import gymnasium
env = gymnasium.make("skipdiff_env:SkipDiff-v0")
import skipdiff_env
from skipdiff_env.diffusion import available_models, load_pretrained
files = {{name: importlib.import_module(name).__file__ for name in sys.argv[1:]}}
models = {{name: str(path) for name, path in available_models().items()}}
shape = env.observation_space.shape
print(json.dumps({{"files": files, "models": models, "name": load_pretrained().name, "shape": shape}}))
"""


@pytest.mark.parametrize("kind", ["from_wheel", "from_editable", "from_source"])
def test_models_and_environment_are_found(kind: str, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue(kind)
    packages = ["skipdiff_env"] if kind == "from_source" else ["skipdiff_env", "skipdiff_agents"]
    found: dict[str, Any] = json.loads(place.run("-c", PROBE, *packages).splitlines()[-1])
    for path in [*found["files"].values(), *found["models"].values()]:
        assert Path(path).resolve().is_relative_to(place.code.resolve())
    assert found["name"] == "natural-4x" and "natural-4x" in found["models"]
    assert found["shape"] == [3, 192, 192]


@pytest.mark.parametrize("kind", ["from_wheel", "from_editable", "from_source"])
def test_the_command_runs(kind: str, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue(kind)
    command = ["-m", "skipdiff_env.cli"] if kind == "from_source" else [place.python.with_name("skipdiff")]
    said = place.run(*command, "info")
    assert __version__ in said and "natural-4x" in said


def test_the_wheel_enlarges_and_scores_without_a_network(from_wheel: Any, tmp_path: Path) -> None:
    Image.effect_noise((28, 24), 60).convert("RGB").save(tmp_path / "small.png")
    from_wheel.run(
        from_wheel.python.with_name("skipdiff"), "upscale", tmp_path / "small.png", "-o", tmp_path / "big.png"
    )
    with Image.open(tmp_path / "big.png") as big:
        assert big.size == (112, 96)
    score = f"""{NO_NETWORK}
import sys
import numpy as np
from PIL import Image
from skipdiff_env.metrics import load_metric
image = np.asarray(Image.open(sys.argv[1]))[None]
print(load_metric("niqe")(image)[0], load_metric("lpips")(image, image)[0])
"""
    niqe, lpips = map(float, from_wheel.run("-c", score, tmp_path / "big.png").split()[-2:])
    assert niqe > 0 and abs(lpips) < 1e-5


PLAY = f"""{NO_NETWORK}
import gymnasium
import skipdiff_env
env = gymnasium.make("SkipDiff-v0")
env.reset(seed=0)
seen, reward, done, _, info = env.step(0)
print(seen.shape, reward, done, info["evaluations"])
"""


def test_the_wheel_plays_and_has_its_agents(from_wheel: Any) -> None:
    """Nine coarse jumps and the first fine step are ten evaluations."""
    assert from_wheel.run("-c", PLAY).splitlines()[-1] == "(3, 192, 192) 0.0 False 10"
    said = from_wheel.run(from_wheel.python.with_name("skipdiff-agent"), "--help")
    assert {"train", "evaluate", "export"} <= set(said.split())
