"""The quality table: what it computes, that it resumes, and that it reads what it wrote."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.quality import COLUMNS, bootstrap, evaluate, markdown, read_rows, standard_methods, summarise
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.images import bundled_images, open_source


@pytest.fixture(scope="module")
def model():
    return random_model(tiny_config(image_size=96))


@pytest.fixture(scope="module")
def source():
    return open_source([bundled_images()[i][:96, :96] for i in range(2)])


def test_rows_are_right_and_never_computed_twice(model, source, tmp_path):
    store = tmp_path / "rows.csv"
    methods = standard_methods(model, [3])
    assert list(methods) == [
        "bicubic",
        "full DDPM (100 steps)",
        "CSA alone (S = 10)",
        "CSA + FSR, start 3",
    ]
    seen = []
    rows = evaluate(model, source, methods, store=store, progress=seen.append)
    assert len(rows) == len(seen) == 8 and [r.evaluations for r in rows[:4]] == [0, 100, 10, 12]
    assert all(row.seconds > 0 and math.isfinite(row.psnr) and row.lpips > 0 for row in rows)
    text = store.read_text()
    store.write_text(text[: text.rindex("\n", 0, -1) + 20])  # the last line is cut short, as by a kill
    again = evaluate(model, source, methods, store=store, progress=seen.append)
    assert len(seen) == 9
    assert [r.psnr for r in again] == [r.psnr for r in rows]
    assert [r.key for r in read_rows(store)] == [r.key for r in rows]


def test_several_starts_share_latents_and_are_not_timed(model, source):
    rows = evaluate(model, source, standard_methods(model, [2, 5]))
    alone = evaluate(model, source, standard_methods(model, [5]))
    mine = [r for r in rows if r.method.endswith("start 5")]
    assert [r.psnr for r in mine] == pytest.approx([r.psnr for r in alone if r.method.endswith("start 5")])
    assert all(math.isnan(r.seconds) and r.evaluations == 14 for r in mine)


def test_means_and_intervals_leave_out_what_could_not_be_computed(model, source):
    rows = evaluate(model, source, {"bicubic": standard_methods(model)["bicubic"]})
    expected = np.mean([row.niqe for row in rows])
    assert summarise(rows)["bicubic"]["niqe"] == pytest.approx(expected)
    table = markdown(summarise(rows))
    assert table.count("|\n") == 3 and len(table.splitlines()[0].split("|")) == len(COLUMNS) + 3
    low, high = bootstrap([1.0, 2.0, 3.0, math.nan])
    assert 1 <= low < 2 < high <= 3
