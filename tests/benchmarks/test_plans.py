"""The page on plans: what it takes, what it says, and who beats whom."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.measure.results import Results
from benchmarks.measure.sampler import Sampler
from benchmarks.measure.samplers import catalogue
from benchmarks.measure.store import Row, read_rows
from benchmarks.paper.plans import STANDARD, beaten, compared, report
from skipdiff_env.chains import uniform
from skipdiff_env.chains.shipped import save_plans
from skipdiff_env.diffusion import load_pretrained, random_model, save_model, tiny_config

FIGURES = {
    "psnr": 26.0, "ssim": 0.7, "niqe": 6.0, "niqe_full": 6.0, "lpips": 0.2, "consistency": 57.0,
    "residue": 0.8,
}  # fmt: skip


def rows(key: str, evaluations: int, **changes: float) -> list[Row]:
    """Of ten images, which differ among themselves by the same amounts."""
    made = []
    for i in range(10):
        scores = {name: changes.get(name, value) * (1 + i / 1000) for name, value in FIGURES.items()}
        made.append(Row("hash", "float32 cpu", f"image-{i}", 0, key, scores, evaluations, 0))
    return made


def sampler(key: str, steps: int) -> Sampler:
    return Sampler(key, key, lambda lr, seed: None, frozenset(), steps=steps)  # type: ignore[arg-type,return-value]


START, SIX, FIVE, DDIM, DPM = (
    sampler(key, steps)
    for key, steps in (("start", 16), ("six", 6), ("five", 5), ("ddim-6", 6), ("dpm-5", 5))
)


def test_as_good_as_the_start_within_limits() -> None:
    made = (
        rows("hr", 0)
        + rows("start", 16)
        + rows("six", 6, lpips=0.206)
        + rows("five", 5, lpips=0.206, psnr=25.8)
    )
    results = Results(made)
    found = compared(results, "five", "start")
    assert found["psnr"].mean == pytest.approx(-0.2 * (1 + 4.5 / 1000))
    assert found["lpips"].mean == pytest.approx(1.03)
    text = report(results, START, [FIVE, SIX], [], "Made by a test.").text
    assert "in at most 8 evaluations* (PSNR ≥ -0.1, SSIM ≥ -0.005, LPIPS ≤ × 1.02" in text
    assert "no; nearest is the plan of 6 evaluations, beyond the limit in LPIPS." in text
    assert "in at most 6 evaluations* (PSNR ≥ -0.1, SSIM ≥ -0.005, LPIPS ≤ × 1.05" in text
    assert "yes, from 6 evaluations on" in text
    assert "no; nearest is the plan of 5 evaluations, beyond the limit in PSNR." in text
    assert re.search(r"\| six .* 26.12 \| 0.703[12] \| .* \| 0.2069 \| .* 0.80 \| +6 \|", text)


def test_a_plan_is_beaten_by_two_of_three_judges() -> None:
    plan = rows("six", 6)
    for changes, named in (
        ({"psnr": 26.2, "lpips": 0.19}, True),
        ({"psnr": 26.2, "lpips": 0.19, "niqe_full": 6.2}, False),
        ({"psnr": 26.2}, False),
    ):
        (said, lines) = beaten(Results(plan + rows("ddim-6", 6, **changes)), [SIX], [DDIM, DPM])
        assert said.startswith("A plan counts as beaten if")
        assert lines == ("- six: beaten by ddim-6" if named else "- six: beaten by none of 1")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = random_model(tiny_config(image_size=32))
    folder = save_model(tmp_path / "wide", made.network, made.config)
    images = tmp_path / "pictures"
    images.mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    command = ["plans", "--model", str(folder), "--images", str(images), "--out", str(tmp_path / "out")]
    command += ["--device", "cpu"]
    assert main(command) == 2
    assert "comes with no plans: make them with 'skipdiff find-plan'" in capsys.readouterr().err
    model = load_pretrained(folder, "cpu")
    efforts = {"fast": "plan:3", "normal": str(uniform(100, 7, 0.5)), "best": str(uniform(100, 8))}
    save_plans(folder / "plans.json", model.hash, {uniform(100, 3): {}, uniform(100, 7): {}}, efforts)
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "beaten by none of 4" in text or "beaten by" in text
    stored = read_rows(tmp_path / "out" / model.name / "pictures" / "rows.csv")
    keys = {row.sampler for row in stored}
    family = [s for s in catalogue(model, 7).values() if s.family in ("plan", "effort")]
    assert [s.label for s in family] == [
        "plan of 3 evaluations", "plan of 7 evaluations",
        "effort normal, 7 evaluations", "effort best, 8 evaluations",
    ]  # fmt: skip
    plans = {s.key for s in family}
    rivals = {f"{kind}-{n}" for kind in STANDARD for n in (3, 7)}
    assert keys == plans | rivals | {"hr", "skip-10-10-7", "skip-20-5-4"}
    _, _, own = text.partition("Efforts against SkipDiff (20, 5), start 4, in the same way:")
    assert re.findall(r"^\| (\w+ \w+)", own, re.M) == ["effort normal", "effort best"]
    assert [row.value("residue") for row in stored if row.sampler == "hr"] == pytest.approx([1, 1])
    assert "\n| HR | – | 1.0000 |" in text
    assert all("residue" in row.scores for row in stored if row.sampler in plans | {"skip-10-10-7"})
    assert main(command) == 0  # from the rows alone
    assert read_rows(tmp_path / "out" / model.name / "pictures" / "rows.csv") == stored
    assert (tmp_path / "out" / model.name / "pictures" / "plans.md").read_text() in text
