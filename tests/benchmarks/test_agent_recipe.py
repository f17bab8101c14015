"""``python -m benchmarks agent-recipe``: variants of a recipe, resumable, and the page of what there is."""

import csv
from itertools import pairwise

import cv2
import numpy as np
import pytest

pytest.importorskip("sb3_contrib")
from benchmarks.__main__ import main
from benchmarks.agents import recipe
from benchmarks.speed import agents as speed
from skipdiff_agents.settings import read_settings
from skipdiff_env.images import open_source


def test_each_variant_changes_one_thing():
    settings = read_settings("recurrent_ppo")
    for name, changes in recipe.VARIANTS.items():
        flat, before = _flat(recipe.changed(settings, changes)), _flat(settings)
        other = {key for key in {*flat, *before} if flat.get(key) != before.get(key)}
        assert len(other) == len(changes), name
    assert settings == read_settings("recurrent_ppo")


def _flat(settings):
    parts = ((k, p.items() if isinstance(p, dict) else [("", p)]) for k, p in settings.items())
    return {(name, inner): value for name, part in parts for inner, value in part}


def test_when_a_curve_arrives():
    rows = [{"timesteps": float(n), "reward": r} for n, r in ((10, 0.1), (20, 0.3), (30, 0.2))]
    curve = recipe.Curve("as it is", 0, rows, [])
    assert curve.best == 0.3 and curve.reached(0.2) == 20 and np.isnan(curve.reached(0.4))


def test_the_command(model_folder, tmp_path):
    """Two variants on random pictures, twice: the second time nothing is trained."""
    rng = np.random.default_rng(0)
    for i in range(8):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    (tmp_path / "names.txt").write_text("".join(f"{i}\n" for i in range(1, 8)))
    arguments = [
        "agent-recipe", "--model", str(model_folder), "--images", str(tmp_path), "--metric", "psnr",
        "--only", str(tmp_path / "names.txt"), "--train-images", "7", "--noise-seeds", "1", "--size", "16",
        "--fine-steps", "5", "--seeds", "1", "--timesteps", "64", "--variants", "GRU 256", "4 environments",
        "--image-size", "32", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(arguments) == 0
    (page,) = (tmp_path / "out").rglob("recipe.md")
    text = page.read_text()
    assert (
        "| GRU 256 | " in text
        and "| 4 environments | " in text
        and "level 5 | level 4 | level 3 | level 2" in text
    )
    assert page.with_suffix(".png").is_file()
    rows = list(csv.DictReader(page.with_suffix(".csv").open()))
    for variant in ("GRU 256", "4 environments"):
        steps = [int(float(row["timesteps"])) for row in rows if row["variant"] == variant]
        assert steps[-1] >= 64 and all(a < b for a, b in pairwise(steps))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("checkpoint.zip")}
    assert main(arguments) == 0 and page.read_text() == text
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("checkpoint.zip")} == before
    assert main([*arguments, "--letter-hours", "0.0005"]) == 0
    text = page.read_text()
    assert "| the paper's recipe | " in text and "| the paper's recipe with a clock | " in text
    assert text.count("| decisions | by chance | level 5") == 4
    after = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("checkpoint.zip")}
    assert len(after) == 4
    assert main([*arguments, "--letter-hours", "0.0005"]) == 0, "their time is up"
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("checkpoint.zip")} == after


def test_a_mean_of_few_episodes_is_left_out():
    rows = [{"timesteps": float(n)} for n in (3000, 6000, 9000)]
    for whole in (rows, rows[:1], []):
        assert recipe.whole_rounds(whole) == whole
    assert recipe.whole_rounds([*rows, {"timesteps": 9012.0}]) == rows
    assert len(recipe.whole_rounds([*rows, {"timesteps": 11000.0}])) == 4


def test_only_some_images(tmp_path):
    source = open_source([np.zeros((8, 8, 3), np.uint8)] * 3)
    names = [source.name(i) for i in range(3)]
    assert [source.only({names[1]}).name(0)] == [names[1]]


def test_ratios_are_of_the_same_round():
    found = {("here", speed.EPISODIC): [6.0, 30.0, 8.0], ("here", speed.CONTRIB): [2.0, 10.0, 4.0]}
    found |= {("here", speed.PPO): [6.0, 15.0, 16.0]}
    assert [ratio for _, ratio, _ in speed.ratios(found)] == [3.0, 1.0]
    found |= {("beside", speed.CONTRIB): [1.0, 10.0, 2.0], ("beside", speed.PPO): [3.0, 5.0, 8.0]}
    assert [ratio for _, ratio, _ in speed.ratios(found)] == [3.0, 1.0, 4.0, 2.0]


def test_a_learner_that_fails_is_named(tmp_path, capfd):
    with pytest.raises(RuntimeError, match=r"^PPO ended with status 1$"):
        speed.Learner(speed.ROOT, speed.PPO, "no-such-model", tmp_path)
    assert "unknown model 'no-such-model'" in capfd.readouterr().err
