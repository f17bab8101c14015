"""Files of every format and mode, read and written, and looked at in pixels."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, TiffImagePlugin

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import photo as photo_module
from skipdiff_env.images.metadata import Metadata
from skipdiff_env.images.photo import FORMATS, MAX_PIXELS, Photo, read_header, read_photo
from skipdiff_env.images.photo_file import encode_photo

from .conftest import scene

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RGB8 = np.rint(scene() * 255).astype(np.uint8)
RGB16 = np.rint(scene() * 65535).astype(np.uint16)
GREY8, GREY16 = RGB8[..., :1], RGB16[..., :1]
ALPHA8 = np.rint(np.linspace(0, 255, 140)).astype(np.uint8).reshape(10, 14)
ALPHA16 = np.rint(np.linspace(0, 65535, 140)).astype(np.uint16).reshape(10, 14)


def pillow(pixels: np.ndarray, name: str, mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, name, **options)
    return buffer.getvalue()


def opencv(pixels: np.ndarray, suffix: str) -> bytes:
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    return bytes(cv2.imencode(suffix, np.ascontiguousarray(pixels[..., order]))[1])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: np.ndarray, colour: int, *extra: bytes, size: tuple[int, int] | None = None) -> bytes:
    """A PNG of a colour type that the libraries do not write."""
    height, width = size or pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(f">u{pixels.dtype.itemsize}").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + data + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, photometric: int, **tags: Any) -> bytes:
    """An uncompressed TIFF with the tags of one's choice (``t262=0`` and so on)."""
    height, width, planes = pixels.shape
    ifd = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    layout = {256: width, 257: height, 258: (8 * pixels.dtype.itemsize,) * planes, 259: 1, 262: photometric}
    layout |= {273: 0, 277: planes, 278: height, 279: pixels.nbytes}
    for tag, value in (layout | {int(name[1:]): value for name, value in tags.items()}).items():
        ifd[tag] = value
    buffer = io.BytesIO()
    ifd.save(buffer)
    return buffer.getvalue() + pixels.tobytes()


def with_alpha(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.concatenate([colour, alpha[..., None]], axis=2)


def palette(transparent: bool) -> bytes:
    indexed = Image.frombytes("P", (14, 10), bytes(range(140)))
    indexed.putpalette([v for i in range(140) for v in (i, 255 - i, 7)])
    buffer = io.BytesIO()
    indexed.save(buffer, "PNG", **({"transparency": 5} if transparent else {}))
    return buffer.getvalue()


INDEX = np.arange(140).reshape(10, 14)
PALETTE = np.stack([INDEX, 255 - INDEX, np.full_like(INDEX, 7)], axis=-1).astype(np.uint8)
BITS = (RGB8[..., :1] > 128).astype(np.uint8) * 255

# name: file, colour, alpha, tolerance in steps of the file's own depth
READ: dict[str, tuple[Callable[[], bytes], np.ndarray, np.ndarray | None, int]] = {
    "png RGB": (lambda: pillow(RGB8, "PNG"), RGB8, None, 0),
    "png RGBA": (lambda: pillow(with_alpha(RGB8, ALPHA8), "PNG"), RGB8, ALPHA8, 0),
    "png L": (lambda: pillow(GREY8, "PNG"), GREY8, None, 0),
    "png LA": (lambda: pillow(with_alpha(GREY8, ALPHA8), "PNG"), GREY8, ALPHA8, 0),
    "png 1": (lambda: pillow(BITS, "PNG", "1"), BITS, None, 0),
    "png P": (lambda: palette(False), PALETTE, None, 0),
    "png P transparent": (lambda: palette(True), PALETTE, np.where(INDEX == 5, 0, 255).astype(np.uint8), 0),
    "png RGB with a transparent colour": (
        lambda: png(RGB8, 2, chunk(b"tRNS", RGB8[3, 4].astype(">u2").tobytes())),
        RGB8, np.where((RGB8[3, 4] == RGB8).all(-1), 0, 255).astype(np.uint8), 0,
    ),
    "png RGB 16": (lambda: opencv(RGB16, ".png"), RGB16, None, 0),
    "png RGBA 16": (lambda: opencv(with_alpha(RGB16, ALPHA16), ".png"), RGB16, ALPHA16, 0),
    "png L 16": (lambda: opencv(GREY16, ".png"), GREY16, None, 0),
    "png LA 16": (
        lambda: png(with_alpha(GREY16, ALPHA16), 4), np.repeat(GREY16, 3, axis=2), ALPHA16, 0,
    ),
    "png L 16 with a transparent grey": (
        lambda: png(GREY16, 0, chunk(b"tRNS", GREY16[3, 4].astype(">u2").tobytes())),
        GREY16, np.where(GREY16[..., 0] == GREY16[3, 4], 0, 65535).astype(np.uint16), 0,
    ),
    "png RGB 16 with a transparent colour": (
        lambda: png(RGB16, 2, chunk(b"tRNS", RGB16[3, 4].astype(">u2").tobytes())),
        RGB16, np.where((RGB16[3, 4] == RGB16).all(-1), 0, 65535).astype(np.uint16), 0,
    ),
    "jpeg RGB": (lambda: pillow(RGB8, "JPEG", quality=97, subsampling=0), RGB8, None, 6),
    "jpeg L": (lambda: pillow(GREY8, "JPEG", quality=97), GREY8, None, 4),
    "jpeg progressive": (
        lambda: pillow(RGB8, "JPEG", quality=97, subsampling=0, progressive=True), RGB8, None, 6,
    ),
    "jpeg CMYK": (lambda: pillow(RGB8, "JPEG", "CMYK", quality=97, subsampling=0), RGB8, None, 8),
    "webp RGB": (lambda: pillow(RGB8, "WEBP", lossless=True), RGB8, None, 0),
    "webp RGBA": (
        lambda: pillow(with_alpha(RGB8, ALPHA8), "WEBP", lossless=True, exact=True), RGB8, ALPHA8, 0,
    ),
    "tiff RGB": (lambda: pillow(RGB8, "TIFF"), RGB8, None, 0),
    "tiff RGB LZW": (lambda: pillow(RGB8, "TIFF", compression="tiff_lzw"), RGB8, None, 0),
    "tiff RGBA": (lambda: pillow(with_alpha(RGB8, ALPHA8), "TIFF"), RGB8, ALPHA8, 0),
    "tiff L": (lambda: pillow(GREY8, "TIFF"), GREY8, None, 0),
    "tiff LA": (lambda: pillow(with_alpha(GREY8, ALPHA8), "TIFF"), GREY8, ALPHA8, 0),
    "tiff 1": (lambda: pillow(BITS, "TIFF", "1", compression="group4"), BITS, None, 0),
    "tiff CMYK": (lambda: pillow(RGB8, "TIFF", "CMYK"), RGB8, None, 2),
    "tiff L white is zero": (lambda: tiff(255 - GREY8, 0), GREY8, None, 0),
    "tiff RGB 16": (lambda: opencv(RGB16, ".tiff"), RGB16, None, 0),
    "tiff RGB 16 plain": (lambda: tiff(RGB16, 2), RGB16, None, 0),
    "tiff RGBA 16": (lambda: tiff(with_alpha(RGB16, ALPHA16), 2, t338=2), RGB16, ALPHA16, 0),
    "tiff RGBX 16": (lambda: tiff(with_alpha(RGB16, ALPHA16), 2, t338=0), RGB16, None, 0),
    "tiff L 16": (lambda: opencv(GREY16, ".tiff"), GREY16, None, 0),
    "tiff L 16 big-endian": (lambda: tiff(GREY16, 1), GREY16, None, 0),
    "tiff L 16 white is zero": (lambda: tiff(65535 - GREY16, 0), GREY16, None, 0),
    "bmp RGB": (lambda: pillow(RGB8, "BMP"), RGB8, None, 0),
    "bmp L": (lambda: pillow(GREY8, "BMP"), GREY8, None, 0),
    "bmp 1": (lambda: pillow(BITS, "BMP", "1"), BITS, None, 0),
    "gif": (lambda: pillow(BITS, "GIF"), BITS, None, 0),
}  # fmt: skip


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
    assert back.colour.shape[2] == (1 if grey and fmt.grey and not (deep and alpha and fmt.deep) else 3)
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


def test_a_phones_multi_picture_file_is_a_jpeg(tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB8), Image.fromarray(RGB8[::2, ::2])]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert read_header(tmp_path / "a.jpg").format == "jpeg"
    assert read_photo(tmp_path / "a.jpg").size == (14, 10)


def test_formats_that_are_only_read_become_png(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(pillow(GREY8, "GIF"))
    assert read_header(tmp_path / "a.gif").format == "png"


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: None, "no such file"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "text": (lambda p: p.write_text("hello, this is no image"), "is not a readable image"),
    "heic": (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 50), "HEIC or AVIF"),
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
    "32-bit float": (lambda p: p.write_bytes(tiff(GREY8.astype(np.float32), 1, t339=3)), "32-bit pixels"),
    "32-bit integers": (lambda p: p.write_bytes(tiff(GREY8.astype(np.int32), 1, t339=2)), "32-bit pixels"),
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
    with pytest.raises(SkipDiffError, match="no regular file"):
        read_photo(Path("/dev/zero"))


def test_16_bits_that_opencv_cannot_read_are_read_at_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(RGB16, 2))

    def unable(*_: object) -> None:
        raise cv2.error("no such codec")

    monkeypatch.setattr(photo_module.cv2, "imdecode", unable)
    photo = read_photo(tmp_path / "a.tif")
    assert photo.colour.dtype == np.uint8
    assert photo.notes == ("16 bits reduced to 8: this kind of file cannot be read in full",)
    np.testing.assert_array_equal(photo.colour, RGB16 >> 8)


def test_a_picture_too_large_for_a_format_is_refused() -> None:
    wide = Photo(np.zeros((4, 16384, 1), np.uint8))
    with pytest.raises(SkipDiffError, match="16384x4 does not fit WEBP .at most 16383"):
        encode_photo(wide, FORMATS["webp"], "test", {})
    assert encode_photo(wide, FORMATS["jpeg"], "test", {})[0]


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_photo_gives_the_same_bytes(name: str) -> None:
    photo = Photo(RGB16, ALPHA16, SRGB, Metadata(base={271: "Camera"}))
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
