"""PNG by the standard: transparent colours of every depth, chunks and rows that are damaged, large texts."""

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
from skipdiff_env.images import read_image
from skipdiff_env.images.formats.metadata import Metadata, read_record
from skipdiff_env.images.photo import FORMATS, decode_photo, read_header, read_photo
from skipdiff_env.images.photo_file import encode_photo
from skipdiff_env.images.raster import Photo

from .photo_files import GREY8, RGB8, RGB16, SRGB, chunk, decoded, png


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
    assert photo.notes == ("texts or a profile beyond 128 MiB in total are left out",)


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
