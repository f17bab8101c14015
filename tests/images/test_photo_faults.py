"""Files that are damaged, or too large, or none at all: read or refused, in one line, quietly."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.formats.exif import text
from skipdiff_env.images.formats.metadata import Metadata
from skipdiff_env.images.photo import FORMATS, MAX_PIXELS, Photo, read_photo
from skipdiff_env.images.photo_file import encode_photo

from .photo_files import (
    ALPHA16,
    GREY8,
    READ,
    RGB8,
    RGB16,
    SRGB,
    opencv,
    pillow,
    png,
    tiff,
)

BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: None, "no such file"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "text": (lambda p: p.write_text("hello, this is no image"), "is not a readable image"),
    "heic": (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 50), "damaged or truncated"),
    "truncated png": (lambda p: p.write_bytes(pillow(RGB8, "PNG")[:120]), "damaged or truncated"),
    "truncated 16-bit png": (
        lambda p: p.write_bytes(opencv(RGB16, ".png")[:200]), "damaged or truncated",
    ),
    "truncated jpeg": (lambda p: p.write_bytes(pillow(RGB8, "JPEG")[:-300]), "damaged or truncated"),
    "truncated webp": (
        lambda p: p.write_bytes(pillow(RGB8, "WEBP")[:60]), "damaged or truncated|not a readable",
    ),
    "truncated tiff": (
        lambda p: p.write_bytes(pillow(RGB8, "TIFF", compression="tiff_lzw")[:100]),
        "damaged or truncated|readable",
    ),
    "truncated 16-bit tiff": (lambda p: p.write_bytes(tiff(RGB16, 2)[:-50]), "damaged or truncated"),
    "zero-size png": (lambda p: p.write_bytes(png(RGB8, 2, size=(0, 14))), "readable|no pixels|damaged"),
    "32-bit float": (
        lambda p: p.write_bytes(tiff(GREY8.astype(np.float32), 1, t339=3)), "32-bit float pixels",
    ),
    "32-bit integers": (
        lambda p: p.write_bytes(tiff(GREY8.astype(np.int32), 1, t339=2)), "32-bit signed pixels",
    ),
    "bomb": (lambda p: p.write_bytes(png(GREY8, 0, size=(60000, 60000))), "more than the 89 megapixels"),
    "small bomb": (lambda p: p.write_bytes(png(GREY8, 0, size=(10000, 9000))), "10000|9000"),
    "bmp bomb": (
        lambda p: p.write_bytes(
            b"BM" + struct.pack("<IIIIiiHH", 54, 0, 54, 40, 60000, 60000, 1, 24) + b"\0" * 24
        ),
        "more than the 89 megapixels",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD[name]
    make(tmp_path / "a")
    with pytest.raises(SkipDiffError, match=message) as caught:
        read_photo(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # libtiff and OpenCV keep quiet, too


def test_the_limit_is_pillows() -> None:
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_devices_and_pipes_are_refused() -> None:
    with pytest.raises(SkipDiffError, match="not a regular file"):
        read_photo(Path("/dev/zero"))


def test_a_picture_too_large_for_a_format_is_refused() -> None:
    wide = Photo(np.zeros((4, 16384, 1), np.uint8))
    with pytest.raises(SkipDiffError, match="16384x4 does not fit WEBP .at most 16383"):
        encode_photo(wide, FORMATS["webp"], "test", {})
    assert encode_photo(wide, FORMATS["jpeg"], "test", {})[0]


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_photo_gives_the_same_bytes(name: str) -> None:
    photo = Photo(RGB16, ALPHA16, SRGB, Metadata(base={271: text("Camera")}))
    first = encode_photo(photo, FORMATS[name], "test", {"seed": 1})
    assert encode_photo(photo, FORMATS[name], "test", {"seed": 1}) == first


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(sorted(READ)), data=st.data())
def test_damaged_files_are_read_or_refused(folder: Path, name: str, data: st.DataObject) -> None:
    whole = bytearray(READ[name][0]())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    path = folder / "a"
    path.write_bytes(whole[:cut] if data.draw(st.booleans()) else whole)
    try:
        photo = read_photo(path)
    except SkipDiffError as error:
        assert "\n" not in str(error)
    else:
        assert photo.colour.ndim == 3
        encode_photo(photo, FORMATS["tiff"], "test", {})


def test_a_process_without_stderr_can_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(pillow(RGB8, "PNG"))
    code = (
        "import os, sys; os.close(2); from pathlib import Path;"
        "from skipdiff_env.images.photo import read_photo;"
        "print(read_photo(Path(sys.argv[1])).size)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png")], capture_output=True, text=True
    )
    assert ran.stdout == "(14, 10)\n"
