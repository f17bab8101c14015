"""Reading and writing files: formats, orientation, depth, transparency, damage, atomic writes."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import FORMATS, encode_image, from_pillow, read_image, write_image
from skipdiff_env.images.formats import icc
from skipdiff_env.images.photo import read_photo

LOSSLESS = [".png", ".tif", ".tiff", ".bmp"]
LOSSY = [".jpg", ".jpeg", ".webp"]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, 255 - x * 255 / width], -1).astype(np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by the book, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def refused(path: Path) -> str:
    """The message with which reading fails: one line that starts with the file's name."""
    with pytest.raises(SkipDiffError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


# -- round trips


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 64)])
def test_lossless_formats_give_the_same_pixels_back(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    image = noise(*size)
    write_image(tmp_path / f"a{suffix}", image)
    back = read_image(tmp_path / f"a{suffix}")
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("suffix", LOSSY)
def test_lossy_formats_stay_close(tmp_path: Path, suffix: str) -> None:
    image = smooth(40, 56)
    write_image(tmp_path / f"a{suffix}", image)
    error = read_image(tmp_path / f"a{suffix}").astype(float) - image
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 35


def test_jpeg_keeps_colour_at_full_resolution(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", noise(16, 16))
    with Image.open(tmp_path / "a.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # sampling factors: 4:4:4
        assert max(image.quantization[0]) < 20  # quality 95; the default 75 has 60 and more


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_suffix_decides_the_format_whatever_its_case(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix.upper()}"
    write_image(path, smooth(8, 8))
    with Image.open(path) as image:
        assert image.format == FORMATS[suffix].name


def test_content_decides_when_reading(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise(4, 4))
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), noise(4, 4))


def test_same_image_same_bytes() -> None:
    for suffix in FORMATS:
        assert encode_image(noise(9, 9), f"x{suffix}") == encode_image(noise(9, 9), f"y{suffix}")


# -- orientation, modes, depths


def stored_to_upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF 2.3, tag 0x0112, spelled out: which side of the picture row 0 and column 0 of the file are."""
    transposed = stored.transpose(1, 0, 2)
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: transposed,
        6: transposed[:, ::-1],
        7: transposed[::-1, ::-1],
        8: transposed[::-1],
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.zeros((24, 40, 3), np.uint8)  # four corners, four colours
    stored[:8, :8], stored[:8, -8:], stored[-8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    if suffix == ".jpg":
        options = {"quality": 100, "subsampling": 0}
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=exif, **options)
    image = read_image(tmp_path / f"a{suffix}").astype(int)
    expected = stored_to_upright(stored, orientation)
    assert image.shape == expected.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    assert np.abs(image - expected).max() <= (6 if suffix == ".jpg" else 0)


def test_unreadable_exif_does_not_spoil_a_whole_picture(tmp_path: Path) -> None:
    Image.fromarray(smooth(9, 7)).save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.jpg").shape == (9, 7, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_opaque_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(smooth(12, 10)).convert(mode)
    image.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_transparency_is_laid_over_white(tmp_path: Path, suffix: str) -> None:
    rgba = np.zeros((4, 3, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:, 1, 3], rgba[:, 2, 3] = 128, 255
    options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(rgba).save(tmp_path / f"a{suffix}", **options)
    alpha = rgba[..., 3:] / 255
    expected = alpha * rgba[..., :3] + (1 - alpha) * 255
    assert np.abs(read_image(tmp_path / f"a{suffix}") - expected).max() <= 1
    assert (read_image(tmp_path / f"a{suffix}")[:, 0] == 255).all()


def test_transparency_of_grey_and_palette_images(tmp_path: Path) -> None:
    grey_alpha = np.array([[[10, 0], [10, 255]]], np.uint8)
    Image.fromarray(grey_alpha).save(tmp_path / "la.png")
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    palette.save(tmp_path / "p.png", transparency=0)
    palette.save(tmp_path / "bytes.png", transparency=bytes([0, 255]))
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), [[[255] * 3, [10] * 3]])
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), [[[255] * 3, [0, 0, 255]]])
    np.testing.assert_array_equal(read_image(tmp_path / "bytes.png"), [[[255] * 3, [0, 0, 255]]])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_rounded(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 1000, dtype=np.uint16).reshape(25, 40)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(image[..., 0], np.rint(values / 65535 * 255))
    assert (image == image[..., :1]).all()


def test_big_endian_16_bit_grey(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535]], ">u2")
    Image.frombytes("I;16B", (3, 1), values.tobytes()).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 1], [[0, 1, 255]])


def test_16_bit_colour_is_within_one_level(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(5, 6, 16, 2, rows))
    assert np.abs(read_image(tmp_path / "a.png") - values / 257).max() <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_white_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.ones((3, 3), dtype)).save(tmp_path / "a.tif")
    assert "32-bit" in refused(tmp_path / "a.tif")


def test_first_of_several_frames(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(5, 5, seed)) for seed in (1, 2)]
    for suffix in (".tif", ".png", ".webp"):
        options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
        frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), noise(5, 5, 1))


# -- bad input


def test_missing_folder_empty_and_not_an_image(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "missing.png")
    assert "folder" in refused(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "empty" in refused(tmp_path / "empty.png")
    (tmp_path / "text.jpg").write_text("not a picture\nat all")
    assert "not a readable image" in refused(tmp_path / "text.jpg")
    (tmp_path / "vector.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "not a readable image" in refused(tmp_path / "vector.png")  # Pillow would start Ghostscript


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    data = encode_image(noise(64, 64), f"a{suffix}")
    path = tmp_path / f"a{suffix}"
    for keep in (len(data) // 2, len(data) - len(data) // 8):
        path.write_bytes(data[:keep])
        refused(path)


def test_no_pixels(tmp_path: Path) -> None:
    (tmp_path / "flat.png").write_bytes(png(0, 3, 8, 2, b""))
    refused(tmp_path / "flat.png")
    with pytest.raises(SkipDiffError, match="mine: has no pixels"):
        from_pillow(Image.new("RGB", (0, 3)), "mine")


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(60000, 60000, 8, 2, b""))
    assert "megapixels" in refused(tmp_path / "bomb.png")
    write_image(tmp_path / "b.png", noise(30, 50))
    with pytest.raises(SkipDiffError, match="30x50|50x30"):
        read_image(tmp_path / "b.png", 1499)
    assert read_image(tmp_path / "b.png", 1500).shape == (30, 50, 3)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".png", ".jpg", ".webp", ".tif", ".bmp"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.floats(0, 1),
)
def test_damage_gives_an_image_or_one_line(
    tmp_path: Path, suffix: str, changes: list[tuple[float, int]], cut: float
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(smooth(12, 9)).save(
        buffer, FORMATS[suffix].name, **({} if suffix == ".bmp" else {"exif": exif})
    )
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[int(place * len(data))] = value
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data[: round(cut * len(data))])
    try:
        image = read_image(path)
    except SkipDiffError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size


# -- writing


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt", ".png"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(SkipDiffError, match=r"names no image format; use \.png"):
        write_image(tmp_path / name, noise(2, 2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), noise(0, 4)]
)
def test_only_uint8_rgb_is_written(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(SkipDiffError, match=r"uint8 array of shape \(H, W, 3\)"):
        write_image(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


def test_too_wide_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(SkipDiffError, match="16384x1 does not fit WEBP") as caught:
        write_image(tmp_path / "a.webp", np.zeros((1, 16384, 3), np.uint8))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(SkipDiffError, match="no folder .*; create it first"):
        write_image(tmp_path / "missing" / "a.png", noise(2, 2))
    (tmp_path / "file").touch()
    with pytest.raises(SkipDiffError, match="no folder"):
        write_image(tmp_path / "file" / "a.png", noise(2, 2))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SkipDiffError, match="it is a folder"):
        write_image(tmp_path / "folder.png", noise(2, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SkipDiffError, match="Permission denied"):
            write_image(tmp_path / "a.png", noise(2, 2))
    finally:
        tmp_path.chmod(0o700)


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A real failure half-way through the file: the system refuses to let it grow past 1000 bytes."""
    resource = pytest.importorskip("resource")
    before = encode_image(smooth(4, 4), "a.png")
    (tmp_path / "a.png").write_bytes(before)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SkipDiffError, match=r"cannot write .*a\.png: File too large"):
            write_image(tmp_path / "a.png", noise(64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_renaming_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(source: Path, target: Path) -> None:
        assert source.parent == target.parent and source.exists()
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((SkipDiffError, KeyboardInterrupt)) as caught:
        write_image(tmp_path / "a.png", noise(8, 8))
    assert not list(tmp_path.iterdir())
    if isinstance(failure, OSError):
        assert str(caught.value) == f"cannot write {tmp_path / 'a.png'}: No space left on device"


def test_replaces_an_old_file_and_keeps_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("old")
    write_image(tmp_path / "a.png", noise(8, 8))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), noise(8, 8))
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_import_is_light() -> None:
    code = (
        "import sys, skipdiff_env.images; print(*{'skimage', 'cv2', 'pyiqa', 'torchvision'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("kind", [b"DEBM", b"BGRs"])
def test_the_profile_of_a_bmp_is_kept(tmp_path: Path, kind: bytes) -> None:
    """Version 5 has room for one behind the pixels (MBED); sRGB is the other word that may stand there."""
    profile = icc.profile(icc.ADOBE_RGB, icc.ADOBE_GAMMA)
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    body = pixels[::-1, :, ::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, 4, 4, 1, 24, 0, len(body), 0, 0, 0, 0) + bytes(16)
    header += kind + bytes(48) + struct.pack("<IIII", 4, 124 + len(body), len(profile), 0)
    assert len(header) == 124
    start = b"BM" + struct.pack("<IHHI", 14 + 124 + len(body) + len(profile), 0, 0, 14 + 124)
    (tmp_path / "a.bmp").write_bytes(start + header + body + profile)
    photo = read_photo(tmp_path / "a.bmp")
    assert np.array_equal(photo.colour, pixels)
    assert photo.profile == (profile if kind == b"DEBM" else None)
