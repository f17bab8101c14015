"""``--resume`` goes by what a file says of itself; two runs at once; what the same settings give."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skipdiff_env.images.formats.metadata import read_record
from skipdiff_env.images.photo import FORMATS, Photo, read_photo
from skipdiff_env.images.photo_file import encode_photo
from skipdiff_env.upscale import run as run_module
from tests.images.photo_files import pillow

from .conftest import FAST, Upscale
from .test_process import start

RED, BLUE = (200, 20, 20), (20, 20, 200)


def flat(path: Path, colour: tuple[int, int, int], side: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)
    return path


def is_blue(path: Path) -> bool:
    red, _, blue = read_photo(path).colour[20, 20]
    return bool(blue > red)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("side", [12, 14])
def test_another_photographs_result_is_made_anew(
    suffix: str, side: int, upscale: Upscale, tmp_path: Path
) -> None:
    first, second = flat(tmp_path / "1" / "a.png", RED), flat(tmp_path / "2" / "a.png", BLUE, side)
    out = tmp_path / f"out{suffix}"
    upscale(first, "-o", out, "--compare")
    sheet = tmp_path / "out-compare.png"
    made = sheet.read_bytes()
    ran = upscale(second, "-o", out, "--compare", "--resume")
    assert (ran.status, ran.err) == (0, "")
    for path in (out, sheet):
        reason = "was made from another photograph, or from an earlier state of this one: made again"
        assert f"\n  note: {path} {reason}\n" in ran.out
    assert is_blue(out) and sheet.read_bytes() != made
    record = read_record(read_photo(out).metadata)
    assert record is not None and record["source"] == hashlib.sha256(second.read_bytes()).hexdigest()
    assert "is there already" in upscale(second, "-o", out, "--compare", "--resume").out


def test_a_photograph_that_was_changed_is_made_anew(upscale: Upscale, tmp_path: Path) -> None:
    source, out = flat(tmp_path / "a.png", RED), tmp_path / "out.png"
    upscale(source, "-o", out)
    copy = tmp_path / "elsewhere" / "copy.png"
    copy.parent.mkdir()
    copy.write_bytes(source.read_bytes())
    assert "is there already" in upscale(copy, "-o", out, "--resume").out  # bytes count, names do not
    flat(source, BLUE)
    (planned,) = upscale(source, "-o", out, "--resume", "--dry-run", "--json").json
    assert planned["notes"] == [
        f"{out} was made from another photograph, or from an earlier state of this one: made again"
    ]
    assert not is_blue(out)
    (done,) = upscale(source, "-o", out, "--resume", "--json").json
    assert done["notes"] == planned["notes"]
    assert is_blue(out)


def test_clean_and_detail_are_part_of_the_settings(
    upscale: Upscale, photograph: Path, tmp_path: Path, noisy_folder: Path
) -> None:
    out = tmp_path / "a.png"
    words = ("--clean", "0.5", "--detail", "0.25", "--colour-fix")
    assert upscale(photograph, "-o", out, *words, model=noisy_folder).status == 0
    record = read_record(read_photo(out).metadata)
    assert record is not None and (record["clean"], record["detail"]) == (0.5, 0.25)
    assert record["colour_fix"] is True
    again = upscale(photograph, "-o", out, *words, "--resume", model=noisy_folder)
    assert "is there already" in again.out
    assert (
        "was made with other settings" in upscale(photograph, "-o", out, "--resume", model=noisy_folder).err
    )
    usual, all_of_it = tmp_path / "b.png", tmp_path / "c.png"
    assert upscale(photograph, "-o", usual, model=noisy_folder).status == 0
    words = ("--clean", "1", "--detail", "1")
    assert upscale(photograph, "-o", all_of_it, *words, model=noisy_folder).status == 0
    assert usual.read_bytes() == all_of_it.read_bytes() != out.read_bytes()


def test_a_result_that_does_not_say_of_what_it_was_made(upscale: Upscale, tmp_path: Path) -> None:
    source = flat(tmp_path / "a.png", BLUE)
    for name, record in (("old.png", {"software": "SkipDiff", "size": [48, 48]}), ("bitmap.bmp", {})):
        out = tmp_path / name
        photo = Photo(np.full((48, 48, 3), 200, np.uint8))
        out.write_bytes(encode_photo(photo, FORMATS[name[-3:]], "SkipDiff", record)[0])
        ran = upscale(source, "-o", out, "--resume")
        assert (ran.status, ran.err) == (0, "")
        assert f"note: {out} does not say which photograph it was made from: made again\n" in ran.out
        assert is_blue(out)


@pytest.mark.parametrize(("name", "side"), [("a.png", 48), ("a.jpg", 48), ("a.bmp", 47)])
def test_somebody_elses_picture_is_not_replaced(
    name: str, side: int, upscale: Upscale, tmp_path: Path
) -> None:
    out = tmp_path / "out" / name
    out.parent.mkdir()
    kind = "JPEG" if name.endswith("jpg") else name[-3:].upper()
    out.write_bytes(pillow(np.full((side, side, 3), 99, np.uint8), kind))
    data = out.read_bytes()
    ran = upscale(flat(tmp_path / "in.png", RED), "-o", out, "--resume")
    assert ran.status == 2
    assert ran.err.endswith(f"{out} does not say that it was made here: --force replaces it\n")
    assert out.read_bytes() == data
    ran = upscale(tmp_path / "in.png", "-o", out, "--resume", "--force")
    assert (ran.status, ran.err) == (0, "")
    assert f"note: {out} does not say that it was made here: replaced\n" in ran.out
    assert out.read_bytes() != data


def test_only_what_is_surely_half_a_result_is_made_anew(upscale: Upscale, tmp_path: Path) -> None:
    """What cannot be read may be anything, and somebody's."""
    source, out = flat(tmp_path / "a.png", RED), tmp_path / "out.png"
    floats = io.BytesIO()
    Image.fromarray(np.ones((9, 9), np.float32)).save(floats, "TIFF")
    for content, words in (
        (b"my notes", "is not a readable image"),
        (floats.getvalue(), "float"),
    ):
        out.write_bytes(content)
        ran = upscale(source, "-o", out, "--resume")
        assert ran.status == 2 and out.read_bytes() == content
        assert words in ran.err and "--force replaces it" in ran.err
    out.write_bytes(b"")
    assert upscale(source, "-o", out, "--resume").status == 0
    whole = out.read_bytes()
    out.write_bytes(whole[:-60])
    assert "was incomplete: made again" in upscale(source, "-o", out, "--resume").out
    assert out.read_bytes() == whole


OPTIONS = {
    "--quality 70": {".jpg", ".webp"},
    "--keep-location": {".jpg", ".webp", ".png", ".tif"},
    "--seed 1": {".jpg", ".webp", ".png", ".tif"},
    "--tile 128": {".jpg", ".webp", ".png", ".tif"},
    "--scale 3": {".jpg", ".webp", ".png", ".tif"},
    "--step-cost 0 --refiner none --jobs 2 --score niqe": set[str](),
}
"""Options, and the results that are others with them."""


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
@pytest.mark.parametrize("options", OPTIONS)
def test_what_was_made_with_other_settings_is_refused(
    options: str, suffix: str, upscale: Upscale, noisy_folder: Path, tmp_path: Path
) -> None:
    """The record holds what decides the bytes, and no more."""
    source, out, other = tmp_path / "a.jpg", tmp_path / f"out{suffix}", tmp_path / f"other{suffix}"
    place = Image.Exif()
    place.get_ifd(0x8825)[1] = "N"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(source, exif=place)
    for made, more in ((out, ""), (other, options)):
        assert upscale(source, "-o", made, *more.split(), model=noisy_folder).status == 0
    differs = suffix in OPTIONS[options]
    assert (out.read_bytes() != other.read_bytes()) == differs
    ran = upscale(source, "-o", out, "--resume", *options.split(), model=noisy_folder)
    assert ran.status == (2 if differs else 0)
    assert ("was made with other settings: --force replaces it" in ran.err) == differs
    assert ("is there already" in ran.out) == (not differs)
    ran = upscale(source, "-o", out, "--resume", "--force", *options.split(), model=noisy_folder)
    assert ran.status == 0
    assert ("was made with other settings: replaced" in ran.out) == differs
    assert out.read_bytes() == other.read_bytes()


def test_a_photograph_that_vanishes_meanwhile_fails_alone(
    upscale: Upscale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        flat(tmp_path / "in" / f"{name}.png", RED)
    read = run_module.read_photo

    def vanishing(path: Path) -> Photo:
        (tmp_path / "in" / "b.png").unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(run_module, "read_photo", vanishing)
    ran = upscale(tmp_path / "in", "-o", tmp_path / "out")
    assert ran.status == 2
    assert ran.err.startswith(
        f"skipdiff: error: {tmp_path}/in/b.png: cannot be read (No such file or directory)\n"
    )
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_photograph_of_another_size_meanwhile_fails_alone(
    upscale: Upscale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its result would have the proportions of the one before."""
    for name in ("a", "b"):
        flat(tmp_path / "in" / f"{name}.png", RED)
    read = run_module.read_photo

    def exchanging(path: Path) -> Photo:
        Image.new("RGB", (12, 24)).save(tmp_path / "in" / "b.png")
        return read(path)

    monkeypatch.setattr(run_module, "read_photo", exchanging)
    ran = upscale(tmp_path / "in", "-o", tmp_path / "out")
    assert ran.status == 2
    assert (
        "in/b.png: has meanwhile been replaced by a photograph of another size: run this again\n" in ran.err
    )
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_links_to_nowhere_are_in_the_way_of_one_photograph(
    upscale: Upscale, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        flat(tmp_path / "in" / f"{name}.png", RED)
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").symlink_to("gone.png")
    os.mkfifo(out / "b.png")
    ran = upscale(tmp_path / "in", "-o", out, "--resume")
    assert ran.status == 2
    assert f"in/a.png: {out}/a.png exists and no such file: --force replaces it\n" in ran.err
    assert f"in/b.png: {out}/b.png exists and is not a regular file: --force replaces it\n" in ran.err
    assert (out / "a.png").is_symlink() and (out / "b.png").is_fifo() and (out / "c.png").is_file()


@pytest.mark.parametrize("option", ["--force", "--resume", "--quiet"])
def test_two_runs_into_one_folder_are_safe_from_each_other(
    option: str, upscale: Upscale, tmp_path: Path, noisy_folder: Path
) -> None:
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3)).astype(np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i:02}.png").write_bytes(pillow(pixels, "PNG"))
    out = tmp_path / "out" / "deep"
    runs = [
        start(tmp_path / "in", "-o", out, "--model", noisy_folder, *FAST, option, "--json") for _ in range(2)
    ]
    ended = [(*run.communicate(timeout=120), run.returncode) for run in runs]
    assert upscale(tmp_path / "in", "-o", tmp_path / "alone", model=noisy_folder).status == 0
    names = sorted(p.name for p in (tmp_path / "alone").iterdir())
    assert sorted(p.name for p in out.iterdir()) == names
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    for printed, errors, status in ended:
        entries = [json.loads(line) for line in printed.splitlines()]
        assert len(entries) == 12
        if option != "--quiet":
            assert (errors, status) == ("", 0)
        for entry in entries:  # where nothing may be replaced, the other run's results are in the way
            assert "exists: --force replaces it" in entry.get("error", "exists: --force replaces it")
    if option == "--quiet":
        done = ["error" not in json.loads(line) for printed, *_ in ended for line in printed.splitlines()]
        assert sum(done) == 12, "each photograph is one run's"


@pytest.mark.parametrize("model", ["natural-4x", "natural-4x-real"])
def test_threads_are_part_of_the_same_settings(model: str, upscale: Upscale, tmp_path: Path) -> None:
    """What README says: the same bytes with as many threads, and nearly the same values with others."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    source = tmp_path / "in.png"
    source.write_bytes(pillow(pixels, "PNG"))
    before, made = torch.get_num_threads(), {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for again in (False, True):
                out = tmp_path / f"{threads}{again}.png"
                assert upscale(source, "-o", out, "--tile", 128, model=model).status == 0
                data = out.read_bytes()
                assert made.setdefault(threads, data) == data
    finally:
        torch.set_num_threads(before)
    one, two = (read_photo(tmp_path / f"{threads}True.png").colour.astype(int) for threads in (1, 2))
    assert np.abs(one - two).max() <= 1
    assert (one != two).mean() < 1e-3
