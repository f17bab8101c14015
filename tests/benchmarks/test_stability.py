"""G-STD and L-STD: the figures, the table, the sentence, and that a run resumes."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.measure.records import read
from benchmarks.measure.sampler import Picture, Sampler
from benchmarks.measure.samplers import catalogue
from benchmarks.paper.stability import Spread, add_arguments, chosen, measure, spread, table, verdict
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

    return Sampler(key, label, run, frozenset(), key.partition("-")[0])


def test_deviations_by_hand() -> None:
    images = [np.full((2, 2, 3), value, np.uint8) for value in (10, 20, 60)]
    images[1][0, 0, 0] = 10
    scores = [{"psnr": 6 * i, "ssim": 6 * i + 1, "niqe": 6 * i + 2, "lpips": 6 * i + 4} for i in range(3)]
    found = spread(images, scores)
    one, other = np.std([10, 20, 60], ddof=1), np.std([10, 10, 60], ddof=1)
    assert found["pixels"] == pytest.approx((11 * one + other) / 12)
    assert found["deviations"] == pytest.approx(dict.fromkeys(["psnr", "ssim", "niqe", "lpips"], 6))
    assert found["mean_lpips"] == pytest.approx(4 + 6)


def test_rows_table_and_verdict(model, source, tmp_path) -> None:
    steady, restless = constant("skip-10-2-2", "SkipDiff", 16, 0), constant("ccsr-16", "CCSR", 16, 3)
    store = tmp_path / "rows.csv"
    rows = measure(model, source, [steady, restless], 4, store=store)
    by_sampler = {row.sampler: row for row in rows}
    assert len(rows) == 4 and by_sampler["skip-10-2-2"].pixels == 0
    assert by_sampler["ccsr-16"].pixels == pytest.approx(np.std([3, -3, 3, -3], ddof=1))
    store.write_text(store.read_text()[:-9])  # the last line is cut short, as by a kill
    made: list[int] = []

    def counted(lr: np.ndarray, seed: int) -> Picture:
        made.append(seed)
        return restless.run(lr, seed)

    again = measure(model, source, [steady, replace(restless, run=counted)], 4, store=store)
    assert made == [0, 1, 2, 3] and [r.pixels for r in again] == [r.pixels for r in rows]
    assert [r.key for r in read(store, Spread)] == [r.key for r in rows]
    text = table(rows, {"ccsr-16": "CCSR"}).markdown()
    assert "| CCSR | 16.0 |" in text and "| skip-10-2-2 | 16.0 |" in text
    many = [replace(row, image=f"{row.image} {i}") for i in range(3) for row in rows]
    said = verdict(many, [steady, restless])
    assert "L-STD differs by -3.46" in said and said.endswith("the more consistent is SkipDiff.")
    assert verdict(rows, [steady, restless]).endswith("the more consistent is undecided, of 2 images.")
    assert verdict(rows, [restless]) == ""
    slower = [replace(row, evaluations=13) if row.sampler.startswith("skip") else row for row in many]
    assert verdict(slower, [steady, restless]).endswith("the one takes 13 evaluations, the other 16.")
    store.write_text(store.read_text().replace(",16.0,", ",sixteen,", 1))
    with pytest.raises(SkipDiffError, match=r"rows.csv holds a damaged row \(.*sixteen"):
        measure(model, source, [steady], 4, store=store)


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
    assert len(set(labels.values())) == 11 and "CCSR, both stages, 11 steps" in labels
    two = labels["CCSR, both stages, 2 steps"]
    arguments = ["stability", "--model", str(model_folder), "--images", str(image_folder), "--seeds", "2"]
    arguments += ["--ccsr", str(trained), "--device", "cpu", "--out", str(tmp_path / "out"), "--limit", "1"]
    arguments += ["--samplers", "csa-10", "skip-10-2-2", "ccsr-11", two]
    for _ in range(2):
        assert main(arguments) == 0
    folder = tmp_path / "out" / "tiny" / image_folder.name
    rows = read(folder / "stability.csv", Spread)
    assert [row.evaluations for row in rows] == [10, 11, 11, 2] and all(row.pixels > 0 for row in rows)
    assert all(isinstance(row, Spread) for row in rows)
    text = (folder / "stability.md").read_text()
    assert "1 image, 2 noise seeds" in text and "11 evaluations: L-STD differs by" in text
    capsys.readouterr()


def test_bad_requests_are_named(model, source) -> None:
    with pytest.raises(SkipDiffError, match="at least 2 noise seeds"):
        measure(model, source, [], 1)


def test_start_and_agent_decide_what_is_compared(model_folder, model, tmp_path) -> None:
    """CCSR and the standard samplers come at as many evaluations as that start takes."""
    network = SkipProposalNetwork(SPNConfig(observation_size=16, hidden_size=8, norm="group")).eval()
    file = save_policy(tmp_path / "agent.safetensors", network)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["--model", str(model_folder), "--start", "1", "--agent", f"NIQE={file}"]
    keys = {sampler.key for sampler in chosen(parser.parse_args(words), model)}
    assert {"skip-10-2-1", "ccsr-10", "ddim-10", "dpm-10", "ancestral-10"} < keys
    assert sum(key.startswith("agent-10-2-") for key in keys) == 1 and "skip-10-2-2" not in keys
