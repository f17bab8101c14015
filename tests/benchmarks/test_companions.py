"""Short trainings of refiner and student with one part changed each, on the tiny model."""

from __future__ import annotations

import csv

import pytest

from benchmarks.__main__ import main
from benchmarks.training import side_by_side
from benchmarks.training.companions import RECIPES, UNTRAINED, VARIANTS
from skipdiff_env import training
from skipdiff_env.training import load_recipe

ONLY = ["stage 1", "refiner", "refiner without the adversarial part", "refiner without stage 1"]
ONLY += ["student", "student without self-refinement"]


def test_variants_are_trained_once_and_compared(model_folder, image_folder, tmp_path, capsys, monkeypatch):
    """For some steps instead of some time."""

    def train(*given, max_minutes, cooldown_minutes, **others):
        assert (max_minutes, cooldown_minutes) == (0.05, 0.0125)
        return training.train(*given, max_steps=2, cooldown=1, **others)

    monkeypatch.setattr(side_by_side, "train", train)
    arguments = [
        "companions", "--model", str(model_folder), "--ccsr", str(model_folder), "--data", str(image_folder),
        "--val", str(image_folder), "--minutes", "0.05", "--only", *ONLY, "--limit", "1",
        "--set", "data.crop=32", "batch=1", "data.held_out=null",
        "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(arguments) == 0
    folder = tmp_path / "out" / "tiny"
    text = (folder / "companions.md").read_text()
    with (folder / "companions.csv").open() as file:
        rows = {row["line"]: row for row in csv.DictReader(file)}
    assert list(rows) == [
        "bicubic",
        *(f"{name}, {steps}" for name in ("no further training", "the given stage 1", *ONLY[:4])
          for steps in ("1 step", "2 steps")),
        "student, 1 step", "student, 4 steps", "student, 4 steps, self_refinement=0.0",
        "student without self-refinement, 1 step",
        "student without self-refinement, 4 steps, self_refinement=0.0",
    ]  # fmt: skip
    for name, row in rows.items():
        trained = name.startswith(("stage 1", "refiner", "student"))
        assert row["steps"] == ("3" if trained else "")
        assert all(float(row[metric]) for metric in ("psnr", "ssim", "lpips", "niqe", "residue")), name
    assert rows["student, 4 steps"]["psnr"] != rows["student, 4 steps, self_refinement=0.0"]["psnr"]
    assert f"| {ONLY[2]}, 2 steps − refiner, 2 steps | " in text
    assert "| stage 1, 2 steps − no further training, 2 steps | " in text
    assert "4 steps, self_refinement=0.0 − student, 4 steps | " in text
    lpips = float(rows[f"{ONLY[2]}, 2 steps"]["lpips"]) - float(rows["refiner, 2 steps"]["lpips"])
    assert f"2 steps − refiner, 2 steps | {lpips:+.4f} (" in text
    assert "0.05 minutes of training each" in text and "Made by `python -m benchmarks companions" in text
    assert "refiner without the adversarial part: `refiner.adversarial.weight=0`" in text
    trained = sorted(tmp_path.glob("runs/0.05-minutes/*/config.json"))
    assert len(trained) == len(ONLY)
    stamps = [path.stat().st_mtime_ns for path in trained]
    assert main(arguments) == 0
    assert (folder / "companions.md").read_text() == text
    assert [path.stat().st_mtime_ns for path in trained] == stamps
    capsys.readouterr()


def test_an_unknown_variant_is_named(image_folder, capsys):
    assert main(["companions", "--data", "x", "--val", str(image_folder), "--only", "none"]) == 2
    assert (
        "unknown variant 'none': use some of stage 1, stage 1 with consistency in one"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_recipe_and_another_one(name):
    variant = VARIANTS[name]
    recipe = RECIPES[variant.program]
    changed = load_recipe(recipe, overrides=variant.changes)
    assert changed.program == variant.program
    assert (changed == load_recipe(recipe)) == (not variant.changes)
    assert variant.of in ("", UNTRAINED) or VARIANTS[variant.of].program == variant.program
