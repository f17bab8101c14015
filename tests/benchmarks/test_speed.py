"""``python -m benchmarks speed`` on a tiny model."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from benchmarks.__main__ import main
from benchmarks.speed import command as speed
from benchmarks.speed import engines, enlarging, few_steps, parts
from skipdiff_env import load_pretrained
from skipdiff_env.chains import Plan
from skipdiff_env.chains.shipped import save_plans
from skipdiff_env.diffusion.folder import PLANS, REFINER, save_model, write_weights
from skipdiff_env.diffusion.model import RefinerConfig
from skipdiff_env.diffusion.refiner import RefinerNetwork


def test_sections_are_written_one_by_one_and_kept(model_folder, tmp_path, monkeypatch, capsys):
    """A section that is measured later leaves the others, and one that fails loses nothing."""
    arguments = ["speed", "--model", str(model_folder), "--repeats", "1", "--out", str(tmp_path), "--only"]

    def broken(*_):
        raise RuntimeError("no memory")

    monkeypatch.setitem(speed.SECTIONS, "tiling", broken)
    with pytest.raises(RuntimeError):
        main([*arguments, "sampler", "tiling"])
    page = tmp_path / "tiny" / "speed.md"
    before = page.read_text()
    assert "## Sampler against the full chain" in before and "| start 2 / full chain | 11 / 20 |" in before
    assert main([*arguments, "cache"]) == 0
    text = page.read_text()
    assert text.startswith(before) and "## Latent cache" in text and text.count("torch ") == 2
    assert "Medians of 1 alternating rounds." in text
    assert "Made by `python -m benchmarks speed --model tiny --only cache --repeats 1`." in text
    assert sorted(f.name for f in (tmp_path / "tiny" / "speed").iterdir()) == ["cache.md", "sampler.md"]
    assert "## Latent cache" in capsys.readouterr().out


def test_few_steps_are_ratios_within_a_round(model_folder, model, tmp_path):
    ccsr = tmp_path / "ccsr"
    network = RefinerNetwork(model.config.unet)
    save_model(
        ccsr, model.network, replace(model.config, chain="ccsr:2", refiner=RefinerConfig(model.config.unet))
    )
    write_weights(ccsr / REFINER, network)
    trained = {"ccsr": load_pretrained(ccsr, "cpu"), "addsr": model}
    found = few_steps.few_step_speed(model, 2, trained, 3, size=96)
    assert {name: cost.evaluations for name, cost in found.items()} == {
        "CCSR, 1 step, no refiner": 1, "CCSR, 1 step and the refiner": 1, "CCSR, 2 steps and the refiner": 2,
        "AddSR, 1 step": 1, "AddSR, 4 steps": 4, "SkipDiff (10, 2), start 2": 11, "full chain": 20,
    }  # fmt: skip
    chain = found["full chain"]
    assert (chain.share, chain.faster) == (1, 1) and chain.seconds > 0
    assert found["SkipDiff (10, 2), start 2"].than_skipdiff == 1
    for cost in found.values():
        assert cost.share * cost.faster == pytest.approx(1, rel=0.5)
    arguments = ["speed", "--model", str(model_folder), "--ccsr", str(ccsr), "--addsr", str(model_folder)]
    arguments += ["--repeats", "1", "--out", str(tmp_path), "--only", "few-steps"]
    assert main(arguments) == 0
    page = (tmp_path / "tiny" / "speed" / "few-steps.md").read_text()
    assert "| CCSR, 2 steps and the refiner | 2 |" in page and "7 times the speed of SeeSR" in page
    assert "| full chain | 20 |" in page and "| 1.000 | 1.0 |" in page


def test_plans_take_part_with_their_efforts(model, tmp_path):
    folder = save_model(tmp_path / "planned", model.network, model.config)
    found = {Plan.read(text): {"psnr": 20.0} for text in ("20>0", "20>8|6>0 eta 0.5")}
    hash_ = load_pretrained(folder, "cpu").hash
    save_plans(folder / PLANS, hash_, found, {"normal": "plan:2", "fast": "plan:1", "best": "plan:2"})
    names = [*few_steps.ways(load_pretrained(folder, "cpu"), 2, {})]
    assert names[:2] == ["plan of 1 evaluation (fast effort)", "plan of 2 evaluations (normal, best effort)"]
    assert names[2:] == ["SkipDiff (10, 2), start 2", "full chain"]


def test_upscale_is_timed_in_whole_processes_by_turns(model_folder, tmp_path, capsys):
    arguments = ["speed", "--model", str(model_folder), "--only", "upscale", "--out", str(tmp_path)]
    assert main([*arguments, "--repeats", "1"]) == 2
    assert "needs the worktree of another commit: give --beside" in capsys.readouterr().err
    found = enlarging.measure(str(model_folder), enlarging.HERE, 1)
    assert {side: len(seconds) for side, seconds in found.items()} == {"here": 1, "beside": 1}
    assert enlarging.ratio({"here": [1.0, 2.0, 3.0], "beside": [2.0, 2.0, 4.0]}) == 0.75


def test_a_step_is_the_sum_of_its_parts() -> None:
    tiny = ("optimiser.kind=muon", "batch=2")
    found = parts.measure(1, "tiny", tiny)
    assert found["images"] == 2 and found["faster"] in ("bfloat16", "float32")
    for seconds in found["seconds"].values():
        assert all(seconds[part] > 0 for part in parts.PARTS)
        assert sum(seconds[part] for part in parts.PARTS) == pytest.approx(seconds["step"])


def test_engines_are_compared_with_torch(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "SIDES", (32, 48))
    monkeypatch.setitem(sys.modules, "openvino", None)
    ways = [engines.AS_IT_IS, "torch, not channels-last", "--engine onnx", "OpenVINO"]
    found = engines.measure(str(model_folder), 1, 1, ways)
    assert [(row["side"], row["way"]) for row in found["rows"]] == [
        (side, way) for side in (32, 48) for way in ways[:3]
    ]
    assert all(row["units"] <= 1 and row["seconds"] > 0 and row["ready"] > 0 for row in found["rows"])
    assert [*found["missing"]] == ["OpenVINO"]
    found["rows"][2]["seconds"] = found["rows"][0]["seconds"] / 2
    monkeypatch.setattr(engines, "measured", lambda *_: found)
    arguments = ["speed", "--model", str(model_folder), "--out", str(tmp_path), "--only", "engines"]
    assert main(arguments) == 0
    page = (tmp_path / "tiny" / "speed" / "engines.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| 1 | 32 | --engine onnx |"))
    assert line.split("|")[5].strip() == "2.00" and "Not available here: OpenVINO" in page
