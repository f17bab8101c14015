"""HEIC and AVIF that the tests encode themselves: pixels, depth, transparency, colour, metadata, refusals."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, features

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import open_source, read_image
from skipdiff_env.images.formats import exif, heif, icc
from skipdiff_env.images.formats.exif import Directories
from skipdiff_env.images.photo import FORMATS, decode_photo, read_header, read_photo
from skipdiff_env.images.photo_file import encode_photo
from skipdiff_env.images.raster import Photo

pillow_heif = pytest.importorskip("pillow_heif", reason="extra heic")
pytestmark = pytest.mark.skipif(not features.check("avif"), reason="extra avif")

HEIGHT, WIDTH = 48, 64
Y, X = np.mgrid[:HEIGHT, :WIDTH]
SMOOTH = np.stack([X / (WIDTH - 1), Y / (HEIGHT - 1), (X + Y) / (WIDTH + HEIGHT - 2)], -1)
RGB8, RGB16 = np.rint(SMOOTH * 255).astype(np.uint8), np.rint(SMOOTH * 65535).astype(np.uint16)
ALPHA8 = RGB8[..., 0]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
AUTHOR = "© Zoë 京"


def heic(pixels: np.ndarray, **options: Any) -> bytes:
    depth = ";16" if pixels.dtype == np.uint16 else ""
    mode = {3: "RGB", 4: "RGBA"}[pixels.shape[2]] + depth
    image = pillow_heif.from_bytes(mode, pixels.shape[1::-1], pixels.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, quality=-1, chroma=444, **options)
    return buffer.getvalue()


def avif(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "AVIF", quality=100, subsampling="4:4:4", **options)
    return buffer.getvalue()


def read(data: bytes) -> Photo:
    return decode_photo(io.BytesIO(data))


def away(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a share of white."""
    return float(np.abs(found / np.iinfo(found.dtype).max - expected / np.iinfo(expected.dtype).max).max())


@pytest.mark.parametrize("encode", [heic, avif])
def test_colour_and_transparency(encode: Any) -> None:
    photo = read(encode(RGB8))
    assert photo.colour.dtype == np.uint8 and photo.alpha is None and not photo.notes
    assert away(photo.colour, RGB8) < 0.02
    photo = read(encode(np.concatenate([RGB8, ALPHA8[..., None]], -1)))
    assert photo.alpha is not None and away(photo.alpha, ALPHA8) < 0.02
    seen = ALPHA8 > 128
    assert away(photo.colour[seen], RGB8[seen]) < 0.03


def test_ten_bits_become_sixteen_and_white_stays_white() -> None:
    photo = read(heic(RGB16))
    assert photo.deep and not photo.notes
    assert photo.colour.max() == 65535
    assert away(photo.colour, RGB16) < 0.01
    assert len(np.unique(photo.colour)) > 512  # more than 8 bits' worth


def test_ten_bits_of_avif_are_read_at_eight_and_that_is_said() -> None:
    settings = [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 100]
    data = cv2.imencode(".avif", RGB16[..., ::-1] >> 6, settings)[1].tobytes()
    photo = read(data)
    assert away(photo.colour, RGB8) < 0.02
    assert photo.notes == ("10 bits reduced to 8: this kind of file cannot be read at full depth",)


@pytest.mark.parametrize("encode", [heic, avif])
def test_metadata_and_profile(encode: Any) -> None:
    block = b"Exif\0\0" + b"".join(
        exif.build(Directories({315: exif.text(AUTHOR)}, {33434: exif.rationals(0.01)}))
    )
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:p="http://ns.adobe.com/photoshop/1.0/" p:Credit="An author"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    extra = {"icc_profile": SRGB} if encode is avif else {}
    data = encode(RGB8, exif=block, xmp=packet, **extra)
    photo = read(data)
    assert photo.metadata.base[315] == exif.text(AUTHOR)
    assert photo.metadata.exif[33434].numbers() == (0.01,)
    assert b"An author" in photo.metadata.xmp
    assert photo.profile == (SRGB if encode is avif else None)
    for name in ("png", "jpeg", "tiff", "webp"):
        back = read(encode_photo(photo, FORMATS[name], "x", {})[0])
        assert back.metadata.base[315] == exif.text(AUTHOR) and b"An author" in back.metadata.xmp


def test_heic_with_a_profile() -> None:
    image = pillow_heif.from_pillow(Image.fromarray(RGB8))
    image.info["icc_profile"] = SRGB
    buffer = io.BytesIO()
    image.save(buffer, quality=-1)
    assert read(buffer.getvalue()).profile == SRGB


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_orientation_is_applied_once(kind: str, orientation: int, tmp_path: Path) -> None:
    """What a phone writes: pixels as the sensor has them, and a turn."""
    pillow_heif.register_heif_opener()
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    image = Image.fromarray(RGB8)
    expected = np.asarray(image.transpose(turned[orientation]) if orientation in turned else image)
    block = Image.Exif()
    block[274] = orientation
    path = tmp_path / "a"
    image.save(path, kind, quality=100, exif=block.tobytes())
    photo = read_photo(path)
    assert photo.colour.shape == expected.shape
    assert away(photo.colour, expected) < 0.04
    header = read_header(path)
    assert ((header.width, header.height), header.format) == (photo.size, "png")
    again = read(encode_photo(photo, FORMATS["tiff"], "x", {})[0])
    assert again.size == photo.size


def recoded(data: bytes, primaries: int, transfer: int) -> bytes:
    """The file with other code points in every nclx box that it has."""
    parts = data.split(b"colrnclx")
    assert len(parts) > 1
    codes = primaries.to_bytes(2, "big") + transfer.to_bytes(2, "big")
    return b"colrnclx".join([parts[0], *(codes + part[4:] for part in parts[1:])])


@pytest.mark.parametrize("encode", [heic, avif])
def test_code_points_become_a_profile_or_stay(encode: Any) -> None:
    data = encode(RGB8)
    plain = read(recoded(data, 1, 13))
    assert plain.profile is None and plain.code_points is None
    assert read(recoded(data, 2, 2)).profile is None
    wide = read(recoded(data, 12, 13))
    assert wide.profile == icc.from_code_points(bytes([12, 13, 0, 1]), False)
    for codes in ((12, 2), (2, 8)):  # of which one half is not specified
        half = read(recoded(data, *codes))
        assert half.profile == icc.from_code_points(bytes([*codes, 0, 1]), False) is not None
    assert read(recoded(data, 1, 2)).profile is None and read(recoded(data, 2, 13)).profile is None
    for transfer, name in icc.HDR.items():
        hdr = read(recoded(data, 9, transfer))
        assert hdr.profile is None and hdr.code_points == bytes([9, transfer, 0, 1])
        png, notes = encode_photo(hdr, FORMATS["png"], "x", {})
        assert read(png).code_points == hdr.code_points and not notes
        _, notes = encode_photo(hdr, FORMATS["jpeg"], "x", {})
        assert any(name in note for note in notes)


def test_text_beyond_ascii_survives_a_turn_that_only_the_picture_knows() -> None:
    """As converters write AVIF: turned by a box of its own, EXIF's orientation set to 1."""
    block = exif.build(Directories({274: exif.shorts(6), 315: exif.Value(exif.ASCII, b"Author.\0")}))
    data = avif(RGB8, exif=b"Exif\0\0" + b"".join(block))
    assert b"irot" in data and b"Author." in data
    photo = read(data.replace(b"Author.", "Zoë 京".encode()[:7]))
    assert photo.size == (HEIGHT, WIDTH)
    assert photo.metadata.base[315].text() == "Zoë 京".encode()[:7]


@pytest.mark.parametrize("suffix", [".heic", ".heif", ".avif"])
def test_folders_and_sources_hold_them(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes((avif if suffix == ".avif" else heic)(RGB8))
    assert away(open_source(tmp_path)[0], RGB8) < 0.02
    assert away(read_image(tmp_path / f"a{suffix}"), RGB8) < 0.02


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    files = heic(RGB8), avif(RGB8)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(heif.features, "check", lambda name: False)
    for data, extra in zip(files, ("heic", "avif"), strict=True):
        with pytest.raises(SkipDiffError, match=rf"needs .*: pip install 'skipdiff\[{extra}\]'"):
            read(data)


@pytest.mark.parametrize("encode", [heic, avif])
def test_damage_is_refused_in_one_line(encode: Any) -> None:
    data = encode(RGB8)
    rng = np.random.default_rng(0)
    for keep in (20, 60, len(data) // 2, len(data) - 20):
        with pytest.raises(SkipDiffError) as caught:
            read(data[:keep])
        assert "\n" not in str(caught.value)
    for _ in range(60):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            broken[place] = rng.integers(0, 256)
        try:
            photo = read(bytes(broken))
        except SkipDiffError as error:
            assert "\n" not in str(error)
        else:
            assert photo.colour.ndim == 3
