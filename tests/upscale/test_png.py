"""PNG by the standard: transparent colours of every depth, what the numbers mean, chunks that do no harm."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import icc, read_image
from skipdiff_env.images.metadata import Metadata, read_record
from skipdiff_env.images.photo import FORMATS, decode_photo, read_header, read_photo
from skipdiff_env.images.photo_file import encode_photo, fit_format
from skipdiff_env.images.profiles import profile_fits
from skipdiff_env.images.raster import Photo

from .photo_files import GREY8, GREY16, RGB8, RGB16, SRGB, chunk, png

SRGB_CHRM = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ICCP = chunk(b"iCCP", b"p\0\0" + zlib.compress(SRGB))
ADOBE_CHRM = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def low_depth_png(values: np.ndarray, depth: int, key: int, interlaced: bool = False) -> bytes:
    """A grey PNG of 1, 2 or 4 bits with a transparent value."""
    height, width = values.shape

    def rows(part: np.ndarray) -> bytes:
        bits = np.unpackbits(part.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        return b"".join(b"\0" + np.packbits(row).tobytes() for row in bits.reshape(len(part), -1))

    data = rows(values)
    if interlaced:  # the seven passes of Adam7: first row, first column, steps
        passes = [
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]
        data = b"".join(rows(values[r::dr, c::dc]) for r, c, dr, dc in passes if values[r::dr, c::dc].size)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, int(interlaced)))
    parts = [head, chunk(b"tRNS", struct.pack(">H", key)), chunk(b"IDAT", zlib.compress(data))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True], ids=["", "interlaced"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_transparent_grey_of_few_bits(depth: int, interlaced: bool, tmp_path: Path) -> None:
    values = (np.arange(9)[:, None] * 3 + np.arange(13)) % 2**depth
    for key in range(2**depth):
        # bits above the depth do not count
        for told in (key, key | 1 << 8):
            (tmp_path / "a.png").write_bytes(low_depth_png(values, depth, told, interlaced))
            photo = read_photo(tmp_path / "a.png")
            np.testing.assert_array_equal(photo.colour[..., 0], values * 255 // (2**depth - 1))
            np.testing.assert_array_equal(photo.alpha, np.where(values == key, 0, 255))
            flat = read_image(tmp_path / "a.png")[..., 0]  # laid over white
            np.testing.assert_array_equal(flat, np.where(values == key, 255, values * 255 // (2**depth - 1)))


def gamma_chunks(gamma: float | None = None, chromaticities: tuple[float, ...] = ()) -> list[bytes]:
    numbers = [round(n * 1e5) for n in chromaticities]
    chunks = [] if gamma is None else [chunk(b"gAMA", struct.pack(">I", round(gamma * 1e5)))]
    return chunks + ([chunk(b"cHRM", struct.pack(">8I", *numbers))] if numbers else [])


def decoded(*chunks: bytes, pixels: np.ndarray = RGB8) -> Photo:
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    return decode_photo(io.BytesIO(png(pixels, kind, *chunks)))


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


def damaged(name: bytes, body: bytes) -> bytes:
    return chunk(name, body)[:-4] + b"\0\0\0\0"


@pytest.mark.parametrize("name", [b"gAMA", b"tEXt", b"eXIf", b"iCCP", b"tRNS", b"pHYs", b"zzZz"])
def test_a_damaged_chunk_that_no_picture_needs_costs_itself(name: bytes) -> None:
    photo = decoded(damaged(name, b"\0\1\2\3"), chunk(b"tEXt", b"Title\0fine"))
    np.testing.assert_array_equal(photo.colour, RGB8)
    assert photo.alpha is None and photo.profile is None and photo.metadata.texts["Title"] == "fine"


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_rows_that_are_missing_are_not_made_up(mode: str) -> None:
    """Whether the file was cut, or is whole and holds too few rows."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 40, 4)).astype(np.uint8)
    image = (
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        if mode == "I;16"
        else Image.fromarray(pixels).convert(mode)
    )
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    whole = buffer.getvalue()
    wanted = decode_photo(io.BytesIO(whole)).planes()
    start = whole.index(b"IDAT")
    rows = zlib.decompress(whole[start + 4 : start + 4 + int.from_bytes(whole[start - 4 : start], "big")])
    few = whole[: start - 4] + chunk(b"IDAT", zlib.compress(rows[: len(rows) // 3])) + chunk(b"IEND", b"")
    with pytest.raises(SkipDiffError, match="is damaged or truncated"):
        decode_photo(io.BytesIO(few))
    for cut in range(1, 60):
        if cut <= 12:  # no more than the last chunk, which holds nothing
            assert (decode_photo(io.BytesIO(whole[:-cut])).planes() == wanted).all()
        else:
            with pytest.raises(SkipDiffError, match="is damaged or truncated"):
                decode_photo(io.BytesIO(whole[:-cut]))


def test_interlaced_files_have_rows_of_seven_passes() -> None:
    for height, width in ((1, 1), (1, 9), (5, 3), (8, 8), (11, 17)):
        values = np.arange(height * width).reshape(height, width) % 4
        data = low_depth_png(values, 2, 0, interlaced=True)
        assert decode_photo(io.BytesIO(data)).size == (width, height)


@pytest.mark.parametrize("planes", [3, 4])
def test_damage_at_16_bits_is_found_before_a_library_prints_it(
    planes: int, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (3, 5, planes)).astype(np.uint16)
    whole = bytes(cv2.imencode(".png", pixels)[1])
    end = whole.index(b"IEND") - 4
    for place in range(8, len(whole)):
        flipped = whole[:place] + bytes([whole[place] ^ 32]) + whole[place + 1 :]
        for damaged in (whole[:place], flipped):
            if place < end:
                with pytest.raises(SkipDiffError):
                    decode_photo(io.BytesIO(damaged))
            else:
                colour = decode_photo(io.BytesIO(damaged)).colour
                assert (colour == pixels[..., 2::-1]).all()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT", b"PLTE"])
def test_a_damaged_chunk_that_the_picture_needs_is_refused(name: bytes) -> None:
    data = bytearray(png(RGB8, 2) if name != b"PLTE" else png(GREY8, 3, chunk(b"PLTE", b"\0" * 768)))
    data[data.index(name) + 6] ^= 0xFF
    with pytest.raises(SkipDiffError, match="damaged or truncated"):
        decode_photo(io.BytesIO(bytes(data)))


def late_palette() -> bytes:
    data = png(GREY8, 3)
    return data[:-12] + chunk(b"PLTE", bytes(768)) + data[-12:]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (png(GREY8, 3), "no palette before its pixels"),
        (png(GREY8, 3, chunk(b"PLTE", b"")), "no palette before its pixels"),
        (late_palette(), "no palette before its pixels"),
        (png(GREY8, 3, chunk(b"PLTE", bytes(7))), "a palette of 7 bytes"),
        (png(GREY8, 3, chunk(b"PLTE", bytes(771))), "a palette of 771 bytes"),
    ],
    ids=["none", "empty", "late", "7", "771"],
)
def test_palettes_that_are_none_are_named(data: bytes, why: str) -> None:
    with pytest.raises(SkipDiffError, match=f"is damaged or truncated \\(it has {why}\\)"):
        decode_photo(io.BytesIO(data))


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
    assert photo.notes == ("its numbers were of limited range and are spread to the full one",)
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


TEXT = "{'nodes': [1, 2, 3]} " * 120_000  # 2.5 MB


@pytest.mark.parametrize(
    "body",
    [
        (b"tEXt", b"workflow\0" + TEXT.encode()),
        (b"zTXt", b"workflow\0\0" + zlib.compress(TEXT.encode())),
        (b"iTXt", b"workflow\0\1\0en\0Ablauf\0" + zlib.compress(TEXT.encode())),
    ],
    ids=["tEXt", "zTXt", "iTXt"],
)
def test_large_texts_are_kept(body: tuple[bytes, bytes], tmp_path: Path) -> None:
    photo = decoded(chunk(*body))
    assert photo.metadata.texts == {"workflow": TEXT} and not photo.notes
    data, _ = encode_photo(photo, FORMATS["png"], "test", {"seed": 1})
    (tmp_path / "a.png").write_bytes(data)
    assert read_header(tmp_path / "a.png").width == photo.size[0]
    back = read_photo(tmp_path / "a.png")
    assert back.metadata.texts["workflow"] == TEXT and read_record(back.metadata) == {"seed": 1}


def test_a_large_profile_comes_back_from_our_own_file() -> None:
    large = bytearray(SRGB + np.random.default_rng(0).bytes(1_500_000))
    large[:4] = struct.pack(">I", len(large))
    data, _ = encode_photo(Photo(RGB8, profile=bytes(large)), FORMATS["png"], "test", {})
    assert decode_photo(io.BytesIO(data)).profile == large


def test_texts_that_unpack_without_end_are_left_out() -> None:
    packed = zlib.compress(b"x" * 100_000_000)
    texts = [chunk(b"zTXt", key + b"\0\0" + packed) for key in (b"first", b"second")]
    photo = decoded(*texts, chunk(b"tEXt", b"Title\0fine"))
    assert list(photo.metadata.texts) == ["first", "Title"]
    assert photo.notes == ("texts or a profile of more than 128 MiB are left out",)


@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_words_in_texts_are_no_chunks(deep: bool) -> None:
    """Names of chunks within texts do not lead the writer astray."""
    texts: dict[str, Any] = {"Comment": "IDAT IEND " * 9, "Title": "京 IDAT"}
    pixels = RGB16 if deep else RGB8
    data, _ = encode_photo(Photo(pixels, metadata=Metadata(texts=texts)), FORMATS["png"], "IDAT", {})
    back = decode_photo(io.BytesIO(data))
    np.testing.assert_array_equal(back.colour, pixels)
    assert back.metadata.texts == texts
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.text["Title"] == "京 IDAT"
