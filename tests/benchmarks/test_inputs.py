"""Models beside one another on clean inputs and on JPEGs, on tiny models."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.measure.results import Results
from benchmarks.measure.store import Row
from benchmarks.paper.inputs import verdict
from benchmarks.training.refiner import STRENGTHS
from skipdiff_env.diffusion import NoiseSchedule, load_pretrained, random_model, tiny_config
from skipdiff_env.diffusion.folder import (
    CONFIG,
    REFINER,
    read_config,
    save_model,
    write_config,
    write_weights,
)
from skipdiff_env.diffusion.model import RefinerConfig
from skipdiff_env.diffusion.refiner import RefinerNetwork


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    config = tiny_config(image_size=96, start=1, schedule=NoiseSchedule.cosine(20).config)
    model = random_model(config, seed=3)
    return save_model(tmp_path_factory.mktemp("models") / "other", model.network, model.config)


def test_every_model_and_input_has_a_line_and_rows_are_used_again(
    model_folder, other, image_folder, tmp_path, capsys
):
    arguments = [
        "inputs", "--models", str(model_folder), str(other), "--images", str(image_folder),
        "--jpeg", "75", "20", "--out", str(tmp_path),
    ]  # fmt: skip
    assert main(arguments) == 0
    folder = tmp_path / "other" / image_folder.name
    text = (folder / "inputs.md").read_text()
    expected = [
        f"{said}: {of}" for said in ("clean", "JPEG 75", "JPEG 20") for of in ("bicubic", "tiny", "other")
    ]
    expected.insert(0, "clean: HR")
    lines = [line[2:].split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][1:]
    assert [line.split(",")[0] for line in lines] == expected
    assert (
        f"Made by `python -m benchmarks inputs --models tiny other --jpeg 75 20 --images {image_folder.name}"
        in text
    )
    assert "*JPEG 20: other, start 1 against tiny, start 2*: undecided in PSNR" in text
    with (folder / "inputs.csv").open() as file:
        found = {(row["input"], row["sampler"]): row for row in csv.DictReader(file)}
    assert len(found) == 10 and float(found["clean", "HR"]["lpips"]) == pytest.approx(0, abs=1e-6)
    psnr = [float(found[said, "bicubic"]["psnr"]) for said in ("clean", "JPEG 75", "JPEG 20")]
    assert psnr == sorted(psnr, reverse=True) and psnr[0] > psnr[2]
    assert float(found["clean", "other, start 1"]["evaluations"]) == 10
    files = [tmp_path / name / image_folder.name / "rows.csv" for name in ("tiny", "other")]
    kept = [file.read_bytes() for file in files]
    assert [len(data.splitlines()) for data in kept] == [1 + 2 * 2 * 3 + 2, 1 + 2 * 3]
    assert main(arguments) == 0 and [file.read_bytes() for file in files] == kept
    capsys.readouterr()
    assert main([*arguments, "--models", str(other), str(other)]) == 2
    assert "two have the same name" in capsys.readouterr().err


def test_a_refiner_s_chain_has_a_line_of_its_own(model_folder, image_folder, tmp_path):
    folder = tmp_path / "refined"
    shutil.copytree(model_folder, folder)
    torch.manual_seed(0)
    network = RefinerNetwork(load_pretrained(folder, "cpu").config.unet)
    torch.nn.init.normal_(network.unet.final_conv.block[-1].weight, std=0.05)
    write_weights(folder / REFINER, network)
    config = replace(read_config(folder / CONFIG), chain="ccsr:2", refiner=RefinerConfig(network.unet.config))
    write_config(folder / CONFIG, config)
    out = "--out", str(tmp_path / "out")
    common = "--images", str(image_folder), "--limit", "1", *out
    assert main(["inputs", "--models", str(model_folder), str(folder), *common]) == 0
    text = (tmp_path / "out" / "refined" / image_folder.name / "inputs.md").read_text()
    for line in ("clean: refined, start 2 |", "clean: refined, 2 steps and refiner |"):
        assert line in text
    assert "*clean: refined, 2 steps and refiner against tiny, start 2*" in text
    assert "*JPEG 75: refined, 2 steps and refiner against refined, start 2*" in text


def test_strengths_lie_between_nothing_and_the_whole(model_folder, image_folder, tmp_path, capsys):
    folder, out = tmp_path / "refined", tmp_path / "out"
    shutil.copytree(model_folder, folder)
    torch.manual_seed(0)
    network = RefinerNetwork(load_pretrained(folder, "cpu").config.unet)
    torch.nn.init.normal_(network.unet.final_conv.block[-1].weight, std=0.05)
    write_weights(folder / REFINER, network)
    common = "--images", str(image_folder), "--limit", "1", "--jpeg", "75", "--out", str(out)
    assert main(["refiner", "--model", str(model_folder), *common]) == 2
    assert "has no refiner: train one" in capsys.readouterr().err
    config = replace(read_config(folder / CONFIG), chain="ccsr:2", refiner=RefinerConfig(network.unet.config))
    write_config(folder / CONFIG, config)
    assert main(["refiner", "--model", str(folder), *common]) == 0
    with (out / "refined" / f"{image_folder.name}-q75" / "refiner.csv").open() as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    assert len(rows) == 2 + 2 * (1 + len(STRENGTHS)) + 2 * 2 and rows["bicubic"]["evaluations"] == "0.0"
    psnr = [float(rows[f"strength {s:g}, 2 steps"]["psnr"]) for s in (0, *STRENGTHS)]
    assert len({*psnr}) == len(psnr)
    plain, given = (rows[f"strength 1, 2 steps{more}"] for more in ("", ", back-projected"))
    assert float(given["consistency"]) > float(plain["consistency"]) + 5
    assert rows["strength 1, 1 step, colours of the input"]["lpips"] != rows["strength 1, 1 step"]["lpips"]
    lpips = {s: float(rows[f"strength {s:g}, 2 steps"]["lpips"]) for s in (0, *STRENGTHS)}
    capsys.readouterr()
    hash_ = load_pretrained(folder, "cpu").hash
    by_psnr = dict(zip((0, *STRENGTHS), psnr, strict=True))
    for limit in sorted(psnr)[-3:]:
        assert main(["refiner", "--model", str(folder), *common, "--choose", f"psnr={limit!r}"]) == 0
        best = min((s for s in lpips if by_psnr[s] >= limit), key=lambda s: lpips[s])
        assert read_config(folder / CONFIG).refiner.strength == best
        text = (out / "refined" / f"{image_folder.name}-q75" / "refiner.md").read_text()
        assert f"the model's own is {best:g}. It was chosen here, for the least LPIPS with PSNR of at" in text
    assert load_pretrained(folder, "cpu").hash == hash_
    assert main(["refiner", "--model", str(folder), *common, "--choose"]) == 0
    assert read_config(folder / CONFIG).refiner.strength == min(lpips, key=lambda s: lpips[s])
    capsys.readouterr()
    assert main(["refiner", "--model", str(folder), *common, "--choose", "psnr=99"]) == 2
    assert "--choose: no strength has PSNR of at least 99" in capsys.readouterr().err
    assert main(["refiner", "--model", str(folder), *common, "--choose", "psmr=9"]) == 2
    assert (
        "--choose psmr=9: write METRIC=LIMIT, with one of the metrics psnr, ssim" in capsys.readouterr().err
    )


def test_the_verdict_asks_the_interval():
    def rows(sampler, lpips):
        scores = {"niqe": 5.0, "lpips": lpips}
        return [Row("h", "f", f"i{i}", 0, sampler, {"psnr": 25.0 + i, **scores}, 9, 1) for i in range(6)]

    results = Results([*rows("old, start 1", 0.3), *rows("new, start 1", 0.2)])
    said = verdict(results, "JPEG 75", "new, start 1", "old, start 1")
    head = (
        "*JPEG 75: new, start 1 against old, start 1*: better in LPIPS (+0.1000, interval +0.1000 … +0.1000)"
    )
    assert said.startswith(head + "; not told apart in PSNR (+0.00")
