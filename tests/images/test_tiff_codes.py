"""Fax and JPEG codes in TIFF: the same pixels as libtiff's, and damage refused, silently."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.photo import decode_photo
from skipdiff_env.images.raster import Photo


def read(data: bytes) -> Photo:
    return decode_photo(io.BytesIO(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_jpeg_in_tiff(mode: str) -> None:
    y, x = np.mgrid[:64, :96]
    smooth = Image.fromarray(np.stack([x * 2 + 40, y * 3 + 30, x + y + 60], -1).astype(np.uint8)).convert(
        mode
    )
    buffer = io.BytesIO()
    smooth.save(buffer, "TIFF", compression="jpeg", quality=98)
    found = read(buffer.getvalue()).colour
    expected = np.asarray(smooth if mode == "L" else smooth.convert("RGB"))
    assert np.abs(found.astype(int) - expected.reshape(found.shape)).max() <= 6


FAX = [("tiff_ccitt", {}), ("group3", {}), ("group3", {292: 1}), ("group4", {})]
"""Pillow's names, and tags; 292 lets Group 3's rows refer to those above them."""


def fax_file(bits: np.ndarray, compression: str, tags: dict[int, int]) -> bytes:
    """Pillow's libtiff codes it; bool (H, W)."""
    buffer = io.BytesIO()
    Image.fromarray(bits).save(buffer, "TIFF", compression=compression, tiffinfo=tags)
    return buffer.getvalue()


@pytest.mark.parametrize(("compression", "tags"), FAX)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 1.0])
def test_fax_codes(compression: str, tags: dict[int, int], share: float) -> None:
    for height, width in ((1, 1), (7, 8), (40, 65), (3, 2700)):
        bits = np.random.default_rng(width).random((height, width)) < share
        found = read(fax_file(bits, compression, tags)).colour[..., 0]
        np.testing.assert_array_equal(found, bits * np.uint8(255))


@pytest.mark.parametrize(("compression", "tags"), FAX)
def test_fax_codes_of_every_length(compression: str, tags: dict[int, int]) -> None:
    lengths = np.array([*range(66), *range(128, 2700, 64), 2600, 2699])[:, None]
    bits = np.concatenate([np.arange(2700) < lengths, np.arange(2700) >= lengths])
    found = read(fax_file(bits, compression, tags)).colour[..., 0]
    np.testing.assert_array_equal(found, bits * np.uint8(255))


@pytest.mark.parametrize(("compression", "tags"), FAX)
def test_damaged_fax_codes_are_refused_or_make_a_picture(
    compression: str, tags: dict[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """Codes that run out, mean nothing or leave the row: never half a picture, and no library's own words."""
    bits = np.random.default_rng(1).random((30, 60)) < 0.3
    whole = fax_file(bits, compression, tags)
    (start,), (length,) = (Image.open(io.BytesIO(whole)).tag_v2[tag] for tag in (273, 279))
    end = start + length
    for cut in (start + length // 2, start + 1):
        with pytest.raises(SkipDiffError, match="is damaged or truncated"):
            read(whole[:cut] + b"\0" * (end - cut) + whole[end:])
    refused = 0
    for place in range(start, end, 3):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        try:
            assert read(bytes(changed)).size == (60, 30)
        except SkipDiffError as error:
            refused += 1
            assert "fax code" in str(error) or "fax row" in str(error)
    assert refused > length // 6
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_damaged_jpeg_in_tiff(mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    picture = Image.new(mode, (60, 50))
    picture.save(buffer, "TIFF", compression="jpeg", tiffinfo={278: 16})
    whole = buffer.getvalue()
    places, lengths = (Image.open(io.BytesIO(whole)).tag_v2[tag] for tag in (273, 279))
    assert len(places) == 4
    frame = whole.index(b"\xff\xc0", places[1])
    for at, byte in (
        (places[1], 0),  # no beginning
        (frame + 8, 59),  # of another width
        (frame + 5, 0), (frame + 6, 9),  # fewer rows
        (frame + 9, 2),  # of two channels
    ):  # fmt: skip
        changed = bytearray(whole)
        changed[at] = byte
        if bytes(changed) != whole:
            with pytest.raises(SkipDiffError, match="is damaged or truncated"):
                read(bytes(changed))
    last = places[-1] + lengths[-1] - 4
    with pytest.raises(SkipDiffError, match="is damaged or truncated"):
        read(whole[: last - 4] + b"\0" * 8 + whole[last + 4 :])
    assert capfd.readouterr() == ("", "")
