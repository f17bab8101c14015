"""What may be uploaded, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import PHOTOGRAPHS, shrink, write_image
from skipdiff_env.images.measure import Measured
from skipdiff_env.images.photo import Header
from skipdiff_env.web import pictures
from skipdiff_env.web.pictures import MIN_LR, Upload, bundled, make_task, read_upload, safe_name

SIDES = st.integers(1, 900)


def chosen(image: np.ndarray, name: str) -> Upload:
    """What becomes of an uploaded PNG, without reading one."""
    height, width = image.shape[:2]
    return Upload(name, b"", Header(width, height, "png"), image, Measured(0, 0))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.sampled_from([2, 4, 8]), st.booleans())
def test_every_size_is_bounded_or_refused(height: int, width: int, scale: int, reference: bool) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    if min(height, width) < (MIN_LR * scale if reference else MIN_LR):
        with pytest.raises(SkipDiffError, match=rf"photo: is {width}x{height} pixels"):
            make_task(chosen(image, "photo"), scale=scale, reference=reference)
        return
    task = make_task(chosen(image, "photo"), scale=scale, reference=reference)
    sides = [side * scale for side in task.lr.shape[:2]]
    assert max(sides) <= 288
    assert min(task.lr.shape[:2]) >= min(MIN_LR, height, width)
    assert max(sides) / min(sides) <= 1.5 + scale / min(sides)
    assert (task.hr is not None) is reference
    if task.hr is not None:
        assert list(task.hr.shape[:2]) == sides


def test_an_original_is_kept_where_it_fits_and_its_input_is_its_own() -> None:
    image = noise(192, 288)
    task = make_task(chosen(image, "Photo One.jpg"), scale=4, reference=True)
    assert task.hr is not None and (task.hr == image).all()
    assert (task.lr == shrink(image, 4)).all()
    assert (task.name, task.note) == (
        "photo-one",
        "288x192 pixels; original 288x192; input 72x48, result 288x192",
    )


def test_what_is_enlarged_as_it_is_keeps_its_pixels() -> None:
    image = noise(100, 110)
    task = make_task(chosen(image, "p"), scale=4, reference=False)
    assert task.hr is None
    assert (task.lr == image[14:86, 19:91]).all()
    assert task.note == "110x100 pixels become 440x400"
    assert task.whole is not None and task.whole.image is image, "the whole of it is enlarged"


def test_large_photographs_are_shrunk_whole() -> None:
    ramp = np.linspace(0, 255, 1500).round().astype(np.uint8)
    image = np.repeat(np.tile(ramp, (1000, 1))[..., None], 3, axis=2)
    task = make_task(chosen(image, "p"), scale=4, reference=True)
    assert task.hr is not None and task.hr.shape == (192, 288, 3)
    assert task.hr[100, 0, 0] < 3 and task.hr[100, -1, 0] > 252
    assert "shrunk" in task.note


def test_uploads_are_refused_by_the_visitors_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret-place" / "stored.bin"
    file.parent.mkdir()
    for content in (b"", b"rubbish" * 99, b"<svg xmlns='http://www.w3.org/2000/svg'/>"):
        file.write_bytes(content)
        with pytest.raises(SkipDiffError, match="^cat.jpg: ") as caught:
            read_upload(file, "cat.jpg")
        assert "secret" not in str(caught.value)
    Image.fromarray(noise(30, 40)).save(file, "PNG")
    found = read_upload(file, "cat.jpg")
    assert (found.image == noise(30, 40)).all() and found.data == file.read_bytes()
    assert found.header == Header(40, 30, "png") and found.seen.noise > 20
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(SkipDiffError, match=r"^cat.jpg: is damaged or truncated"):
        read_upload(file, "cat.jpg")
    monkeypatch.setattr(pictures, "MAX_BYTES", 400)
    with pytest.raises(SkipDiffError, match=r"^cat.jpg: is larger than the 0 MB"):
        read_upload(file, "cat.jpg")


def test_an_upload_that_went_away_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SkipDiffError, match="^cat.jpg: is no longer on the server: upload it again$"):
        read_upload(tmp_path / "stored.bin", "cat.jpg")


def test_pixels_are_counted_before_they_are_decoded(tmp_path: Path) -> None:
    small = tmp_path / "bomb.png"
    Image.new("1", (8000, 5001)).save(small)
    assert small.stat().st_size < 10_000
    with pytest.raises(SkipDiffError, match=r"bomb.png: is 8000x5001 pixels, more than the 40 megapixels"):
        read_upload(small, "bomb.png")


def test_bundled_photographs_are_chosen_by_number() -> None:
    for index, photograph in enumerate(PHOTOGRAPHS):
        found = bundled(index)
        assert found.name == photograph.name and (found.image == photograph.read()).all()
    for index in (-1, 99):
        with pytest.raises(SkipDiffError, match="there is no photograph -?[0-9]+: use a number from 0 to"):
            bundled(index)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("IMG 01.jpeg", "img-01"), ("../../etc/passwd", "passwd"), ("<b>x</b>.png", "b"), ("…", "picture")],
)
def test_names_for_files(name: str, safe: str, tmp_path: Path) -> None:
    assert safe_name(name) == safe
    write_image(tmp_path / f"{safe_name(name)}.png", noise(2, 2))
