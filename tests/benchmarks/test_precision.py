"""bfloat16 beside float32: which pictures, what is subtracted from what, and that rows are shared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.measure.results import Results
from benchmarks.measure.samplers import catalogue
from benchmarks.measure.store import Row, read_rows
from benchmarks.paper.precision import EXACT, FAST, named, report
from skipdiff_env.diffusion import load_pretrained, random_model, save_model, tiny_config


def test_differences_are_bfloat16_s_less_float32_s() -> None:
    sampler = catalogue(random_model(tiny_config(image_size=32)), 7)["csa-10"]
    rows = [
        Row("m", "any", f"{i}", 0, named("csa-10", dtype), {"psnr": 20.0 + i + more}, 10, 0)
        for i in range(6)
        for dtype, more in ((EXACT, 0.0), (FAST, 0.25))
    ]
    text = report(Results(rows), [sampler], "Made.").text
    assert "| CSA alone (S = 10) | float32 | 22.50 |" in text
    assert "| CSA alone (S = 10) | difference | +0.250 (+0.250 … +0.250) |" in text


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    able = {"avx512_bf16": True}  # a processor that is not emulates it: slow, and the same
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: able, raising=False)
    made = random_model(tiny_config(image_size=32))
    folder = save_model(tmp_path / "wide", made.network, replace(made.config, start=2))
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    command = ["precision", "--model", str(folder), "--images", str(tmp_path / "pictures"), "--count", "2"]
    assert main([*command, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    place = tmp_path / "out" / load_pretrained(folder).name / "pictures"
    rows = read_rows(place / "rows.csv")
    assert {row.dtype for row in rows} == {"float32 cpu", "bfloat16 cpu"} and len(rows) == 8
    assert {row.sampler for row in rows} == {"skip-10-10-2", "csa-100"}
    assert len({row.image for row in rows}) == 2
    assert (place / "precision.md").read_text() in capsys.readouterr().out
