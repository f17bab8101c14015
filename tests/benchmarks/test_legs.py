"""What legs of a training brought, on tiny models."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.measure.results import Results
from benchmarks.measure.store import Row
from benchmarks.training.legs import per_tenfold
from skipdiff_env.diffusion import NoiseSchedule, random_model, save_model, tiny_config
from skipdiff_env.diffusion.folder import REFINER, write_weights
from skipdiff_env.diffusion.model import RefinerConfig
from skipdiff_env.diffusion.refiner import RefinerNetwork


@pytest.fixture(scope="module")
def legs(tmp_path_factory):
    """A model folder, and a run that went on from it for half an hour."""
    root = tmp_path_factory.mktemp("legs")
    given = []
    for seed, (hours, images) in enumerate([(1.0, 1000), (1.5, 10_000)]):
        training = {"recipe": "tiny", "hours": hours, "images": images}
        config = tiny_config(image_size=96, training=training, schedule=NoiseSchedule.cosine(20).config)
        model = random_model(config, seed=seed)
        run = root / f"run{seed}"
        given.append(run if seed else run / "model")
        save_model(run / "model", model.network, model.config)
    lines = [{"step": 1, "loss": 0.5, "minutes": 15.0}, {"step": 2, "loss": 0.25, "minutes": 30.0}]
    lines.append({"step": 2, "val_loss": 0.125})
    (root / "run1" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return given


def test_legs_have_a_line_each_and_a_curve(legs, image_folder, tmp_path, capsys):
    arguments = ["legs", "--legs", *map(str, legs), "--images", str(image_folder), "--out", str(tmp_path)]
    assert main(arguments) == 0
    folder = tmp_path / "tiny" / "training"
    text = (folder / "legs.md").read_text()
    with (folder / "legs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["leg"], float(row["hours"]), int(row["crops"])) for row in table] == [
        ("1", 1.0, 1000), ("2", 1.5, 10_000),
    ]  # fmt: skip
    assert "*Leg 2 against leg 1* (0.5 hours, 9000 crops)" in text and "*Ten times as many crops*" in text
    # From 1000 to 10 000 crops the slope is the difference itself.
    change = float(table[1]["psnr"]) - float(table[0]["psnr"])
    assert f"PSNR {change:+.2f} (" in text
    with (folder / "curves.csv").open() as file:
        curve = list(csv.DictReader(file))
    assert [(float(line["hours"]), line["loss"], line["val_loss"]) for line in curve] == [
        (1.25, "0.5", ""), (1.5, "0.25", ""), (1.5, "", "0.125"),
    ]  # fmt: skip
    assert (folder / "legs.png").read_bytes()[:4] == b"\x89PNG"
    before = (folder / "rows.csv").read_bytes()
    assert main(arguments) == 0 and (folder / "rows.csv").read_bytes() == before  # nothing is computed again


def test_a_refiner_s_legs_are_its_own_and_run_its_chain(image_folder, tmp_path):
    config = tiny_config(image_size=96, chain="ccsr:2", schedule=NoiseSchedule.cosine(20).config)
    model, given = random_model(config), []
    for seed, images in enumerate([100, 200]):
        torch.manual_seed(seed)
        network = RefinerNetwork(config.unet)
        torch.nn.init.normal_(network.unet.final_conv.block[-1].weight, std=0.1 * (seed + 1))
        training = {"recipe": "tiny-refiner", "hours": 0.1 * (seed + 1), "images": images}
        refined = replace(config, refiner=RefinerConfig(config.unet, training=training))
        given.append(save_model(tmp_path / f"{seed}", model.network, refined))
        write_weights(given[-1] / REFINER, network)
    out = tmp_path / "out"
    arguments = ["legs", "--legs", *map(str, given), "--images", str(image_folder), "--out", str(out)]
    assert main(arguments) == 0
    with (out / "tiny-refiner" / "training" / "legs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["crops"]) for row in table] == [100, 200]
    assert all(row["sampler"][2:] in ("1", "2") for row in table)
    assert table[0]["psnr"] != table[1]["psnr"]


def test_the_slope_is_that_of_the_line_through_the_means():
    rng, tens = np.random.default_rng(0), np.array([3.0, 3.4, 5.0])
    values = rng.normal(size=(3, 8))
    rows = [
        Row("m", "float32 cpu", f"image{i}", 0, f"leg{k}", {"psnr": values[k, i]}, 1, 1)
        for k in range(3)
        for i in range(8)
    ]
    found = per_tenfold(Results(rows), ["leg0", "leg1", "leg2"], tens, "psnr")
    assert found.mean == pytest.approx(np.polyfit(tens, values.mean(axis=1), 1)[0])
    assert found.low < found.mean < found.high and found.images == 8


def test_what_is_no_leg_is_refused(legs, model_folder, image_folder, tmp_path, capsys):
    for given, why in (
        ([str(model_folder)], "how long it was trained"),
        ([str(legs[0])] * 2, "the same weights"),
    ):
        assert main(["legs", "--legs", *given, "--images", str(image_folder), "--out", str(tmp_path)]) == 2
        assert why in capsys.readouterr().err
