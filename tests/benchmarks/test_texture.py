"""Telling the best start from its texture: the numbers, the rule, the gains, and the command."""

import csv

import cv2
import numpy as np
import pytest

pytest.importorskip("sb3_contrib")
pytest.importorskip("sklearn")
from benchmarks.__main__ import main
from benchmarks.agents import texture as texture_module
from benchmarks.agents.texture import Choice, crosswise, gain, taught, texture
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(texture_module, "TREES", 30)


def test_numbers_of_noise_and_of_nothing() -> None:
    """A blur of σ keeps 1/(4πσ²) of white noise's power, and the centre of its kernel is in the rest."""
    noise = RNG.normal(size=(2, 3, 256, 256))
    found = texture(np.stack([noise[0], 3 * noise[0]]))
    assert found.shape == (2, 14)
    assert found[1] - found[0] == pytest.approx(np.log(3), abs=1e-9)
    for column, sigma in ((1, 2.0), (2, 4.0)):
        power = 1 - 2 / (2 * np.pi * sigma**2) + 1 / (4 * np.pi * sigma**2)
        assert found[0, column] == pytest.approx(0.5 * np.log(power), abs=0.01)
    assert np.all(np.diff(found[0, 3:]) > 0)  # deciles rise
    assert texture(np.full((1, 3, 16, 16), 0.4)) == pytest.approx(np.log(1e-6))


def test_a_block_of_texture_shows_in_the_deciles_alone() -> None:
    flat = np.zeros((1, 3, 64, 64))
    flat[..., :16, :16] = RNG.normal(size=(3, 16, 16))
    found = texture(flat)[0, 3:]
    assert found[0] == np.log(1e-6) and found[-1] == pytest.approx(np.log(0.9), abs=0.2)


def test_the_rule_finds_what_is_there_and_nothing_where_nothing_is() -> None:
    numbers = RNG.normal(size=(240, 14))
    pictures = np.arange(240) // 2
    planted = np.zeros((240, 5))
    planted[:, 0], planted[:, 4] = 3 * numbers[:, 2], -3 * numbers[:, 2]
    chosen = crosswise(numbers, planted, pictures)
    best = planted.argmax(axis=1)
    assert np.mean(chosen == best) > 0.85
    again = taught(numbers, planted).predict(numbers).argmax(axis=1)
    assert np.mean(again == best) > 0.95
    nothing = RNG.normal(size=(240, 5))
    picked = np.take_along_axis(nothing, crosswise(numbers, nothing, pictures)[:, None], axis=1)
    assert abs(picked.mean()) < 0.2


def test_gains_by_hand() -> None:
    quality = np.array([[1.0, 2.0], [1.0, 4.0], [3.0, 0.0], [5.0, 2.0]])
    pictures = np.array([0, 0, 1, 1])
    mean, low, high, evaluations = gain(quality, 0, Choice(np.array([1, 1, 0, 0]), 12.5), pictures)
    assert (mean, evaluations) == (1.0, 12.5)
    assert (low, high) == (0.0, 2.0)  # one picture gains 2, the other nothing
    assert gain(quality, 0, Choice(np.zeros(4, int), 1.0), pictures)[:3] == (0, 0, 0)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texture")
    model = random_model(tiny_config())
    save_model(folder / "model", model.network, model.config)
    for name, count in (("train", 3), ("valid", 2), ("test", 2)):
        (folder / name).mkdir()
        for i in range(count):
            picture = cv2.GaussianBlur(RNG.integers(0, 256, (128, 128, 3), dtype=np.uint8), (0, 0), 1)
            cv2.imwrite(str(folder / name / f"{i}.png"), picture)
    return folder, [
        "texture", "--model", str(folder / "model"), "--images", str(folder / "train"),
        "--valid", str(folder / "valid"), "--test", str(folder / "test"), "--noise-seeds", "2",
        "--valid-seeds", "2", "--test-seeds", "2", "--fine-steps", "3", "--coarse-steps", "5",
        "--runs", str(folder / "runs"), "--out", str(folder / "out"), "--precision", "float32",
    ]  # fmt: skip


def test_the_command(arguments, capsys) -> None:
    folder, command = arguments
    assert main([*command, "--agent", "2"]) == 0
    text = (folder / "out" / "model" / "clean-texture.md").read_text()
    assert "| LPIPS | training pictures |" in text and "| LPIPS, NIQE | test pictures |" in text
    rows = list(csv.DictReader((folder / "out" / "model" / "clean-texture.csv").open()))
    assert [row["pictures"] for row in rows] == ["train", "valid", "test"] * 2
    for row in rows:
        best, optimum, fixed = (float(row[name]) for name in ("best start here", "optimum", "agent 2"))
        assert optimum >= best >= max(fixed, 0) - 1e-9
        assert float(row["agent 2 evaluations"]) == 4 + 2
        assert 5 <= float(row["optimum evaluations"]) <= 7
    unseen = rows[1]
    assert unseen["start chosen"] == unseen["best start"] and float(unseen["best start here"]) == 0
    capsys.readouterr()
    assert main([*command, "--agent", "2"]) == 0
    assert "recording" not in capsys.readouterr().out.split("#")[0]


def test_what_is_missing_is_said(arguments, capsys) -> None:
    _, command = arguments
    assert main([*command, "--test-seeds", "1"]) == 2
    assert "seeds of at least 2" in capsys.readouterr().err
    assert main([*command, "--skip-rule", "hold"]) == 2
    assert "--skip-rule reset" in capsys.readouterr().err
