"""Crops and low-resolution inputs: agreement with Pillow, seeds, sizes, and the bicubic baseline."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import (
    BUNDLED_IMAGE_SIZE,
    PHOTOGRAPHS,
    Photograph,
    bundled_images,
    crop,
    cut_to_multiple,
    make_pair,
    open_source,
    shrink,
)


def data_dir() -> Path:
    """The folder with the evaluation sets, or skip."""
    shared = os.environ.get("SKIPDIFF_DATA") or Path(__file__).parents[3] / "shared"
    for folder in (Path(shared), Path(shared) / "data"):
        if (folder / "val_set14_bsd20.tar").is_file():
            return folder
    pytest.skip("the evaluation images are not on this machine (set SKIPDIFF_DATA to their folder)")


def pillow_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's bicubic, rows first and columns second: its own order, save for tall images since 13.0."""
    wide = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(wide.resize((width, height), Image.Resampling.BICUBIC))


def test_pillow_does_photographs_in_that_order() -> None:
    for photo in PHOTOGRAPHS:
        hr = cut_to_multiple(photo.read(), 4)
        height, width = hr.shape[0] // 4, hr.shape[1] // 4
        at_once = Image.fromarray(hr).resize((width, height), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(pillow_resize(hr, height, width), at_once)


def numbered(height: int, width: int) -> np.ndarray:
    """An image whose pixels say where they are: red the row, green the column."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.zeros_like(x)], -1).astype(np.uint8)


# -- the degradation


@settings(max_examples=150, deadline=None)
@given(
    scale=st.sampled_from([2, 3, 4, 8]),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 256]),
)
def test_shrinking_is_within_a_level_of_pillow(
    scale: int, size: tuple[int, int], seed: int, levels: int
) -> None:
    """Also on the worst there is, pixels of 0 and 255 at random, where every overshoot is clipped."""
    shape = (size[0] * scale, size[1] * scale, 3)
    values = np.random.default_rng(seed).integers(0, levels, shape)
    hr = (values * (255 // (levels - 1))).astype(np.uint8)
    lr = shrink(hr, scale)
    assert lr.shape == (*size, 3) and lr.dtype == np.uint8
    assert np.abs(lr.astype(int) - pillow_resize(hr, *size)).max() <= 1


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("photo", PHOTOGRAPHS, ids=lambda photo: photo.name)
def test_shrunk_photographs_are_pillows_to_a_thousandth(photo: Photograph, scale: int) -> None:
    hr = cut_to_multiple(photo.read(), scale)
    lr = shrink(hr, scale)
    difference = np.abs(lr.astype(int) - pillow_resize(hr, *lr.shape[:2]))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 studio-range Y of 8-bit RGB."""
    return 16 + image @ np.array([65.481, 128.553, 24.966]) / 255


def test_bicubic_baseline_of_the_validation_set() -> None:
    """The table beside the data says 25.82 dB: our reading of the archive and Pillow's bicubic."""
    source = open_source(data_dir() / "val_set14_bsd20.tar")
    assert len(source) == 31
    psnr = []
    for hr in source:
        assert hr.shape == (256, 256, 3)
        up = pillow_resize(pillow_resize(hr, 64, 64), 256, 256)
        psnr.append(10 * np.log10(255**2 / np.mean((luma(up) - luma(hr)) ** 2)))
    assert np.mean(psnr) == pytest.approx(25.82, abs=0.01)


# -- crops


def test_centre_crop() -> None:
    np.testing.assert_array_equal(crop(numbered(9, 20), 5), numbered(9, 20)[2:7, 7:12])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_random_crop_is_a_piece_of_the_image(size: int, more_rows: int, more_columns: int, seed: int) -> None:
    image = numbered(size + more_rows, size + more_columns)
    piece = crop(image, size, np.random.default_rng(seed))
    top, left = piece[0, 0, :2]
    assert top <= more_rows and left <= more_columns
    np.testing.assert_array_equal(piece, image[top : top + size, left : left + size])
    np.testing.assert_array_equal(piece, crop(image, size, np.random.default_rng(seed)))


def test_random_crops_reach_every_place() -> None:
    rng = np.random.default_rng(0)
    corners = {tuple(crop(numbered(5, 6), 4, rng)[0, 0, :2].tolist()) for _ in range(200)}
    assert corners == {(top, left) for top in range(2) for left in range(3)}


def test_a_crop_draws_two_numbers_whatever_the_size() -> None:
    """So that the rest of an episode's randomness does not depend on whether the image happened to fit."""
    after = []
    for height, width in ((8, 8), (20, 9)):
        rng = np.random.default_rng(3)
        crop(numbered(height, width), 8, rng)
        after.append(rng.bit_generator.state["state"]["state"])
    reference = np.random.default_rng(3)
    reference.integers(1), reference.integers(1)
    assert after[0] == reference.bit_generator.state["state"]["state"]


def test_too_small_is_refused_by_name() -> None:
    with pytest.raises(SkipDiffError, match=r"^cat\.png: is 20x9 pixels, too small for a crop of 10x10$"):
        crop(numbered(9, 20), 10, name="cat.png")
    with pytest.raises(SkipDiffError, match=r"^images\[0\]: is 6x3 pixels, too small to be shrunk by 4$"):
        make_pair(open_source([numbered(3, 6)]), 0, scale=4)


def test_cut_to_multiple() -> None:
    np.testing.assert_array_equal(cut_to_multiple(numbered(11, 16), 4), numbered(11, 16)[1:9])
    np.testing.assert_array_equal(cut_to_multiple(numbered(7, 5), 1), numbered(7, 5))


# -- pairs


def test_pair_of_a_crop() -> None:
    source = bundled_images()
    pair = make_pair(source, 1, scale=4, image_size=BUNDLED_IMAGE_SIZE, rng=np.random.default_rng(5))
    assert pair.name == "chelsea" and pair.hr is not None
    np.testing.assert_array_equal(pair.hr, crop(source[1], 192, np.random.default_rng(5)))
    np.testing.assert_array_equal(pair.lr, shrink(pair.hr, 4))
    assert pair.hr.flags.writeable and not np.shares_memory(pair.hr, source[1])


def test_pair_of_a_whole_image() -> None:
    pair = make_pair(open_source([numbered(14, 21)]), 0, scale=4)
    assert pair.hr is not None and pair.hr.shape == (12, 20, 3) and pair.lr.shape == (3, 5, 3)


def test_pair_of_a_low_resolution_image() -> None:
    source = open_source([numbered(14, 21)], low_resolution=True)
    whole = make_pair(source, 0, scale=4)
    assert whole.hr is None
    np.testing.assert_array_equal(whole.lr, numbered(14, 21))
    piece = make_pair(source, 0, scale=4, image_size=32)
    np.testing.assert_array_equal(piece.lr, numbered(14, 21)[3:11, 6:14])
    with pytest.raises(SkipDiffError, match="21x14 pixels, too small for a crop of 16x16"):
        make_pair(source, 0, scale=4, image_size=64)


@pytest.mark.parametrize(("image_size", "advice"), [(190, "use 188"), (3, "use 4"), (0, "use 4")])
def test_image_size_must_fit_the_scale(image_size: int, advice: str) -> None:
    with pytest.raises(
        SkipDiffError, match=f"image_size={image_size} is no positive multiple of the scale 4; {advice}"
    ):
        make_pair(bundled_images(), 0, scale=4, image_size=image_size)
