"""``skipdiff upscale`` as users call it, on every kind of file."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.cli import main
from skipdiff_env.diffusion.folder import CARD, save_model
from skipdiff_env.images import photo as photo_module
from skipdiff_env.images.formats.metadata import read_record
from skipdiff_env.images.photo import FORMATS, read_photo
from skipdiff_env.upscale import run as run_module
from tests.images.photo_files import READ, pillow, scene

from .conftest import Upscale, enlarged, left_in


@pytest.mark.parametrize("name", READ)
def test_every_kind_of_file_is_enlarged_in_its_own_format(
    name: str, upscale: Upscale, tmp_path: Path
) -> None:
    """Looked at in pixels by another reader than ours: colours, grey, alpha, depth."""
    make, colour, alpha, tolerance = READ[name]
    (tmp_path / "in").write_bytes(make())
    ran = upscale(tmp_path / "in", "-o", tmp_path / "out/")
    assert (ran.status, ran.err) == (0, "")
    (made,) = (tmp_path / "out").iterdir()
    kind = name.split()[0]
    with Image.open(made) as image:
        assert image.format == ("PNG" if kind == "gif" else kind.upper())
        assert image.size == (56, 40)
        found = np.array(image.convert("RGBA" if image.mode not in ("I;16", "I") else None))
        transparent = image.has_transparency_data
    deep = colour.dtype == np.uint16
    white = 65535 if deep else 255
    if deep:
        raw = cv2.imread(str(made), cv2.IMREAD_UNCHANGED)
        raw = raw if raw.ndim == 3 else raw[..., None]
        assert raw.dtype == np.uint16
        found = np.concatenate([raw[..., 2::-1] if raw.shape[2] > 2 else raw, raw[..., 3:]], axis=2)
    assert transparent == (alpha is not None)
    expected = enlarged(colour / white, (56, 40)) * white
    lossy = white * (0.06 if kind in ("jpeg", "webp") else 0)
    error = np.abs(found[..., : expected.shape[2]] - expected)
    if alpha is not None:
        plane = enlarged(alpha[..., None] / white, (56, 40))[..., 0] * white
        assert np.abs(found[..., -1] - plane).max() <= 1.5 + lossy
        # around what is hidden, colours come from what is not
        near = cv2.dilate((alpha == 0).astype(np.uint8), np.ones((5, 5)))
        error = error[np.kron(near, np.ones((4, 4))) == 0]
    assert error.size > 1000
    assert error.max() <= 1.2 * tolerance + 1.2 + lossy


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written(name: str, upscale: Upscale, photograph: Path, tmp_path: Path) -> None:
    ran = upscale(photograph, "-o", tmp_path / "out/", "--format", name)
    assert ran.status == 0
    made = tmp_path / "out" / f"in{FORMATS[name].suffix}"
    error = read_photo(made).colour - enlarged(scene(), (56, 40)) * 255
    assert np.abs(error).max() <= {"jpeg": 8, "webp": 20}.get(name, 1.5)
    named = tmp_path / f"x{FORMATS[name].suffix}"
    assert upscale(photograph, "-o", named).status == 0
    assert named.read_bytes() == made.read_bytes()


@pytest.mark.parametrize(("alias", "suffix"), [("jpg", ".jpg"), ("tif", ".tif")])
def test_formats_have_their_usual_suffix_as_a_name(
    alias: str, suffix: str, upscale: Upscale, photograph: Path, tmp_path: Path
) -> None:
    ran = upscale(photograph, "-o", tmp_path / "out/", "--format", alias)
    assert ran.status == 0 and (tmp_path / "out" / f"in{suffix}").is_file()


def test_the_same_settings_give_the_same_bytes(
    upscale: Upscale, photograph: Path, tmp_path: Path, noisy_folder: Path
) -> None:
    def made(name: str, *options: object) -> bytes:
        assert upscale(photograph, "-o", tmp_path / name, *options, model=noisy_folder).status == 0
        return (tmp_path / name).read_bytes()

    first = made("a.png")
    assert made("b.png") == made("c/d.png", "--jobs", "3") == first
    assert made("e.png", "--seed", 1) != first


@pytest.mark.parametrize(
    ("suffix", "format"), [(".png", "png"), (".jpg", "jpeg"), (".webp", "webp"), (".tif", "tiff")]
)
def test_the_file_records_how_it_was_made(
    suffix: str, format: str, upscale: Upscale, photograph: Path, tmp_path: Path, plain: object
) -> None:
    upscale(photograph, "-o", tmp_path / f"a{suffix}", "--seed", 3, "--tile", 128)
    record = read_record(read_photo(tmp_path / f"a{suffix}").metadata)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.getexif()[305].startswith("SkipDiff ")
    assert record is not None
    assert record.pop("software").startswith("SkipDiff ")
    assert record == {
        "model": "plain-4x", "model_hash": plain.hash, "size": [56, 40], "coarse_steps": 2, "start": 1,  # type: ignore[attr-defined]
        "seed": 3, "tile": 128, "precision": "float32", "keep_location": False, "format": format,
        **({"quality": 95} if format in ("jpeg", "webp") else {}),
        "source": hashlib.sha256(photograph.read_bytes()).hexdigest(),
    }  # fmt: skip


def test_what_is_printed(upscale: Upscale, photograph: Path, tmp_path: Path) -> None:
    ran = upscale(photograph, "-o", tmp_path / "a.png")
    line = rf"{photograph} \(14x10\) -> {tmp_path}/a.png \(56x40\): 2 evaluations, \d+\.\d s\n"
    assert re.fullmatch(line, ran.out)
    assert ran.err == ""
    assert upscale(photograph, "-o", tmp_path / "b.png", "--quiet").out == ""
    (tmp_path / "many.gif").write_bytes(animation())
    ran = upscale(tmp_path / "many.gif", "-o", tmp_path / "c.png")
    assert ran.out.splitlines()[1] == "  note: only the first of 2 frames or pages"


def animation() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (14, 10), c) for c in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def test_json(upscale: Upscale, photograph: Path, tmp_path: Path, plain: object) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n")
    ran = upscale(photograph, tmp_path / "bad.png", "-o", tmp_path / "out", "--json")
    assert ran.status == 2
    bad, good = ran.json
    assert bad["input"] == str(tmp_path / "bad.png")
    assert "not a readable image" in bad["error"]
    seconds = good.pop("seconds")
    assert 0 < seconds < 60
    assert good == {
        "input": str(photograph), "output": str(tmp_path / "out" / "in.png"), "format": "png",
        "input_size": [14, 10], "output_size": [56, 40], "model": "plain-4x", "model_hash": plain.hash,  # type: ignore[attr-defined]
        "coarse_steps": 2, "start": 1, "seed": 0, "tile": 512, "precision": "float32",
        "levels": [[100, 50, *range(49, -1, -1)]],
        "evaluations": 2, "notes": [], "score": None,
    }  # fmt: skip


def test_dry_run_writes_nothing(upscale: Upscale, photograph: Path, tmp_path: Path) -> None:
    ran = upscale(photograph, "-o", tmp_path / "out/", "--dry-run", "--scale", "6")
    assert (ran.status, ran.err) == (0, "")
    assert "in.png (84x60): would take 4 network calls in 2 runs, on 2 tiles" in ran.out
    (planned,) = upscale(photograph, "-o", tmp_path / "out/", "-n", "--json").json
    assert planned["dry_run"]
    assert (planned["tiles"], planned["calls"]) == (1, 2) and planned["seconds"] > 0
    assert re.search(r"of up to \d+ pixels, about \d+\.\d s$", ran.out.strip())
    assert left_in(tmp_path) == ["in.png"]


def test_nothing_is_overwritten_unless_asked(upscale: Upscale, photograph: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    out.write_text("precious")
    ran = upscale(photograph, "-o", out)
    assert ran.status == 2
    assert ran.err == f"skipdiff: error: {photograph}: {out} exists: --force replaces it, --resume keeps it\n"
    assert out.read_text() == "precious"
    assert upscale(photograph, "-o", out, "--force").status == 0
    assert read_photo(out).size == (56, 40)
    assert upscale(photograph, "-o", photograph, "--force").status == 2
    assert read_photo(photograph).size == (14, 10)


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    upscale: Upscale, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.png"
    encode = run_module.encode_photo

    def slow(*arguments: object) -> object:
        out.write_text("precious")
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "encode_photo", slow)
    assert upscale(photograph, "-o", out).status == 2
    assert out.read_text() == "precious"


def test_resume(upscale: Upscale, photograph: Path, tmp_path: Path, noisy_folder: Path) -> None:
    out = tmp_path / "a.png"
    upscale(photograph, "-o", out)
    stamp, data = out.stat().st_mtime_ns, out.read_bytes()
    ran = upscale(photograph, "-o", out, "--resume")
    assert (ran.status, ran.out) == (0, f"{out}: is there already\n")
    assert out.stat().st_mtime_ns == stamp
    assert upscale(photograph, "-o", out, "--resume", "--json").json[0]["skipped"] is True
    out.write_bytes(data[:-40])  # not whole
    assert "evaluations" in upscale(photograph, "-o", out, "--resume").out
    assert out.read_bytes() == data
    for other in (["--seed", "1"], ["--scale", "3"]):
        ran = upscale(photograph, "-o", out, "--resume", *other)
        assert ran.status == 2
        assert "was made with other settings" in ran.err
    assert "other settings" in upscale(photograph, "-o", out, "--resume", model=noisy_folder).err
    assert out.read_bytes() == data


def test_several_at_once_give_what_one_at_a_time_gives(
    upscale: Upscale, tmp_path: Path, noisy_folder: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (8 + i, 30 - i, 3)).astype(np.uint8)
        (source / f"{i}.png").write_bytes(pillow(pixels, "PNG"))
    for jobs in (1, 4):
        ran = upscale(
            source, "-o", tmp_path / f"out{jobs}", "--jobs", jobs, "--tile", 128, model=noisy_folder
        )
        assert ran.status == 0
        assert [line.split()[0][-5:] for line in ran.out.splitlines()] == [f"{i}.png" for i in range(5)]
    for path in (tmp_path / "out1").iterdir():
        assert (tmp_path / "out4" / path.name).read_bytes() == path.read_bytes()


def test_location_is_dropped_unless_asked_for(upscale: Upscale, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271], exif[34853] = "Maker", {1: "N", 2: (46.0, 57.0, 0.0)}
    (tmp_path / "a.jpg").write_bytes(pillow(np.zeros((8, 8, 3), np.uint8), "JPEG", exif=exif.tobytes()))
    for options in ([], ["--keep-location"]):
        out = tmp_path / f"out{len(options)}.jpg"
        upscale(tmp_path / "a.jpg", "-o", out, *options)
        with Image.open(out) as image:
            assert image.getexif()[271] == "Maker"
            assert bool(image.getexif().get_ifd(34853)) == bool(options)


def test_a_models_notice_is_said(upscale: Upscale, photograph: Path, tmp_path: Path, plain: object) -> None:
    card = "---\nnotice: |\n  trained on faces;\n  anything else comes out badly\n---\n# A face model\n"
    folder = save_model(tmp_path / "faces-4x", plain.network, plain.config, card)  # type: ignore[attr-defined]
    ran = upscale(photograph, "-o", tmp_path / "a.png", model=folder)
    assert ran.err == "skipdiff: note: faces-4x: trained on faces; anything else comes out badly\n"
    assert upscale(photograph, "-o", tmp_path / "b.png", "-q", model=folder).err == ""
    for card in ("# No header", "---\n- list\n---\n", "---\nnotice: [\n---\n", "text\n---\nnotice: x\n---\n"):
        (folder / CARD).write_text(card)
        assert upscale(photograph, "-o", tmp_path / "b.png", "--force", model=folder).err == ""


def test_score(upscale: Upscale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for name, side in (("small", 20), ("large", 60)):
        (tmp_path / f"{name}.png").write_bytes(
            pillow(rng.integers(0, 256, (side, side, 3)).astype(np.uint8), "PNG")
        )
    large, small = upscale(tmp_path / "*.png", "-o", tmp_path / "out", "--score", "niqe", "--json").json
    assert small["score"] is None
    assert small["notes"] == ["not rated: niqe needs 96 pixels per side"]  # it has 80
    assert large["notes"] == []
    assert 1 < large["score"] < 100
    out = upscale(tmp_path / "large.png", "-o", tmp_path / "x.png", "--score", "niqe").out
    assert out.endswith(f", score {large['score']:.3f}\n")


@pytest.mark.parametrize(("known", "status"), [({"avx512_bf16": True}, 0), ({"amx_bf16": True}, 0), ({}, 2)])
def test_bfloat16_only_where_the_processor_knows_it(
    known: dict[str, bool], status: int, upscale: Upscale, photograph: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    arguments = photograph, "-o", tmp_path / "out/", "--dry-run", "--json"
    ran = upscale(*arguments, "--precision", "bfloat16")
    assert ran.status == status
    if status:
        assert ran.err == (
            "skipdiff: error: bfloat16 needs CUDA or a processor with AVX512-BF16 or AMX: use float32\n"
        )
    else:
        assert ran.json[0]["precision"] == "bfloat16"
    assert upscale(*arguments).json[0]["precision"] == "float32"


def test_bfloat16_gives_nearly_the_same(upscale: Upscale, photograph: Path, tmp_path: Path) -> None:
    if not torch.cpu.get_capabilities().get("avx512_bf16"):
        pytest.skip("this processor has no AVX512-BF16")
    found = []
    for precision in ("float32", "bfloat16"):
        out = tmp_path / f"{precision}.png"
        assert upscale(photograph, "-o", out, "--precision", precision, model="natural-4x").status == 0
        found.append(read_photo(out).colour.astype(float))
    assert 45 < 10 * np.log10(255**2 / np.mean((found[0] - found[1]) ** 2)) < 99


def test_compare(upscale: Upscale, photograph: Path, tmp_path: Path) -> None:
    assert upscale(photograph, "-o", tmp_path / "a.jpg", "--compare").status == 0
    assert left_in(tmp_path) == ["a-compare.png", "a.jpg", "in.png"]
    with Image.open(tmp_path / "a-compare.png") as sheet:
        assert sheet.width > 3 * 56
    (tmp_path / "a.jpg").unlink()
    ran = upscale(photograph, "-o", tmp_path / "a.jpg", "--compare")
    assert "a-compare.png exists" in ran.err
    assert not (tmp_path / "a.jpg").exists()


def test_resume_makes_the_sheet_that_is_missing(upscale: Upscale, photograph: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "a.png", tmp_path / "a-compare.png"
    assert upscale(photograph, "-o", out).status == 0
    made = out.read_bytes()
    ran = upscale(photograph, "-o", out, "--compare", "--resume")
    assert ran.status == 0 and "evaluations" in ran.out
    whole = sheet.read_bytes()
    assert out.read_bytes() == made
    assert "is there already" in upscale(photograph, "-o", out, "--compare", "--resume").out
    sheet.write_bytes(whole[:-40])
    assert "evaluations" in upscale(photograph, "-o", out, "--compare", "--resume").out
    assert sheet.read_bytes() == whole
    out.unlink()
    ran = upscale(photograph, "-o", out, "--compare", "--resume", "--seed", "1")
    assert ran.status == 2 and "a-compare.png was made with other settings" in ran.err


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "RGB16", "RGBA16"]


def any_file(data: st.DataObject) -> bytes:
    """A random file of a random mode, whole or damaged."""
    mode = data.draw(st.sampled_from(MODES))
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    if mode.endswith("16"):
        planes = {"I;16": 1, "RGB16": 3, "RGBA16": 4}[mode]
        pixels = rng.integers(0, 65536, (height, width, planes)).astype(np.uint16)
        whole = bytes(cv2.imencode(data.draw(st.sampled_from([".png", ".tiff"])), pixels)[1])
    else:
        formats = {"CMYK": ["TIFF", "JPEG"], "LA": ["PNG", "TIFF"], "RGBA": ["PNG", "TIFF", "WEBP"]}
        name = data.draw(st.sampled_from(formats.get(mode, ["PNG", "TIFF", "BMP", "GIF"])))
        image = Image.fromarray(rng.integers(0, 256, (height, width, 4)).astype(np.uint8)).convert(mode)
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[274] = data.draw(st.integers(0, 9))
        image.save(buffer, name, **({} if name in ("BMP", "GIF") else {"exif": exif.tobytes()}))
        whole = buffer.getvalue()
    damage = data.draw(st.sampled_from(["none", "none", "cut", "changed"]))
    if damage == "cut":
        return whole[: data.draw(st.integers(0, len(whole)))]
    if damage == "changed":
        changed = bytearray(whole)
        changed[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        return bytes(changed)
    return whole


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_comes_in(
    data: st.DataObject, folder: Path, plain_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No traceback, no partial file, and the exit status that was promised."""
    for path in folder.iterdir():
        path.unlink()
    (folder / "in").write_bytes(any_file(data))
    out = folder / f"out{data.draw(st.sampled_from([f.suffix for f in FORMATS.values()]))}"
    scale = data.draw(st.sampled_from(["1.5", "2", "4", "5"]))
    capfd.readouterr()
    # a single changed byte may make a header claim megapixels, which are allowed but take minutes
    with mock.patch.object(photo_module, "MAX_PIXELS", 1000):
        status = main(
            ["upscale", str(folder / "in"), "-o", str(out), "--scale", scale, "--json"]
            + ["--model", str(plain_folder), "--coarse-steps", "2", "--start", "1"]
        )
    printed, errors = capfd.readouterr()
    (entry,) = map(json.loads, printed.splitlines())
    if status == 0:
        assert errors == ""
        assert left_in(folder) == ["in", out.name]
        assert list(read_photo(out).size) == entry["output_size"]
        assert read_photo(out).size == tuple(max(1, round(n * float(scale))) for n in entry["input_size"])
    else:
        assert status == 2
        assert re.fullmatch(r"skipdiff: error: [^\n]+\n", errors)
        assert left_in(folder) == ["in"]
        assert "error" in entry
