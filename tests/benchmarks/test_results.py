"""Means, intervals, ranks and tables, on rows that were made up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.measure.metrics import METRICS
from benchmarks.measure.quality import Line, Part, count, report
from benchmarks.measure.results import Results
from benchmarks.measure.store import Row
from tests.benchmarks.made_rows import made_up, rows


def test_means_average_seeds_first_and_leave_out_what_is_missing():
    made = [
        Row("m", "d", image, seed, "a", {"psnr": value}, 1, 0)
        for image, seed, value in (
            ("x", 0, 1.0),
            ("x", 1, 3.0),
            ("y", 0, 8.0),
            ("y", 1, math.nan),
            ("z", 0, math.nan),
            ("z", 1, math.nan),
        )
    ]
    found = Results(made).estimate("a", "psnr")
    assert found.mean == pytest.approx((2 + 8) / 2)
    assert 2 <= found.low < found.mean < found.high <= 8


def test_a_sampler_with_fewer_images_is_paired_on_those():
    results = Results(rows("a", psnr=20.0) + rows("b", images=3, psnr=20.5))
    few = rows("b", images=3, psnr=20.5)
    assert results.estimate("b", "psnr") == Results(few).estimate("b", "psnr")
    assert results.estimate("a", "psnr").images == 8 and results.images == [f"i{i}" for i in range(8)]
    assert results.computed == {"float32 cpu": 8 * 2 + 3 * 2}
    gain = results.gain("b", "a", "psnr")
    assert gain.images == 3 and gain.mean == pytest.approx(0.5)  # the scatter of an image is the same


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        values = rng.normal(10, 2, 40)
        made = [Row("m", "d", f"i{i}", 0, "a", {"psnr": v}, 1, 0) for i, v in enumerate(values)]
        found = Results(made).estimate("a", "psnr")
        hits += found.low <= 10 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_differences_are_paired():
    results = Results(rows("a", psnr=20.0) + rows("b", psnr=20.5, niqe=4.0))
    assert results.difference("b", "a", "psnr").low == pytest.approx(0.5)
    assert results.difference("b", "a", "psnr").high == pytest.approx(0.5)
    assert (
        results.gain("b", "a", "niqe").mean == pytest.approx(1) and results.gain("b", "a", "niqe").sign == 1
    )
    assert results.gain("a", "b", "psnr").sign == -1 and results.gain("a", "a", "lpips").sign == 0
    spread = results.estimate("a", "psnr")
    assert spread.high - spread.low > 0.1


def test_tables_show_every_line_with_its_interval_and_the_paper_s_column():
    results, part = made_up(), Part("t", "T", (Line("csa-100", "chain", "1 / 2"), Line("ddim-16", "DDIM")))
    made = report(part, results)
    table = [line for line in made.text.splitlines() if line.startswith("|")]
    assert len(table) == 8 and all(line.count("|") == 11 for line in table[:4])
    assert table[2].startswith("| chain |") and table[2].endswith("| 100 | 1 / 2 |")
    assert count(results) == "8 images, 2 noise seeds each" and count(results) in made.note
    assert made.basis == count(results)
    assert len(made.data) == 3 and all(len(cells) == 2 + 3 * (len(METRICS) + 1) + 1 for cells in made.data)


def test_spearman_is_that_of_ranks():
    sizes = (2, 5, 10, 20)
    made = [
        row
        for s, value in zip(sizes, (1.0, 4.0, 9.0, 8.0), strict=True)
        for row in rows(f"csa-{s}", psnr=value)
    ]
    keys = [f"csa-{s}" for s in sizes]
    # Ranks 1 2 4 3: 1 - 6 * (1 + 1) / (4 * 15); the same scatter everywhere leaves nothing to chance.
    found = Results(made).spearman(keys, sizes, "psnr")
    assert (found.mean, found.low, found.high) == pytest.approx((0.8, 0.8, 0.8)) and found.sign == 1
    assert Results(made).spearman(keys, sizes, "ssim").mean == 0  # constant
