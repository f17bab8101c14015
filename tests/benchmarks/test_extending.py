"""A sampler and a metric from outside: one registration each, and they stand in every table and figure."""

from __future__ import annotations

import argparse
import csv
import gzip
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.measure.family import Case, Family
from benchmarks.measure.metrics import METRICS, Metric
from benchmarks.measure.records import append
from benchmarks.measure.sampler import Picture, Sampler, each
from benchmarks.measure.samplers import FAMILIES, catalogue
from benchmarks.measure.store import Row, Store, read_rows
from benchmarks.measure.tables import RESULTS
from benchmarks.paper import stability


class Blocks:
    """Repeats pixels, and says that it took so many network calls."""

    def __init__(self, scale: int, steps: int) -> None:
        self.scale, self.steps = scale, steps

    def __call__(self, lr: np.ndarray, seed: int) -> Picture:
        return Picture(np.repeat(np.repeat(lr, self.scale, 0), self.scale, 1), self.steps)


def blocks(case: Case) -> Iterable[Sampler]:
    for n in (2, 3):
        calls = frozenset(("blocks", i) for i in range(n))
        run = Blocks(case.model.scale, n)
        yield Sampler(f"blocks-{n}", f"blocks, {n} steps", each(run), calls, steps=n, tag=f"{n} blocks")


def redness(images: np.ndarray) -> np.ndarray:
    return images[..., 0].mean(axis=(1, 2))


FAMILY = Family("blocks", "Blocks", blocks, "d-", "#00ff00")
METRIC = Metric("red", "Redness", 3, True, redness, "Redness: the mean of the first channel")


@contextmanager
def registered(entries: list[Any], entry: Any) -> Iterator[None]:
    entries.append(entry)
    try:
        yield
    finally:
        entries.remove(entry)


@pytest.fixture
def family() -> Iterator[None]:
    with registered(FAMILIES, FAMILY):
        yield


@pytest.fixture
def metric() -> Iterator[None]:
    with registered(METRICS, METRIC):
        yield


@pytest.fixture
def paper(model_folder: Path, image_folder: Path, tmp_path: Path) -> list[str]:
    """What every command is told."""
    return ["--model", str(model_folder), "--images", str(image_folder), "--out", str(tmp_path)]


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_sampler_is_one_entry(family, paper, model, image_folder, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    written: list[tuple[str, float, float]] = []
    annotate = Axes.annotate

    def noted(self, text, xy, **others):
        written.append((text, *xy))
        return annotate(self, text, xy, **others)

    monkeypatch.setattr(Axes, "annotate", noted)
    assert main(["paper", *paper, "--limit", "1", "--tables", "2", "figure5"]) == 0
    folder = tmp_path / "tiny" / image_folder.name
    for name in ("table2", "figure5"):
        mine = [line for line in lines(folder / f"{name}.csv") if line["sampler"].startswith("blocks")]
        assert [line["label"] for line in mine] == ["blocks, 2 steps", "blocks, 3 steps"], name
        assert [float(line["evaluations"]) for line in mine] == [2, 3]
        assert "\n| blocks, 3 steps | " in (folder / f"{name}.md").read_text()
    points = [point for point in written if point[0] == "3 blocks"]  # against LPIPS, and against NIQE
    assert [(x, y) for _, x, y in points] == [
        (float(mine[1]["psnr"]), float(mine[1]["lpips"])),
        (float(mine[1]["psnr"]), float(mine[1]["niqe"])),
    ]
    assert "*Blocks at 3 evaluations against SkipDiff at 11*: " in (folder / "README.md").read_text()
    parser = argparse.ArgumentParser()
    stability.add_arguments(parser)
    compared = stability.chosen(parser.parse_args(paper), model)
    assert {"blocks-2", "blocks-3"} < {sampler.key for sampler in compared}


def test_a_metric_is_one_entry(metric, paper, image_folder, tmp_path):
    assert main(["paper", *paper, "--tables", "5", "ablation", "figure1", "--limit", "1"]) == 0
    folder = tmp_path / "tiny" / image_folder.name
    (row,) = [row for row in read_rows(folder / "rows.csv") if row.sampler == "csa-10"]
    assert 0 < row.value("red") < 255 and row.value("start") == 0
    for name in ("table5", "ablation", "figure1"):
        first = lines(folder / f"{name}.csv")[0]
        assert 0 < float(first["red_low"]) <= float(first["red"]) <= float(first["red_high"]), name
        assert "| Redness ↓ |" in (folder / f"{name}.md").read_text(), name
    assert "LR consistency: PSNR of" in (folder / "README.md").read_text()
    assert "; Redness: the mean of the first channel; " in (folder / "README.md").read_text()
    assert main(["inputs", "--models", *paper[1:], "--limit", "1"]) == 0
    assert "| LR consistency ↑ | residue ↓ | Redness ↓ | evaluations |" in (folder / "inputs.md").read_text()
    few = ["--limit", "1", "--seeds", "2", "--samplers", "bicubic", "csa-10"]
    assert main(["stability", *paper, *few]) == 0
    still, moving = lines(folder / "stability.csv")
    assert float(still["g_std_red"]) == 0 < float(moving["g_std_red"])
    assert "| G-STD LPIPS ↓ | G-STD Redness ↓ | L-STD ↓ |" in (folder / "stability.md").read_text()


def test_agents_tables_show_what_recordings_hold(metric, monkeypatch):
    """A metric of theirs has a name; two registrations put it into every row and column."""
    pytest.importorskip("sb3_contrib")
    from benchmarks.agents.study import judged
    from benchmarks.agents.table import columns
    from skipdiff_agents.evaluate import Result
    from skipdiff_env.envs import recordings

    assert [m.name for m in judged()] == list(recordings.METRICS)
    monkeypatch.setattr(recordings, "METRICS", (*recordings.METRICS, "brisque"))
    with registered(METRICS, Metric("brisque", "BRISQUE", 1, True, "brisque")):
        shown = columns()
    result = Result("a.png", 0, 1.0, 0.0, 0.0, 0.0, 12, (0,), (1.0, 2.0, 3.0, 4.0, 5.0))
    assert list(shown)[-2:] == ["BRISQUE ↓", "evaluations"]
    assert [format(of(result), form) for of, form in shown.values()][-2:] == ["5.0", "12.0"]


def test_rows_of_other_metrics_are_read_and_kept(paper, image_folder, tmp_path):
    """Older rows lack a column, and a program without the metric reads younger ones."""
    arguments = ["paper", *paper, "--tables", "5"]
    assert main([*arguments, "--limit", "1"]) == 0
    file = tmp_path / "tiny" / image_folder.name / "rows.csv"
    before = read_rows(file)
    with registered(METRICS, METRIC):
        assert np.isnan(before[0].value("red"))
        assert main(arguments) == 0
    after = read_rows(file)
    assert [row.key for row in after[: len(before)]] == [row.key for row in before]
    assert after[0].value("psnr") == before[0].value("psnr") and len(after) == 2 * len(before)
    known = np.isfinite([row.value("red") for row in after])
    assert known.tolist() == [False] * len(before) + [True] * len(before)
    # Means are those of the images that have a value.
    table = {line["sampler"]: line for line in lines(file.with_name("table5.csv"))}
    (full,) = [row for row in after[len(before) :] if row.sampler == "csa-20"]
    assert float(table["csa-20"]["red"]) == pytest.approx(full.value("red"))
    kept = file.read_bytes()
    assert main(arguments) == 0 and file.read_bytes() == kept
    append(file, Row("m", "float32 cpu", "i", 0, "csa-10", {"psnr": 25.0}, 10, 0))
    assert lines(file)[-1]["red"] == "" and lines(file)[-1]["psnr"] == "25.0"
    assert file.read_bytes().startswith(kept)


def test_rows_may_be_packed(tmp_path):
    file, rows = (
        tmp_path / "rows.csv",
        [Row("m", "float32 cpu", "i", seed, "csa-10", {"psnr": 25.0}, 10, 0) for seed in range(3)],
    )
    for row in rows[:2]:
        append(file, row)
    packed = tmp_path / "rows.csv.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    assert read_rows(file) == rows[:2]
    before = packed.read_bytes()
    store = Store(file)
    assert store.find(rows[1].key) == rows[1]
    store.add(rows[2])
    assert read_rows(file) == rows and packed.read_bytes() == before and len(lines(file)) == 1


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/*/rows.csv*")), ids=lambda file: file.parent.name)
def test_stored_rows_are_read(file):
    rows = read_rows(file.with_name("rows.csv"))
    with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as opened:
        assert len(rows) == sum(1 for _ in opened) - 1
    assert all(np.isfinite(row.value("psnr")) or row.sampler == "hr" for row in rows)
    assert all(row.evaluations >= row.start >= 0 for row in rows)


def test_every_sampler_belongs_to_its_family(model):
    names = {family.name for family in FAMILIES}
    assert {sampler.family for sampler in catalogue(model, 2).values()} < names


@pytest.mark.parametrize("metric_", METRICS, ids=lambda metric: metric.name)
def test_directions_are_those_of_the_metrics_themselves(metric_):
    from skipdiff_env.metrics import load_metric

    assert load_metric(metric_.of).lower_better == metric_.lower_better
