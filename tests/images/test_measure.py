"""What is wrong with a photograph: estimates beside closed forms, and beside faults of known strength."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from skipdiff_env.diffusion import degradations
from skipdiff_env.images import PHOTOGRAPHS, cut_to_multiple, shrink
from skipdiff_env.images.formats.coding import Coding, luminance_table, table_quality, webp_quality
from skipdiff_env.images.measure import (
    MIN_SIDE,
    WINDOW,
    Measured,
    _cosines,
    blur_level,
    former_coding,
    measure,
    noise_level,
    was_webp,
)
from skipdiff_env.images.photo import decode_photo
from skipdiff_env.images.raster import Photo


@cache
def photographs() -> list[np.ndarray]:
    """The bundled photographs, shrunk to clean and sharp ones of 100 pixels and more."""
    return [shrink(cut_to_multiple(photo.read(), 3), 3) for photo in PHOTOGRAPHS]


def as_file(pixels: np.ndarray, form: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    file.seek(0)
    return file


def noisy(pixels: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return degradations.to_bytes(degradations.noisy(pixels.astype(np.float32), sigma, rng))


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    kernel = degradations.gaussian_kernel(sigma)
    return degradations.to_bytes(degradations.blurred(pixels.astype(np.float32), kernel))


def recoded(pixels: np.ndarray, quality: int, **options: object) -> np.ndarray:
    return degradations.to_bytes(degradations.jpeg(pixels.astype(np.float32), quality, **options))  # type: ignore[arg-type]


# -- what files say


def test_tables_are_libjpegs_and_give_their_quality_back() -> None:
    for quality in (1, 10, 25, 49, 50, 51, 75, 92, 100):
        with Image.open(as_file(photographs()[0], "JPEG", quality=quality)) as image:
            table = np.reshape(image.quantization[0], (8, 8))
        assert np.array_equal(table, luminance_table(quality))
        assert table_quality(table) == quality
    camera = np.rint(luminance_table(85) * np.linspace(0.8, 1.25, 64).reshape(8, 8))
    assert abs(table_quality(camera) - 85) <= 3


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_jpeg_says_how_it_was_coded(subsampling: str) -> None:
    file = as_file(photographs()[1], "JPEG", quality=63, subsampling=subsampling, progressive=True)
    assert decode_photo(file).coding == Coding("JPEG", 63, subsampling)
    grey = as_file(photographs()[1][..., 0], "JPEG", quality=63)
    assert decode_photo(grey).coding == Coding("JPEG", 63, "")


def test_webps_quantiser_becomes_its_quality() -> None:
    assert [webp_quality(index) for index in (0, 127)] == [100, 1]
    known = [(100, 0), (75, 26), (50, 38), (25, 57)]  # 127 (1 - cbrt(c)), rounded down
    assert all(abs(webp_quality(index) - quality) <= 2 for quality, index in known)
    for quality in (20, 40, 60, 80, 95):
        found = [decode_photo(as_file(p, "WEBP", quality=quality)).coding for p in photographs()]
        assert all(coding is not None and coding.name == "WebP" for coding in found)
        assert np.mean([coding.quality for coding in found if coding]) == pytest.approx(quality, abs=8)
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0"
    plain = as_file(photographs()[0], "WEBP", quality=60)
    for profile in (b"x" * 3000, b"VP8 " + b"x" * 70_001):  # longer than any part that one might search
        extended = as_file(photographs()[0], "WEBP", quality=60, exif=exif, icc_profile=profile)
        assert decode_photo(extended).coding == decode_photo(plain).coding != None  # noqa: E711


def test_webps_frames_are_found_behind_transparency_and_in_animations() -> None:
    pixels = photographs()[0]
    coding = decode_photo(as_file(pixels, "WEBP", quality=30)).coding
    alpha = np.random.default_rng(0).integers(0, 256, (*pixels.shape[:2], 1)).astype(np.uint8)
    clear = as_file(np.concatenate([pixels, alpha], axis=2), "WEBP", quality=30)
    assert clear.getvalue().index(b"VP8 ") > 2**14, "the transparency comes first"
    assert decode_photo(clear).coding == coding
    images = [Image.fromarray(frame) for frame in (pixels, pixels[::-1])]
    for lossless in (False, True):
        moving = io.BytesIO()
        images[0].save(moving, "WEBP", save_all=True, append_images=images[1:], quality=30, lossless=lossless)
        moving.seek(0)
        found = decode_photo(moving).coding  # the coder of animations has settings of its own
        assert found is None if lossless else found and abs((found.quality or 0) - 30) < 8


def test_what_lost_nothing_says_nothing() -> None:
    pixels = photographs()[0]
    for form, options in (("WEBP", {"lossless": True}), ("PNG", {}), ("BMP", {}), ("TIFF", {})):
        assert decode_photo(as_file(pixels, form, **options)).coding is None
    whole = as_file(pixels, "WEBP", quality=50).getvalue()
    for length in (40, 30):  # a header that ends in the middle of what is read
        from skipdiff_env.images.formats.coding import _webp_quantiser

        _webp_quantiser(io.BytesIO(whole[:length]))


# -- noise


def test_pure_noise_is_measured_without_bias() -> None:
    for sigma in (1.0, 3.0, 10.0, 25.0):
        grey = np.full((192, 200, 3), 128, np.uint8)
        rounded = np.hypot(sigma, 12**-0.5)  # what rounding adds
        assert noise_level([noisy(grey, sigma)]) == pytest.approx(rounded, rel=0.04)


def test_shading_straight_edges_and_clipping_are_no_noise() -> None:
    y, x = np.mgrid[:64, :64].astype(np.float32)
    ramp = np.repeat((40 + 2 * x + y)[..., None], 3, axis=2).astype(np.uint8)
    assert noise_level([ramp]) == 0
    step = np.where(x < 31, 60, 180).astype(np.uint8)[..., None]
    assert noise_level([step]) == 0
    assert noise_level([np.zeros((64, 64, 3), np.uint8)]) == 0
    half = noisy(np.full((64, 64, 3), 128, np.uint8), 6)
    half[:32] = 255  # burnt out: it must not count as flat
    assert noise_level([half]) == pytest.approx(6, rel=0.15)


def test_noise_of_photographs() -> None:
    levels = (0, 2, 4, 8, 12, 20)
    found = np.array([[noise_level([noisy(p, s, i)]) for s in levels] for i, p in enumerate(photographs())])
    assert (np.diff(found, axis=1) > 0).all()
    own = found[:, :1]
    assert (own < 3).all(), "these are clean"
    expected = np.hypot(levels, own)
    assert np.abs(found - expected).max() < 2.0 and np.abs(found - expected).mean() < 0.7


# -- blur


def test_a_blurred_step_has_its_blur() -> None:
    """A slanted one, so that pixels lie everywhere around its middle."""
    y, x = np.mgrid[:64, :64] - 31.5
    distance = torch.from_numpy(x * np.cos(0.2) + y * np.sin(0.2))
    for sigma in (0.8, 1.0, 1.5, 2.5):
        plane = 125 + 85 * torch.erf(distance / (sigma * 2**0.5)).float().numpy()
        # the central difference is a blur, too: a box of two pixels, whose variance is 4/12
        assert blur_level([plane]) == pytest.approx(np.sqrt(sigma**2 + 1 / 3), rel=0.1)


def test_what_has_no_edges_tells_no_blur() -> None:
    y, x = np.mgrid[:64, :64].astype(np.float32)
    assert blur_level([x + y]) == 0
    grey = noisy(np.full((64, 64, 3), 128, np.uint8), 5)
    assert measure(Photo(grey)).blur == 0


def test_blur_of_photographs() -> None:
    sigmas = (0.0, 0.5, 0.7, 1.0, 1.4, 2.0)
    found = np.array([[measure(Photo(blurred(p, s))).blur for s in sigmas] for p in photographs()])
    assert (np.diff(found, axis=1) > 0).all()
    assert found[:, 0].max() < 0.65
    assert np.abs(found[:, 2:] - sigmas[2:]).max() < 0.35


# -- JPEG


def test_the_transform_is_opencvs() -> None:
    block = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    assert np.allclose(_cosines() @ block @ _cosines().T, cv2.dct(block), atol=1e-5)


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
def test_a_jpeg_saved_again_as_png_is_known(quality: int) -> None:
    for number, pixels in enumerate(photographs()):
        corner = (3 * number % 8, 5 * number % 8)
        seen = measure(Photo(recoded(pixels, quality, corner=corner, full_chroma=number % 2 == 0)))
        assert seen.coding == Coding("JPEG", quality, "") and seen.former


@pytest.mark.parametrize("quality", [30, 75, 92])
def test_a_jpeg_that_was_turned_is_known(quality: int) -> None:
    """Libjpeg's table is not symmetric."""
    for number, pixels in enumerate(photographs()):
        turned = np.rot90(recoded(pixels, quality), 1 + 2 * (number % 2))
        seen = measure(Photo(np.ascontiguousarray(turned)))
        assert seen.coding == Coding("JPEG", quality, "") and seen.former
        image = Image.fromarray(pixels)
        for orientation in (6, 7):
            exif = image.getexif()
            exif[0x0112] = orientation
            photo = decode_photo(as_file(pixels, "JPEG", quality=quality, exif=exif))
            assert photo.size == pixels.shape[:2] and measure(photo) == replace(measure(photo), former=False)
            poor = as_file(recoded(pixels, quality - 20), "JPEG", quality=quality, exif=exif)
            again = measure(decode_photo(poor))
            assert again.coding and (again.coding.quality == quality - 20) == again.former


def test_a_jpeg_is_known_wherever_it_lies_in_a_page() -> None:
    page = np.full((700, 740, 3), 255, np.uint8)
    page[400:570, 300:470] = photographs()[0][:170, :170]
    assert measure(Photo(recoded(page, 50))).coding == Coding("JPEG", 50, "")


@pytest.mark.parametrize("quality", [5, 60, 95])
def test_a_webp_saved_again_as_png_is_known(quality: int) -> None:
    for number, pixels in enumerate(photographs()):
        with Image.open(as_file(pixels, "WEBP", quality=quality)) as image:
            cut = np.rot90(np.asarray(image.convert("RGB"))[number:, 3:], number)
        seen = measure(Photo(np.ascontiguousarray(cut)))
        assert seen.coding == Coding("WebP", None, "") and seen.former
        assert str(seen.coding) == "a lossy WebP"


def test_nothing_else_was_a_webp() -> None:
    """Not its file itself, greys, or what another decoder made of limited range."""
    for pixels in photographs():
        assert not measure(decode_photo(as_file(pixels, "WEBP", quality=60))).former
        with Image.open(as_file(pixels, "WEBP", quality=60)) as image:
            webp = np.asarray(image.convert("RGB"))
        for other in (pixels, recoded(pixels, 60), webp[..., 1:2], webp[..., [1, 1, 1]], noisy(webp, 1)):
            assert not was_webp([other])
        even = cut_to_multiple(pixels, 2)
        planes = cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420)
        assert not was_webp([cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)])


def test_nothing_else_was_a_jpeg() -> None:
    for pixels in photographs():
        for other in (pixels, noisy(pixels, 5), blurred(pixels, 0.7), blurred(pixels, 1.5)):
            assert measure(Photo(other)).coding is None
        resized = cv2.resize(recoded(pixels, 60), (100, 100), interpolation=cv2.INTER_AREA)
        assert former_coding([resized]) is None
    drawn = np.full((64, 64, 3), 255, np.uint8)
    drawn[20:40, 10:50] = 0
    assert measure(Photo(drawn)).coding is None
    assert measure(Photo(np.full((64, 64, 3), 77, np.uint8))).coding is None


# -- photographs of all kinds


@pytest.mark.parametrize("again", [90, 95, 100])
def test_a_poor_jpeg_saved_again_as_a_better_one_is_known(again: int) -> None:
    for pixels in photographs():
        seen = measure(decode_photo(as_file(recoded(pixels, 40), "JPEG", quality=again)))
        assert seen.coding == Coding("JPEG", 40, "") and seen.former


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_jpeg_is_not_its_own_former_file(quality: int) -> None:
    rng = np.random.default_rng(quality)
    camera = luminance_table(quality) * np.exp(rng.uniform(-0.3, 0.3, (8, 8)))
    table = np.clip(np.rint(camera), 1, 255).astype(int).ravel().tolist()
    for pixels in photographs():
        better = recoded(pixels, 95)
        for file in (
            as_file(pixels, "JPEG", quality=quality),
            as_file(pixels, "JPEG", qtables=[table, table]),
            as_file(better, "JPEG", quality=quality),
        ):
            photo = decode_photo(file)
            seen = measure(photo)
            assert seen.coding == photo.coding and not seen.former


def test_depth_grey_and_transparency() -> None:
    pixels = noisy(photographs()[0], 8)
    seen = measure(Photo(pixels))
    assert measure(Photo(pixels.astype(np.uint16) * 257)) == seen
    grey = measure(Photo(pixels[..., 1:2]))
    assert grey.noise == pytest.approx(8, rel=0.25)
    assert measure(Photo(pixels, np.full(pixels.shape[:2], 9, np.uint8))) == seen
    hidden = measure(Photo(pixels, np.zeros(pixels.shape[:2], np.uint8)))
    assert hidden == Measured(None, None), "nothing of it was measured"
    small = Coding("JPEG", 30)
    assert measure(Photo(np.zeros((40, MIN_SIDE - 1, 3), np.uint8), coding=small)) == Measured(
        None, None, small
    )


def test_hidden_colours_count_for_nothing() -> None:
    pixels = noisy(recoded(photographs()[0], 40), 1)
    visible = np.zeros(pixels.shape[:2], bool)
    visible[20:90, 30:100] = True
    for hidden in (7, 128, 255):
        found = np.where(visible[..., None], pixels, np.uint8(hidden))
        seen = measure(Photo(found, visible.astype(np.uint8) * 255))
        assert seen == measure(Photo(pixels, visible.astype(np.uint8) * 255))
    assert 0.5 < (seen.noise or 0) < 4


def test_large_pictures_are_measured_in_windows() -> None:
    """The same picture over and over: windows of it tell what the whole does."""
    pixels = recoded(photographs()[0][:96, :96], 60)
    large = np.tile(pixels, (9, 11, 1))
    assert large.shape[0] * large.shape[1] > (3 * WINDOW) ** 2
    one, many = measure(Photo(pixels)), measure(Photo(large))
    assert many.coding == one.coding == Coding("JPEG", 60, "")
    assert many.noise == pytest.approx(one.noise, abs=0.5) and many.blur == pytest.approx(one.blur, abs=0.1)


def test_stronger_faults_are_told_apart() -> None:
    for pixels in photographs():
        qualities = [measure(Photo(recoded(pixels, q))).coding for q in (90, 60, 30)]
        assert all(a and b and a.quality > b.quality for a, b in pairwise(qualities))
