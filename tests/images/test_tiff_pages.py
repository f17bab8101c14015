"""TIFF files of several pages: the picture counts, not its reduced copy or its mask; kinds of numbers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.formats import exif
from skipdiff_env.images.formats.exif import Directories
from skipdiff_env.images.formats.tiff import encode_tiff
from skipdiff_env.images.photo import decode_photo, read_header, read_photo
from skipdiff_env.images.raster import Photo

Y, X = np.mgrid[:24, :36]
LARGE = np.stack([X * 7, Y * 9, 255 - X - Y], axis=-1).astype(np.uint8)
SMALL = LARGE[::3, ::3]
BITS = X[::3, ::3] > 20


def pages(*described: tuple[np.ndarray, dict[str, Any]], bigtiff: bool = False) -> bytes:
    """A TIFF of these pictures, by tifffile."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=bigtiff) as file:
        for pixels, options in described:
            kind = "mask" if pixels.dtype == bool else "rgb"
            file.write(pixels, photometric=kind, metadata=None, **options)
    return buffer.getvalue()


REDUCED, MASK = {"subfiletype": 1}, {"subfiletype": 4}
PLAIN: dict[str, Any] = {}


def as_old(data: bytes) -> bytes:
    """The same with TIFF 5's tag, SubfileType 2, for NewSubfileType 1."""
    return data.replace(b"\xfe\0\x04\0\x01\0\0\0\x01\0\0\0", b"\xff\0\x03\0\x01\0\0\0\x02\0\0\0")


CASES = {
    "a copy first": (pages((SMALL, REDUCED), (LARGE, PLAIN)), 2, 2),
    "a copy first, BigTIFF": (pages((SMALL, REDUCED), (LARGE, PLAIN), bigtiff=True), 2, 2),
    "two copies and a mask first": (
        pages((SMALL, REDUCED), (SMALL, {"subfiletype": 3}), (BITS, MASK), (LARGE, PLAIN), (SMALL, REDUCED)),
        4, 5,
    ),
    "a copy first, by the old tag": (as_old(pages((SMALL, REDUCED), (LARGE, PLAIN))), 2, 2),
    "a page of several": (
        pages((SMALL, REDUCED), (LARGE, {"subfiletype": 2}), (SMALL, {"subfiletype": 2})), 2, 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_picture_counts_and_not_its_copy(name: str, tmp_path: Path) -> None:
    data, number, count = CASES[name]
    (tmp_path / "a.tif").write_bytes(data)
    header, photo = read_header(tmp_path / "a.tif"), read_photo(tmp_path / "a.tif")
    assert (header.width, header.height) == photo.size
    np.testing.assert_array_equal(photo.colour, LARGE)
    assert photo.notes == (f"only page {number} of {count}: those before it are reduced copies",)


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (pages((LARGE, PLAIN), (SMALL, REDUCED)), ("only the first of 2 frames or pages",)),
        (pages((LARGE, PLAIN), (SMALL, PLAIN)), ("only the first of 2 frames or pages",)),
        (pages((LARGE, REDUCED)), ()),
        (pages((LARGE, REDUCED), (SMALL, REDUCED)), ()),
        (as_old(pages((LARGE, REDUCED), (SMALL, REDUCED))), ()),
    ],
)
def test_else_the_first_page_counts(data: bytes, notes: tuple[str, ...]) -> None:
    photo = decode_photo(io.BytesIO(data))
    np.testing.assert_array_equal(photo.colour, LARGE)
    assert photo.notes == notes


def test_what_stands_with_the_copy_is_said_of_the_picture() -> None:
    """A camera's first directory holds copy, maker and EXIF; what the picture's own says goes first."""
    base = {254: exif.longs(1), 271: exif.text("Maker"), 272: exif.text("Copy")}
    first = encode_tiff(Photo(SMALL), Directories(base, {33434: exif.rationals(0.5)}))
    second = encode_tiff(Photo(LARGE), Directories({272: exif.text("Camera")}))
    photo = decode_photo(io.BytesIO(chained(first, second)))
    np.testing.assert_array_equal(photo.colour, LARGE)
    assert {tag: photo.metadata.base[tag].text() for tag in (271, 272)} == {271: b"Maker", 272: b"Camera"}
    assert photo.metadata.exif[33434].numbers() == (0.5,)


def chained(first: bytes, second: bytes) -> bytes:
    """Two little-endian TIFF files of a page each as one of two pages."""
    shift = len(first)
    count = int.from_bytes(first[8:10], "little")
    link = 10 + 12 * count
    moved = bytearray(second)
    entries = int.from_bytes(second[8:10], "little")
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}
    for place in range(10, 10 + 12 * entries, 12):
        tag, kind = (int.from_bytes(second[at : at + 2], "little") for at in (place, place + 2))
        values = int.from_bytes(second[place + 4 : place + 8], "little")
        if sizes[kind] * values > 4 or tag == exif.STRIP_OFFSETS:
            old = int.from_bytes(second[place + 8 : place + 12], "little")
            moved[place + 8 : place + 12] = (old + shift).to_bytes(4, "little")
    return first[:link] + (shift + 8).to_bytes(4, "little") + first[link + 4 :] + bytes(moved)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_undefined_numbers_are_unsigned(dtype: type, channels: int) -> None:
    """TIFF 6.0, SampleFormat: a reader treats 4 as if the field were not there."""
    pixels = (LARGE.astype(dtype) * (257 if dtype is np.uint16 else 1))[..., :channels]
    format = exif.shorts(*(4,) * channels)
    photo = decode_photo(io.BytesIO(encode_tiff(Photo(pixels), Directories({339: format}))))
    np.testing.assert_array_equal(photo.colour, pixels)
    assert photo.notes == ()


@pytest.mark.parametrize(
    ("format", "words"),
    [
        (2, "8-bit signed pixels"), (3, "8-bit float pixels"), (5, "8-bit complex pixels"),
        (6, "8-bit complex float pixels"), (0, "sample format 0"), (7, "sample format 7"),
        (1234, "sample format 1234"),
    ],
)  # fmt: skip
def test_other_kinds_of_numbers_are_refused_by_name(format: int, words: str) -> None:
    for formats in ((format,) * 3, (1, 4, format)):
        data = encode_tiff(Photo(LARGE), Directories({339: exif.shorts(*formats)}))
        with pytest.raises(SkipDiffError, match=f"is a TIFF with {words}"):
            decode_photo(io.BytesIO(data))
