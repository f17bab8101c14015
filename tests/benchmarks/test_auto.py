"""The rule behind ``--model auto``, chosen on cases whose best choice is known, and by the command."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.restore import auto
from benchmarks.restore.auto import Case, Quality, choose, clean_loss, figures
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model
from skipdiff_env.images.formats.coding import Coding
from skipdiff_env.images.measure import Measured
from skipdiff_env.upscale.choice import RULE, read_rule


def cases() -> list[Case]:
    """The second model is better from quality 80 down, from noise 3 and from blur 0.7 on, nowhere else."""
    rng = np.random.default_rng(0)
    found = []

    def add(kind: str, seen: Measured, gain: float) -> None:
        found.append(Case(kind, seen, Quality(0.3, 25), Quality(0.3 * np.exp(-gain), 25)))

    for _ in range(20):
        clean = Measured(rng.uniform(0.3, 2.5), rng.uniform(0.3, 0.6))
        add("clean", clean, -0.05)
        for quality in (40, 60, 79, 81, 95):
            add(f"JPEG {quality}", Measured(1, 0.5, Coding("JPEG", quality)), (80 - quality) / 400)
        for noise in (2, 4, 8):
            add(f"noise {noise}", Measured(noise + rng.uniform(-0.4, 0.4), 0.5), (noise - 3) / 50)
        for blur in (0.6, 0.8, 1.2):
            add(f"blur {blur}", Measured(0.4, blur + rng.uniform(-0.05, 0.05)), blur - 0.7)
    return found


def test_the_best_thresholds_are_found():
    rule = choose(cases())
    assert 79 < rule.jpeg <= 81
    assert 2.4 < rule.noise <= 3.7 and 0.6 < rule.blur <= 0.76
    assert rule.webp == 0, "there was none"
    found = figures(cases(), rule)
    assert found["better"] > 0.99 and found["loss"] < 0.001 and found["clean_loss"] == 0


def test_clean_input_is_spared():
    """Noise that looks like the texture of clean pictures would take some of these along."""
    gain = Quality(0.5, 25), Quality(0.2, 25)
    mixed = cases() + [Case("noise 1", Measured(1.5, 0.5), *gain)] * 60
    assert clean_loss(mixed, choose(mixed)) <= auto.CLEAN_LOSS
    assert choose([Case("noise 6", Measured(6, 0.5), *gain)] * 3)(Measured(6, 0.5))


def test_lpips_and_squared_error_have_equal_weight():
    half, twice = Quality(0.2, 25 - 20 * np.log10(2)), Quality(0.4, 25)
    assert half.log_error == pytest.approx(twice.log_error)  # half the LPIPS, twice the RMSE
    blurrier = Case("clean", Measured(1, 0.5), Quality(0.2, 26), Quality(0.19, 25))
    assert blurrier.cost == pytest.approx(np.log(0.95) + np.log(10) / 20)
    assert not choose([blurrier] * 3)(blurrier.seen)
    about = figures([blurrier], choose([blurrier] * 3))
    assert (about["better"], about["better_by_lpips"]) == (1, 0)
    assert about["loss_of_lpips"] == pytest.approx(0.2 / 0.19 - 1, abs=1e-4)


@pytest.fixture
def folders(tmp_path):
    made = []
    for seed, name in enumerate(("usual", "real")):
        faults = {"jpeg": [30, 95], "noise": [0.5, 20], "blur": [0.2, 2]}
        training = {"degradation": faults} if name == "real" else {}
        config = tiny_config(chain="ccsr:1", training=training)
        made.append(save_model(tmp_path / name, random_model(config, seed).network, config))
    return made


def test_one_command_chooses_anew(folders, image_folder, tmp_path, capsys):
    arguments = ["auto", "--models", *map(str, folders), "--images", str(image_folder), "--device", "cpu"]
    arguments += ["--out", str(tmp_path / "results"), "--kinds", "clean", "JPEG 30", "noise 9", "text"]
    assert main(arguments) == 0
    folder = tmp_path / "results" / "degraded" / image_folder.name
    about = json.loads((folders[1] / RULE).read_text())
    rule = read_rule(folders[1] / RULE)
    assert set(about["models"]) == {"usual", "real"} and 0 <= about["better"] <= 1
    text = (folder / "auto.md").read_text()
    assert (
        f"a quality below {rule.jpeg:g}" in text and "`python -m benchmarks auto --models usual real" in text
    )
    with (folder / "auto.csv").open() as file:
        lines = {line["input"]: line for line in csv.DictReader(file)}
    assert [*lines] == ["clean", "JPEG 30", "noise 9", "text"]
    assert lines["JPEG 30"]["quality seen"] == "30" and lines["clean"]["quality seen"] == "–"
    assert float(lines["noise 9"]["noise seen"]) > float(lines["clean"]["noise seen"])
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(arguments) == 0
    assert kept == {path: path.read_bytes() for path in folder.iterdir()}
    assert main([*arguments[:1], "--models", str(folders[1]), str(folders[0]), *arguments[4:]]) == 2
    assert "was not trained on faults" in capsys.readouterr().err
