"""G-STD and L-STD: the figures, the table, the sentence, and that a run resumes."""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.measure.records import read
from benchmarks.measure.sampler import Picture, Sampler, each
from benchmarks.measure.samplers import catalogue
from benchmarks.paper.stability import (
    Spread,
    add_arguments,
    chosen,
    drawn,
    lines,
    measure,
    spread,
    table,
    verdict,
)
from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion.folder import REFINER, save_model, write_weights
from skipdiff_env.diffusion.model import RefinerConfig
from skipdiff_env.diffusion.refiner import RefinerNetwork
from skipdiff_env.policies.file import save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig


def constant(key: str, label: str, evaluations: int, strength: int) -> Sampler:
    """Grey, moved by the seed: ± ``strength`` for even and odd ones."""

    def run(lr: np.ndarray, seed: int) -> Picture:
        sign = 1 if seed % 2 else -1
        image = np.full((4 * lr.shape[0], 4 * lr.shape[1], 3), 128 + sign * strength, np.uint8)
        return Picture(image, evaluations)

    return Sampler(key, label, each(run), frozenset(), key.partition("-")[0])


def test_deviations_once_more_in_float64() -> None:
    """Pixel by pixel and metric by metric, from the definition; the border does not count."""
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (5, 11, 13, 3), dtype=np.uint8))
    scores = [dict(zip(("psnr", "ssim", "niqe", "lpips"), rng.normal(size=4), strict=True)) for _ in range(5)]
    found = spread(images, scores)
    deviations = [
        statistics.pstdev(int(image[row, column, colour]) / 255 for image in images)
        for row in range(4, 7)
        for column in range(4, 9)
        for colour in range(3)
    ]
    assert found["l_std"] == pytest.approx(math.fsum(deviations) / 45, rel=1e-12)
    for name in ("psnr", "ssim", "niqe", "lpips"):
        column = [given[name] for given in scores]
        mean = math.fsum(column) / 5
        population = math.sqrt(math.fsum((value - mean) ** 2 for value in column) / 5)
        assert found["deviations"][name] == pytest.approx(population, rel=1e-12)
    assert found["mean_lpips"] == pytest.approx(statistics.fmean(given["lpips"] for given in scores))
    moved = [image.copy() for image in images]
    for image in moved:
        image[:4] = image[-4:] = image[:, :4] = image[:, -4:] = rng.integers(0, 256)
    assert spread(moved, scores)["l_std"] == found["l_std"]


def test_the_draw_is_the_seed_s_and_grows() -> None:
    few, more = drawn(100, 20, 0), drawn(100, 30, 0)
    assert more[:20] == few and len(set(more)) == 30 and max(more) < 100
    assert drawn(100, 20, 1) != few and sorted(drawn(7, 20, 0)) == list(range(7))


def test_rows_table_and_verdict(model, source, tmp_path) -> None:
    steady, restless = constant("skip-10-2-2", "SkipDiff", 16, 0), constant("ccsr-16", "CCSR", 16, 3)
    store = tmp_path / "rows.csv"
    rows = measure(model, source, [steady, restless], 4, [0, 1], store)
    by_sampler = {row.sampler: row for row in rows}
    assert len(rows) == 4 and by_sampler["skip-10-2-2"].l_std == 0
    assert by_sampler["ccsr-16"].l_std == pytest.approx(3 / 255)
    store.write_text(store.read_text()[:-9])  # the last line is cut short, as by a kill
    made: list[int] = []

    def counted(lr: np.ndarray, seed: int) -> Picture:
        made.append(seed)
        return restless.one(lr, seed)

    again = measure(model, source, [steady, replace(restless, run=each(counted))], 4, [0, 1], store)
    assert made == [0, 1, 2, 3] and [r.l_std for r in again] == [r.l_std for r in rows]
    assert [r.key for r in read(store, Spread)] == [r.key for r in rows]
    text = table(lines(rows, [restless, steady], "csa-20")).markdown()
    assert "| CCSR | 16.0 |" in text and "| SkipDiff | 16.0 |" in text
    many = [replace(row, image=f"{row.image} {i}") for i in range(3) for row in rows]
    said = verdict(many, [steady, restless], "csa-20")
    assert "L-STD differs by -0.0118" in said and said.endswith("the more consistent is SkipDiff.")
    few = verdict(rows, [steady, restless], "csa-20")
    assert few.endswith("the more consistent is undecided, of 2 images.")
    assert verdict(rows, [restless], "csa-20") == ""
    slower = [replace(row, evaluations=13) if row.sampler.startswith("skip") else row for row in many]
    said = verdict(slower, [steady, restless], "csa-20")
    assert said.endswith("the one takes 13 evaluations, the other 16.")
    store.write_text(store.read_text().replace(",16.0,", ",sixteen,", 1))
    with pytest.raises(SkipDiffError, match=r"rows.csv holds a damaged row \(.*sixteen"):
        measure(model, source, [steady], 4, [0, 1], store)


def test_ratios_to_the_chain_stand_beside_the_paper_s(model, source) -> None:
    """And at one and two evaluations everything is compared with CCSR's two stages."""
    both = [
        replace(constant(f"both-{n}", f"both, {n}", n, 2 * n), family="ccsr-both", steps=n) for n in (1, 2, 5)
    ]
    student = replace(constant("addsr-2", "AddSR, 2", 2, 3), family="addsr", steps=2)
    chain = replace(constant("csa-20", "full chain", 20, 8), family="csa")
    samplers = [chain, *both, student]
    rows = measure(model, source, samplers, 4, [0, 1])
    found = {label: values for _, label, *values in lines(rows, samplers, "csa-20")}
    assert list(found) == ["both, 1", "both, 2", "AddSR, 2", "both, 5", "full chain"]
    assert [values[-4] for values in found.values()] == pytest.approx([2 / 8, 4 / 8, 3 / 8, 10 / 8, 1])
    assert [values[-3] for values in found.values()] == pytest.approx(
        [0.49, 0.64, math.nan, math.nan, math.nan], nan_ok=True
    )
    assert "| 0.0078 | 0.25 | 0.49 |" in table(lines(rows, samplers, "csa-20")).markdown()
    many = [replace(row, image=f"{row.image} {i}") for i in range(3) for row in rows]
    said = verdict(many, samplers, "csa-20").split("\n\n")
    assert [sentence.split(", 2 evaluations")[0].split(", 1 and")[0] for sentence in said] == [
        "both, 1 against full chain",
        "both, 2 against full chain, 2 and 20 evaluations: L-STD differs by -0.0157 (-0.0157 … -0.0157); "
        "the more consistent is both, 2.",
        "both, 2 against AddSR, 2",
    ]
    assert said[2].endswith("the more consistent is AddSR, 2.")


def test_the_command_covers_the_rivals_and_resumes(
    model_folder, model, image_folder, tmp_path, capsys
) -> None:
    trained = tmp_path / "ccsr"
    config = replace(model.config, refiner=RefinerConfig(model.config.unet))
    save_model(trained, model.network, config)
    write_weights(trained / REFINER, RefinerNetwork(model.config.unet))
    every = catalogue(model, 2, trained={"ccsr": trained, "addsr": model_folder})
    labels = {sampler.label: sampler.key for sampler in every.values() if sampler.weights}
    assert {"CCSR, stage 1, 1 step", "CCSR, both stages, 2 steps", "AddSR, 4 steps"} < set(labels)
    assert len(set(labels.values())) == 13 and "CCSR, both stages, 11 steps" in labels
    two = labels["CCSR, both stages, 2 steps"]
    arguments = ["stability", "--model", str(model_folder), "--images", str(image_folder), "--seeds", "2"]
    arguments += ["--ccsr", str(trained), "--device", "cpu", "--out", str(tmp_path / "out"), "--limit", "1"]
    arguments += ["--samplers", "csa-10", "skip-10-2-2", "ccsr-11", two]
    for _ in range(2):
        assert main(arguments) == 0
    folder = tmp_path / "out" / "tiny" / image_folder.name
    rows = read(folder / "stability_rows.csv", Spread)
    assert [row.evaluations for row in rows] == [10, 11, 11, 11, 2, 11]  # ccsr-11 on all three weights
    assert all(row.l_std > 0 for row in rows)
    text = (folder / "stability.md").read_text()
    assert "1 image, 2 noise seeds each, drawn from 1 by the seed 0" in text
    assert "11 evaluations: L-STD differs by" in text
    assert "√(1/N Σₙ (xₙ - x̄)²)" in text and "4 pixels are cut off at every border" in text
    with (folder / "stability.csv").open() as file:
        (first, *_) = csv.DictReader(file)
    assert float(first["l_std"]) == pytest.approx(rows[4].l_std) and first["sampler"] == two
    capsys.readouterr()


def test_bad_requests_are_named(model, source) -> None:
    with pytest.raises(SkipDiffError, match="at least 2 noise seeds"):
        measure(model, source, [], 1, [0])


def test_start_and_agent_decide_what_is_compared(model_folder, model, tmp_path) -> None:
    """CCSR and the standard samplers come at as many evaluations as that start takes."""
    network = SkipProposalNetwork(SPNConfig(observation_size=16, hidden_size=8, norm="group")).eval()
    file = save_policy(tmp_path / "agent.safetensors", network)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["--model", str(model_folder), "--start", "1", "--agent", f"NIQE={file}"]
    args = parser.parse_args(words)
    assert (args.pictures, args.seeds, args.draw) == (20, 10, 0)
    keys = {sampler.key for sampler in chosen(args, model)}
    assert {"skip-10-2-1", "ccsr-10", "ddim-10", "dpm-10", "ancestral-10"} < keys
    assert sum(key.startswith("agent-10-2-") for key in keys) == 1 and "skip-10-2-2" not in keys
