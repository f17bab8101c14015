"""PNG by the standard: what the numbers mean, by profile, gamma, primaries and code points."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from skipdiff_env.images.formats import icc
from skipdiff_env.images.formats.profiles import profile_fits
from skipdiff_env.images.photo import FORMATS, decode_photo
from skipdiff_env.images.photo_file import encode_photo, fit_format
from skipdiff_env.images.raster import Photo

from .photo_files import GREY8, GREY16, RGB8, RGB16, SRGB, chunk, decoded, png

SRGB_CHRM = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ICCP = chunk(b"iCCP", b"p\0\0" + zlib.compress(SRGB))
ADOBE_CHRM = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def gamma_chunks(gamma: float | None = None, chromaticities: tuple[float, ...] = ()) -> list[bytes]:
    numbers = [round(n * 1e5) for n in chromaticities]
    chunks = [] if gamma is None else [chunk(b"gAMA", struct.pack(">I", round(gamma * 1e5)))]
    return chunks + ([chunk(b"cHRM", struct.pack(">8I", *numbers))] if numbers else [])


def in_srgb(photo: Photo) -> np.ndarray:
    """As sRGB in 8 bits, where there is no profile."""
    colour = fit_format(photo, FORMATS["bmp"])[0].colour
    return np.broadcast_to(colour, (*colour.shape[:2], 3)).astype(int)


def converted(light: np.ndarray, primaries: icc.Primaries) -> np.ndarray:
    """Linear light of these primaries (D65) → sRGB, 0 … 255, by the matrices of the textbook."""

    def matrix(p: icc.Primaries) -> np.ndarray:
        corners = np.array([(x / y, 1, (1 - x - y) / y) for x, y in p[1:]]).T
        x, y = p.white
        return corners * np.linalg.solve(corners, [x / y, 1, (1 - x - y) / y])

    linear = np.clip(light @ (np.linalg.inv(matrix(icc.SRGB)) @ matrix(primaries)).T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


P3 = icc.Primaries((0.3127, 0.3290), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060))


def srgb_light(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


MEANINGS: dict[str, tuple[list[bytes], np.ndarray]] = {
    "linear": (gamma_chunks(1.0), converted(RGB8 / 255, icc.SRGB)),
    "gamma 1.8": (gamma_chunks(1 / 1.8), converted((RGB8 / 255) ** 1.8, icc.SRGB)),
    "Adobe RGB": (gamma_chunks(0.45455, ADOBE_CHRM), converted((RGB8 / 255) ** 2.2, icc.ADOBE_RGB)),
    "Adobe RGB's primaries": (
        gamma_chunks(None, ADOBE_CHRM),
        converted(srgb_light(RGB8 / 255), icc.ADOBE_RGB),
    ),
    "Display P3": ([chunk(b"cICP", bytes([12, 13, 0, 1]))], converted(srgb_light(RGB8 / 255), P3)),
    "cICP comes first": (
        [chunk(b"cICP", bytes([12, 13, 0, 1])), ICCP, *gamma_chunks(1.0)],
        converted(srgb_light(RGB8 / 255), P3),
    ),
    "a profile comes before sRGB": (
        [chunk(b"iCCP", b"p\0\0" + zlib.compress(icc.profile(icc.SRGB, 1.0) or b"")), chunk(b"sRGB", b"\0")],
        converted(RGB8 / 255, icc.SRGB),
    ),
    "sRGB comes before gamma": ([chunk(b"sRGB", b"\0"), *gamma_chunks(1.0, ADOBE_CHRM)], RGB8),
    "sRGB by cICP": ([chunk(b"cICP", bytes([1, 13, 0, 1])), *gamma_chunks(1.0)], RGB8),
    "cICP that leaves it open": (
        [chunk(b"cICP", bytes([2, 2, 0, 1])), *gamma_chunks(1.0)],
        converted(RGB8 / 255, icc.SRGB),
    ),
    "cICP without a transfer": ([chunk(b"cICP", bytes([1, 2, 0, 1]))], RGB8),
    "cICP without primaries": ([chunk(b"cICP", bytes([2, 13, 0, 1]))], RGB8),
    "cICP of primaries alone": (
        [chunk(b"cICP", bytes([12, 2, 0, 1]))],
        converted(srgb_light(RGB8 / 255), P3),
    ),
    "cICP of primaries, gAMA of a gamma": (
        [chunk(b"cICP", bytes([12, 2, 0, 1])), *gamma_chunks(1.0, ADOBE_CHRM)],
        converted(RGB8 / 255, P3),
    ),
    "cICP of a transfer alone": ([chunk(b"cICP", bytes([2, 8, 0, 1]))], converted(RGB8 / 255, icc.SRGB)),
    "cICP of a transfer, cHRM of primaries": (
        [chunk(b"cICP", bytes([2, 8, 0, 1])), *gamma_chunks(0.45455, ADOBE_CHRM)],
        converted(RGB8 / 255, icc.ADOBE_RGB),
    ),
    "the usual paraphrase of sRGB": (gamma_chunks(0.45455, SRGB_CHRM), RGB8),
    "the usual gamma": (gamma_chunks(0.45455), RGB8),
    "no gamma": (gamma_chunks(0.0), RGB8),
    "no primaries": (gamma_chunks(None, (0.0,) * 8), RGB8),
    "a chunk too short": ([chunk(b"gAMA", b"\0"), chunk(b"cHRM", b"\0"), chunk(b"cICP", b"\0")], RGB8),
}


@pytest.mark.parametrize("name", MEANINGS)
def test_numbers_mean_what_the_file_says(name: str) -> None:
    chunks, expected = MEANINGS[name]
    photo = decoded(*chunks)
    np.testing.assert_array_equal(photo.colour, RGB8)  # the numbers themselves stay
    assert np.abs(in_srgb(photo) - expected).max() <= 2
    assert not photo.notes


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize(
    "meaning", ["linear", "Adobe RGB", "Display P3", "cICP that leaves it open", "cICP of primaries alone"]
)
def test_results_of_every_format_say_it_too(meaning: str, name: str) -> None:
    chunks, expected = MEANINGS[meaning]
    data, notes = encode_photo(decoded(*chunks), FORMATS[name], "test", {}, quality=100)
    assert not notes
    if name in ("png", "tiff"):  # the others do not keep pixels exactly
        assert np.abs(in_srgb(decode_photo(io.BytesIO(data))) - expected).max() <= 2
    with Image.open(io.BytesIO(data)) as image:
        assert profile_fits(image.info["icc_profile"], "RGB")


def test_grey_has_a_gamma_too() -> None:
    photo = decoded(*gamma_chunks(1.0), pixels=GREY8)
    assert profile_fits(photo.profile, "L")
    light = GREY8 / 255
    assert np.abs(in_srgb(photo) - converted(np.repeat(light, 3, 2), icc.SRGB)).max() <= 2
    assert decoded(*gamma_chunks(None, ADOBE_CHRM), pixels=GREY8).profile is None  # grey has no primaries
    deep = decoded(*gamma_chunks(1.0), pixels=np.concatenate([GREY16, GREY16], 2))
    assert profile_fits(deep.profile, "L")


@pytest.mark.parametrize("name", ["png", "tiff", "webp", "jpeg"])
@pytest.mark.parametrize("size", [(10, 14), (1, 1), (300, 500)])
def test_grey_of_16_bits_with_transparency_keeps_its_profile(size: tuple[int, int], name: str) -> None:
    grey, alpha = np.random.default_rng(0).integers(0, 2**16, (2, *size)).astype(np.uint16)
    linear = icc.profile(icc.SRGB, 1.0, grey=True) or b""
    chunks = [chunk(b"iCCP", b"p\0\0" + zlib.compress(linear))]
    photo = decoded(*chunks, pixels=np.stack([grey, alpha], axis=2))
    assert photo.profile == linear and not photo.notes
    data, notes = encode_photo(photo, FORMATS[name], "test", {}, quality=100)
    back = decode_photo(io.BytesIO(data))
    if name in ("png", "tiff"):
        assert not notes and back.profile == linear
        np.testing.assert_array_equal(back.colour[..., 0], grey)
        np.testing.assert_array_equal(back.alpha, alpha)
    else:
        assert any("16 bits reduced to 8" in note for note in notes)
        assert (back.profile == linear) == (name == "jpeg")
    if name == "png":  # what another decoder makes of it
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(pixels[..., 0], grey)
        np.testing.assert_array_equal(pixels[..., 3], alpha)


@pytest.mark.parametrize("primaries", [9, 2])
@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_stays_hdr_where_the_format_can_say_so(transfer: int, name: str, primaries: int) -> None:
    photo = decoded(chunk(b"cICP", bytes([primaries, transfer, 0, 1])), pixels=RGB16)
    assert photo.code_points == bytes([primaries, transfer, 0, 1]) and photo.profile is None
    data, notes = encode_photo(photo, FORMATS["png"], "test", {})
    back = decode_photo(io.BytesIO(data))
    assert not notes and back.code_points == photo.code_points
    np.testing.assert_array_equal(back.colour, RGB16)
    for other in ("jpeg", "webp", "tiff", "bmp"):
        _, notes = encode_photo(photo, FORMATS[other], "test", {})
        assert any(f"cannot describe HDR ({name})" in note for note in notes)
    # the profile that comes along is for those who know no code points
    both = decoded(chunk(b"cICP", bytes([primaries, transfer, 0, 1])), ICCP, pixels=RGB16)
    assert both.profile == SRGB
    assert encode_photo(both, FORMATS["tiff"], "test", {})[1] == []


@pytest.mark.parametrize("body", [b"p\0\0" + zlib.compress(b"rubbish"), b"p\0\0\1\2\3", b"p", b""])
def test_a_profile_that_is_none_is_noted(body: bytes) -> None:
    photo = decoded(chunk(b"iCCP", body))
    assert photo.profile is None
    assert photo.notes == ("its colour profile does not fit its pixels and is left out",)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("kind", ["RGB", "RGB 16", "grey", "grey 16", "palette", "PQ"])
def test_limited_range_becomes_full(kind: str, name: str) -> None:
    """H.273: black is 16 and white 235 of 256 levels, at any depth; cICP's last byte is 0."""
    full = GREY16 if "16" in kind else GREY8
    full = np.repeat(full, 3, axis=2) if "RGB" in kind or kind == "PQ" else full
    white = np.iinfo(full.dtype).max
    step = (white + 1) // 256
    limited = np.rint(full.astype(float) / white * 219 * step + 16 * step).astype(full.dtype)
    codes = chunk(b"cICP", bytes([9, 16, 0, 0] if kind == "PQ" else [1, 13, 0, 0]))
    if kind == "palette":
        colours = chunk(b"PLTE", np.repeat(limited.reshape(-1, 1), 3, axis=1).tobytes())
        data = png(np.arange(140, dtype=np.uint8).reshape(10, 14, 1), 3, codes, colours)
    else:
        data = png(limited, 0 if "grey" in kind else 2, codes)
    photo = decode_photo(io.BytesIO(data))
    assert photo.notes == ("its values were of limited range and have been spread to the full range",)
    assert np.abs(photo.colour.astype(int) - full).max() <= 1
    assert photo.code_points == (bytes([9, 16, 0, 1]) if kind == "PQ" else None) and photo.profile is None
    coded, notes = encode_photo(photo, FORMATS[name], "x", {})
    assert decode_photo(io.BytesIO(coded)).notes == ()
    assert bool(notes) == ((kind == "PQ" and name != "png") or ("16" in kind and name not in ("png", "tiff")))


def test_what_lies_beyond_white_and_black_is_cut() -> None:
    values = np.array([[[0], [15], [16], [125], [126], [235], [236], [255]]], np.uint8)
    photo = decode_photo(io.BytesIO(png(values, 0, chunk(b"cICP", bytes([1, 13, 0, 0])))))
    assert photo.colour.ravel().tolist() == [0, 0, 0, 127, 128, 255, 255, 255]
    for codes in ([0, 0, 0, 0], [3, 13, 0, 0], [1, 3, 0, 0], [1, 19, 0, 0], [1, 13, 1, 0], [1, 13, 0, 2]):
        photo = decode_photo(io.BytesIO(png(values, 0, chunk(b"cICP", bytes(codes)))))
        assert (photo.colour == values).all(), "code points that say nothing of RGB"
