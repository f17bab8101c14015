"""The tiling benchmark: that it would notice seams, and that there are none."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.speed import tiling
from benchmarks.speed.tiling import (
    measure_largest,
    measure_memory,
    measure_seams,
    memory_holds,
    seam_ratios,
    seams_hold,
)
from skipdiff_env.chains import parse
from skipdiff_env.diffusion import FrozenModel, load_pretrained, random_model
from skipdiff_env.images.tiling import RAMP, spans

TILE = 128


def rough(height: int = 288, width: int = 384) -> np.ndarray:
    """A picture that is equally rough everywhere."""
    noise = np.random.default_rng(0).normal(128, 40, (height, width, 3)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 0.7), 0, 255).astype(np.uint8)


def test_an_even_picture_has_ratios_of_one() -> None:
    gradient, laplacian = seam_ratios(rough(), TILE, 16)
    assert gradient == pytest.approx(1, abs=0.03)
    assert laplacian == pytest.approx(1, abs=0.03)


def test_a_step_at_a_border_is_noticed() -> None:
    """Tiles of different brightness."""
    image = rough().astype(int)
    for span in spans(image.shape[1], TILE, 16)[1::2]:
        image[:, span.first :] += 12
    gradient, _ = seam_ratios(image, TILE, 16)
    assert gradient > 1.05


def test_blur_in_the_overlaps_is_noticed() -> None:
    """What blending two results that disagree would do."""
    image = rough()
    blurred = cv2.blur(image, (2, 2))
    for span in spans(image.shape[1], TILE, 16)[1:]:
        zone = slice(span.first, span.first + RAMP)
        image[:, zone] = blurred[:, zone]
    _, laplacian = seam_ratios(image, TILE, 16)
    assert laplacian < 0.95


def test_bounds() -> None:
    row = {
        "gradient_unlike": 0.04,
        "laplacian_unlike": -0.04,
        "psnr_to_untiled": 36.0,
        "psnr_to_other_tiles": 35.5,
    }
    assert seams_hold([row])
    for name, value in (
        ("gradient_unlike", -0.06),
        ("laplacian_unlike", 0.06),
        ("psnr_to_other_tiles", 34.9),
    ):
        assert not seams_hold([row, row | {name: value}])


def test_memory_is_held_against_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {(100, 100): 10_000_000, (1000, 500): 48_900_000, (1000, 600): 56_300_000}
    monkeypatch.setattr(tiling, "peak", lambda model, size: peaks[size])
    rows = measure_memory("any", *peaks)
    assert [row["bound_mb"] for row in rows[1:]] == [pytest.approx(13 + 36), pytest.approx(13 + 43.2)]
    assert rows[1]["more_in_images"] == pytest.approx(38.9 / 6)
    assert memory_holds(rows[:2])
    assert not memory_holds(rows)


def test_the_largest_is_held_against_eight_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def peak(model: str, size: tuple[int, int], suffix: str, chain: str) -> int:
        asked.append((model, size, suffix, chain))
        return {"jpg": 7_900_000_000, "png": 8_100_000_000}[suffix]

    monkeypatch.setattr(tiling, "peak", peak)
    rows = measure_largest("any", ["jpg", "png"], tiling.LARGEST)
    assert asked == [("any", (16128, 12096), suffix, "--policy ccsr:2") for suffix in ("jpg", "png")]
    assert [row["bytes_a_pixel"] for row in rows] == [pytest.approx(40.5, 0.01), pytest.approx(41.5, 0.01)]
    assert memory_holds(rows[:1]) and not memory_holds(rows)


def test_the_peak_of_a_process(noisy_folder: Path) -> None:
    assert 10**8 < tiling.peak(str(noisy_folder), (64, 48), "webp", "--policy ccsr:2") < 4 * 10**9


def test_the_command_writes_tables(
    tmp_path: Path, noisy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "SMALL", (320, 240))
    parser = argparse.ArgumentParser()
    tiling.add_arguments(parser)
    words = f"--model {noisy_folder} --what seams --tiles 192 128 --chains 1 ccsr:2 --out {tmp_path}"
    tiling.run(parser.parse_args(words.split()))
    written = tmp_path / "noisy-4x" / "tiling_seams.csv"
    rows = list(csv.DictReader(written.read_text().splitlines()))
    assert [(row["chain"], row["tile"]) for row in rows] == [
        (chain, tile) for chain in ("1", "ccsr:2") for tile in ("192", "128")
    ]
    assert all(np.isfinite(float(row[name])) for row in rows for name in list(row)[3:])
    text = written.with_suffix(".md").read_text()
    assert text.startswith("# Seams between tiles\n") and "Made by `python -m benchmarks tiling " in text
    assert "\n| chain | size | tile | gradient | gradient, untiled |" in text


def test_plans_are_tested_where_there_are_some() -> None:
    assert tiling.usual_chains(load_pretrained("face-8x", "cpu")) == ["plan:3", "plan:5", "plan:8"]
    model = random_model()
    assert tiling.usual_chains(model) == ["7"]


@pytest.mark.parametrize(("what", "name"), [("largest", "tiny-4x"), ("largest-model", "noisy-4x")])
def test_the_largest_by_a_stand_in_and_by_the_model(
    what: str, name: str, tmp_path: Path, noisy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "LARGEST", (64, 48))
    parser = argparse.ArgumentParser()
    tiling.add_arguments(parser)
    words = f"--model {noisy_folder} --what {what} --formats webp --out {tmp_path}"
    assert tiling.run(parser.parse_args(words.split())) == 0
    (table,) = tmp_path.rglob("*.csv")
    assert table == tmp_path / name / "tiling_largest.csv"
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert (row["size"], row["format"]) == ("64x48", "webp") and 100 < float(row["peak_mb"]) < 4000


@pytest.mark.slow
@pytest.mark.parametrize("chain", [7, "ccsr:3"])
def test_the_shipped_model_leaves_no_seams(chain: int | str) -> None:
    """The acceptance bounds on a quarter of the area; the benchmark has the whole, and plans."""
    model: FrozenModel = load_pretrained("natural-4x", "cpu")
    rows = measure_seams(model, (512, 384), (256, 192), parse(chain, model))
    assert seams_hold(rows), rows
