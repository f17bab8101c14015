"""Files of every format and mode, read and written, and looked at in pixels."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from skipdiff_env.images.photo import FORMATS, Photo, read_header, read_photo
from skipdiff_env.images.photo_file import encode_photo

from .photo_files import (
    ALPHA8,
    ALPHA16,
    GREY8,
    GREY16,
    READ,
    RGB8,
    RGB16,
    SRGB,
    chunk,
    opencv,
    pillow,
    scene,
    tiff,
    with_alpha,
)


@pytest.mark.parametrize("name", READ)
def test_reading(name: str, tmp_path: Path) -> None:
    make, colour, alpha, tolerance = READ[name]
    path = tmp_path / "file"  # content decides, not the suffix
    path.write_bytes(make())
    photo = read_photo(path)
    if name in ("gif", "bmp 1"):  # palettes
        photo = Photo(photo.colour[..., :1], photo.alpha)
    assert photo.colour.dtype == colour.dtype
    assert photo.colour.shape == colour.shape
    assert np.abs(photo.colour.astype(int) - colour.astype(int)).max() <= tolerance
    assert (photo.alpha is None) == (alpha is None)
    if alpha is not None and photo.alpha is not None:
        np.testing.assert_array_equal(photo.alpha, alpha)
    header = read_header(path)
    assert (header.width, header.height) == photo.size == (14, 10)


def test_premultiplied_colour_is_divided_again(tmp_path: Path) -> None:
    alpha = np.maximum(ALPHA16, 5000)
    premultiplied = np.rint(RGB16 * (alpha[..., None] / 65535)).astype(np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff(with_alpha(premultiplied, alpha), 2, t338=1))
    photo = read_photo(tmp_path / "a.tif")
    assert photo.deep
    assert np.abs(photo.colour.astype(int) - RGB16).max() <= 8
    np.testing.assert_array_equal(photo.alpha, alpha)


@pytest.mark.parametrize("grey", [False, True], ids=["RGB", "L"])
@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
@pytest.mark.parametrize("name", FORMATS)
def test_writing(name: str, deep: bool, alpha: bool, grey: bool, tmp_path: Path) -> None:
    fmt = FORMATS[name]
    white = 65535 if deep else 255
    colour = np.rint(scene()[..., : 1 if grey else 3] * white).astype(np.uint16 if deep else np.uint8)
    plane = (ALPHA16 if deep else ALPHA8) if alpha else None
    data, notes = encode_photo(Photo(colour, plane), fmt, "test", {"seed": 1}, quality=100)
    path = tmp_path / f"a{fmt.suffix}"
    path.write_bytes(data)
    with Image.open(path) as image:
        assert image.format == name.upper()
        assert bool(image.getexif()) == fmt.baggage
    back = read_photo(path)
    assert back.deep == (deep and fmt.deep)
    assert (back.alpha is not None) == (alpha and fmt.alpha)
    assert back.colour.shape[2] == (1 if grey and fmt.grey and not (deep and alpha and name == "tiff") else 3)
    expected = colour / white
    if alpha and not fmt.alpha:
        expected = expected * (plane / white)[..., None] + 1 - (plane / white)[..., None]
        assert any("laid over white" in note for note in notes)
    if deep and not fmt.deep:
        assert any("16 bits reduced to 8" in note for note in notes)
    if plane is not None and back.alpha is not None:
        assert np.abs(back.alpha / back.alpha.max() - plane / white).max() <= (
            0 if deep == back.deep else 0.002
        )
    seen = np.ones((10, 14), bool) if back.alpha is None else back.alpha > 0
    error = np.abs(back.colour / np.iinfo(back.colour.dtype).max - expected)[seen]
    exact = back.deep == deep and not (alpha and not fmt.alpha)
    # WebP halves the resolution of colour
    assert error.max() <= {"jpeg": 0.03, "webp": 0.1}.get(name, 1e-9 if exact else 0.004)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "png 16", "tiff 16", "tiff 16 grey"])
def test_orientation(kind: str, orientation: int, tmp_path: Path) -> None:
    """The corners end up where EXIF says, told by Pillow's own transpositions."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    upright = Image.fromarray(RGB8)
    if orientation in turns:
        upright = upright.transpose(turns[orientation])
    exif = Image.Exif()
    exif[274] = orientation
    block = exif.tobytes()
    if kind == "png 16":
        start = opencv(RGB16, ".png")
        data = start[:33] + chunk(b"eXIf", block.removeprefix(b"Exif\0\0")) + start[33:]
    elif kind == "tiff 16":
        data = tiff(RGB16, 2, t274=orientation)
    elif kind == "tiff 16 grey":
        data = tiff(GREY16, 1, t274=orientation)
    else:
        options: dict[str, Any] = {"webp": {"lossless": True}, "jpeg": {"quality": 97, "subsampling": 0}}.get(
            kind, {}
        )
        data = pillow(RGB8, kind.upper(), exif=exif if kind == "tiff" else block, **options)
    path = tmp_path / "a"
    path.write_bytes(data)
    photo = read_photo(path)
    header = read_header(path)
    assert photo.size == (header.width, header.height) == upright.size
    shallow = np.rint(photo.colour / (257 if photo.deep else 1))
    expected = np.asarray(upright).astype(int)[..., : shallow.shape[2]]
    assert np.abs(shallow - expected).max() <= (6 if kind == "jpeg" else 0)
    # and what is written says that it is upright
    out = tmp_path / "b.tif"
    out.write_bytes(encode_photo(photo, FORMATS["tiff"], "test", {})[0])
    with Image.open(out) as image:
        assert image.getexif().get(274, 1) == 1


@pytest.mark.parametrize("orientation", [0, 9, 77, -1])
def test_a_senseless_orientation_is_none(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = max(orientation, 0)
    (tmp_path / "a.png").write_bytes(pillow(RGB8, "PNG", exif=exif.tobytes()))
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png").colour, RGB8)


def gray_profile() -> bytes:
    """A minimal ICC profile of linear grey: header and tags wtpt and kTRC."""
    white = b"XYZ \0\0\0\0" + struct.pack(">III", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    offset = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", offset, len(white), b"kTRC", offset + len(white), len(curve))
    body = tags + white + curve
    header = struct.pack(
        ">I4sI4s4s4s12s4s",
        128 + len(body),
        b"lcms",
        0x02100000,
        b"mntr",
        b"GRAY",
        b"XYZ ",
        b"\0" * 12,
        b"acsp",
    )
    header += b"\0" * (68 - len(header)) + struct.pack(">III", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + body


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("kind", ["RGB", "GRAY", "RGB 16", "RGBA"])
def test_a_colour_profile_survives(name: str, kind: str, tmp_path: Path) -> None:
    icc = gray_profile() if kind == "GRAY" else SRGB
    colour = {"GRAY": GREY8, "RGB 16": RGB16}.get(kind, RGB8)
    source = Photo(colour, ALPHA8 if kind == "RGBA" else None, icc)
    path = tmp_path / "a"
    data, notes = encode_photo(source, FORMATS[name], "test", {})
    path.write_bytes(data)
    back = read_photo(path)
    if name == "webp" and kind == "GRAY":  # no grey in WebP, and a grey profile would not fit
        assert back.profile is None
        assert any("converted to sRGB" in note for note in notes)
        # linear grey, seen in sRGB, is lighter
        assert (back.colour.astype(int) - GREY8).mean() > 20
    else:
        assert back.profile == icc
        with Image.open(path) as image:
            assert image.info["icc_profile"] == icc


def test_bmp_gets_srgb_instead_of_a_profile(tmp_path: Path) -> None:
    data, notes = encode_photo(Photo(GREY8, profile=gray_profile()), FORMATS["bmp"], "test", {})
    with Image.open(io.BytesIO(data)) as image:
        assert (np.asarray(image.convert("L")).astype(int) - GREY8[..., 0]).mean() > 20
    assert notes == ["colours converted to sRGB, as BMP cannot hold the profile"]


@pytest.mark.parametrize("icc", [b"rubbish", b"", gray_profile(), SRGB[:200]])
def test_a_profile_that_does_not_fit_is_dropped(icc: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(pillow(RGB8, "PNG", icc_profile=icc))
    photo = read_photo(path)
    assert photo.profile is None
    np.testing.assert_array_equal(photo.colour, RGB8)


def test_cmyk_says_so_and_lab_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(pillow(RGB8, "TIFF", "CMYK"))
    assert read_photo(path).notes == ("CMYK converted to sRGB without a profile: colours may be off",)
    lab = ImageCms.profileToProfile(
        Image.fromarray(RGB8), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(path)
    photo = read_photo(path)
    assert np.abs(photo.colour.astype(int) - RGB8).max() <= 12
    assert photo.notes == ("LAB converted to sRGB",)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_is_read_and_that_is_said(name: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((10, 14, 3), v, np.uint8)) for v in (10, 100, 200)]
    path = tmp_path / "a"
    frames[0].save(path, name, save_all=True, append_images=frames[1:])
    photo = read_photo(path)
    assert np.abs(photo.colour.astype(int) - 10).max() <= 1
    assert photo.notes == ("only the first of 3 frames or pages",)


@pytest.mark.parametrize("count", [1, 2])
def test_a_still_picture_that_is_no_frame_is_read_and_that_is_said(count: int, tmp_path: Path) -> None:
    still, *frames = (Image.fromarray(np.full((10, 14, 3), v, np.uint8)) for v in (10, 100, 200)[: 1 + count])
    path = tmp_path / "a.png"
    still.save(path, save_all=True, append_images=frames, default_image=True)
    photo = read_photo(path)
    assert (photo.colour == 10).all()
    said = f"only the still picture, not its {count} frame{'s' * (count > 1)}"
    assert photo.notes == (said,)


def test_a_phones_multi_picture_file_is_a_jpeg(tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB8), Image.fromarray(RGB8[::2, ::2])]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert read_header(tmp_path / "a.jpg").format == "jpeg"
    assert read_photo(tmp_path / "a.jpg").size == (14, 10)


def test_formats_that_are_only_read_become_png(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(pillow(GREY8, "GIF"))
    assert read_header(tmp_path / "a.gif").format == "png"
