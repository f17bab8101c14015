"""TIFF in every layout: planes, depths, compressions, transparency; what was written, read again."""

from __future__ import annotations

import io
import lzma
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import decode_image, open_source
from skipdiff_env.images.formats import exif
from skipdiff_env.images.formats.exif import Directories
from skipdiff_env.images.formats.tiff import encode_tiff
from skipdiff_env.images.formats.unpack import unpacked
from skipdiff_env.images.photo import decode_photo, read_header
from skipdiff_env.images.raster import Photo

HEIGHT, WIDTH = 26, 37
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RGB8 = np.stack([X * 6, Y * 9, 255 - X * 3 - Y * 3], axis=-1).astype(np.uint8)
RGB16 = (RGB8.astype(np.uint16) * 257) ^ 0x55
ALPHA8 = (X * 6 + 5).astype(np.uint8)
ALPHA16 = ALPHA8.astype(np.uint16) * 257


def written(pixels: np.ndarray, photometric: str = "rgb", **options: Any) -> bytes:
    """(H, W) or (H, W, C) as a TIFF by tifffile, planes apart if ``planarconfig`` says so."""
    if options.get("planarconfig") == "separate":
        pixels = np.moveaxis(pixels, -1, 0)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric=photometric, metadata=None, **options)
    return buffer.getvalue()


def read(data: bytes) -> Photo:
    return decode_photo(io.BytesIO(data))


def packed_by_pillow(data: bytes, compression: str) -> bytes:
    """Bytes packed as libtiff packs them: as a picture of one row."""
    buffer = io.BytesIO()
    Image.frombytes("L", (len(data), 1), data).save(buffer, "TIFF", compression=compression)
    with Image.open(buffer) as image:
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        (start,), (length,) = tags[273], tags[279]
    return buffer.getvalue()[start:][:length]


def refusal(data: bytes) -> str:
    with pytest.raises(SkipDiffError) as caught:
        read(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"rowsperstrip": 5}], ids=["", "tiles", "strips"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "deflate", "lzma"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_16_bits_however_they_lie(planes: str, compression: str | None, order: str, layout: Any) -> None:
    options = {"planarconfig": planes, "compression": compression, "byteorder": order, **layout}
    if compression == "deflate":
        options["predictor"] = True
    data = written(RGB16, **options)
    photo = read(data)
    np.testing.assert_array_equal(photo.colour, RGB16)
    assert photo.alpha is None and not photo.notes
    np.testing.assert_array_equal(decode_image(io.BytesIO(data), "x"), np.rint(RGB16 / 257))


@pytest.mark.parametrize("code", [("tiff_lzw", 1), ("tiff_lzw", 2), ("packbits", 1)], ids=str)
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_codes_of_libtiff(dtype: type, apart: bool, code: tuple[str, int]) -> None:
    compression, predictor = code
    pixels = RGB8 if dtype is np.uint8 else RGB16
    blocks = []
    for plane in np.moveaxis(pixels, -1, 0)[..., None] if apart else [pixels]:
        for top in range(0, HEIGHT, 7):
            part = plane[top : top + 7].copy()
            if predictor == 2:
                part[:, 1:] -= plane[top : top + 7, :-1]
            blocks.append(packed_by_pillow(part.astype(part.dtype.newbyteorder("<")).tobytes(), compression))
    tags = {256: exif.longs(WIDTH), 257: exif.longs(HEIGHT), 258: exif.shorts(*[8 * pixels.itemsize] * 3)}
    tags |= {
        259: exif.shorts(5 if compression == "tiff_lzw" else 32773),
        262: exif.shorts(2),
        277: exif.shorts(3),
    }
    tags |= {278: exif.longs(7), 279: exif.longs(*map(len, blocks)), 284: exif.shorts(1 + apart)}
    tags |= {317: exif.shorts(predictor)}
    photo = read(b"".join(exif.build(Directories(tags), blocks)))
    np.testing.assert_array_equal(photo.colour, pixels)


runs = st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=4), st.integers(1, 9000))


@settings(deadline=None)
@given(st.one_of(st.binary(min_size=1, max_size=3000), runs))
def test_unpacking_is_packing_turned_round(data: bytes) -> None:
    for compression, number in (("tiff_lzw", 5), ("packbits", 32773), ("tiff_adobe_deflate", 8)):
        coded = packed_by_pillow(data, compression)
        assert unpacked(coded, number, len(data)) == data
        assert unpacked(coded, number, len(data) // 2) == data[: len(data) // 2]


def test_a_full_lzw_table_is_cleared() -> None:
    """Noise fills it again and again."""
    data = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
    assert unpacked(packed_by_pillow(data, "tiff_lzw"), 5, len(data)) == data


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([1, 5, 8, 32773, 34925]), st.binary(max_size=200), st.integers(1, 5000), st.booleans())
def test_rubbish_gives_an_error_or_as_many_bytes(
    number: int, rubbish: bytes, size: int, cleared: bool
) -> None:
    start = b"\x80" if cleared and number == 5 else b""  # LZW's first code
    try:
        assert len(unpacked(start + rubbish, number, size)) == size
    except (ValueError, zlib.error, lzma.LZMAError) as error:
        assert str(error)


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_however_it_lies(channels: int, dtype: type, planes: str) -> None:
    colour, alpha = (RGB8, ALPHA8) if dtype is np.uint8 else (RGB16, ALPHA16)
    colour = colour[..., :channels]
    both = np.concatenate([colour, alpha[..., None]], axis=-1)
    photometric = "rgb" if channels == 3 else "minisblack"
    photo = read(written(both, photometric, planarconfig=planes, extrasamples=["unassalpha"]))
    np.testing.assert_array_equal(photo.colour, colour)
    np.testing.assert_array_equal(photo.alpha, alpha)
    assert not photo.notes
    # what is neither transparency nor colour does not count
    photo = read(written(both, photometric, planarconfig=planes, extrasamples=["unspecified"]))
    np.testing.assert_array_equal(photo.colour, colour)
    assert photo.alpha is None
    assert photo.notes == ("channels besides colour and transparency are left out: 1",)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_premultiplied_grey_is_divided_again(photometric: str) -> None:
    grey, alpha = RGB16[..., 0], np.maximum(ALPHA16, 9000)
    stored = np.rint(grey * (alpha / 65535)).astype(np.uint16)
    photo = read(written(np.stack([stored, alpha], -1), photometric, extrasamples=["assocalpha"]))
    expected = grey if photometric == "minisblack" else 65535 - grey
    assert np.abs(photo.colour[..., 0].astype(int) - expected).max() <= 4
    np.testing.assert_array_equal(photo.alpha, alpha)


def packed(samples: np.ndarray, bits: int) -> bytes:
    """Rows of unsigned integers of so many bits, each row filled up to a byte, by text."""
    rows = ["".join(f"{int(v):0{bits}b}" for v in row.reshape(-1)) for row in samples]
    return b"".join(int(row + "0" * (-len(row) % 8), 2).to_bytes(-(-len(row) // 8), "big") for row in rows)


def plain_tiff(
    samples: np.ndarray, bits: int, photometric: int, extra: dict[int, tuple[int, Any]] | None = None
) -> bytes:
    """A TIFF of one strip and any number of bits: (H, W, C), or its bytes as they are to be."""
    height, width, channels = samples.shape
    strip = packed(samples, bits) if bits % 8 else samples.tobytes()
    tags = {256: exif.longs(width), 257: exif.longs(height), 258: exif.shorts(*[bits] * channels)}
    tags |= {259: exif.shorts(1), 262: exif.shorts(photometric), 277: exif.shorts(channels)}
    tags |= {278: exif.longs(height), 279: exif.longs(len(strip))}
    tags |= {tag: exif.shorts(*numbers) for tag, numbers in (extra or {}).items()}
    return b"".join(exif.build(Directories(tags), [strip]))


@pytest.mark.parametrize("lengths", [None, [0], [9999999]])
def test_plain_strips_need_no_length(lengths: list[int] | None) -> None:
    tags = {256: exif.longs(WIDTH), 257: exif.longs(HEIGHT), 258: exif.shorts(8, 8, 8), 259: exif.shorts(1)}
    tags |= {262: exif.shorts(2), 277: exif.shorts(3)}
    if lengths:
        tags[279] = exif.longs(*lengths)
    np.testing.assert_array_equal(
        read(b"".join(exif.build(Directories(tags), [RGB8.tobytes()]))).colour, RGB8
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
def test_unusual_depths_end_at_white(bits: int, channels: int) -> None:
    samples = (np.stack([X, Y, X + Y], -1)[..., :channels] * 2**bits // (WIDTH + HEIGHT)).astype(int)
    samples[0, 0], samples[-1, -1] = 0, 2**bits - 1
    photo = read(plain_tiff(samples, bits, 1 if channels == 1 else 2))
    white = 255 if bits <= 8 else 65535
    assert photo.colour.dtype == (np.uint8 if bits <= 8 else np.uint16)
    np.testing.assert_array_equal(photo.colour, np.rint(samples * (white / (2**bits - 1))))


@pytest.mark.parametrize("code", [1, 8], ids=["plain", "deflate"])
def test_bits_may_lie_the_other_way_round(code: int) -> None:
    samples = (X + Y) % 16
    strip = packed(samples, 4)
    strip = zlib.compress(strip) if code == 8 else strip
    mirrored = bytes(int(f"{byte:08b}"[::-1], 2) for byte in strip)
    tags = {256: exif.longs(WIDTH), 257: exif.longs(HEIGHT), 258: exif.shorts(4), 259: exif.shorts(code)}
    tags |= {262: exif.shorts(1), 266: exif.shorts(2), 279: exif.longs(len(strip))}
    photo = read(b"".join(exif.build(Directories(tags), [mirrored])))
    np.testing.assert_array_equal(photo.colour[..., 0], samples * 17)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(bits: int) -> None:
    count = 2**bits
    index = (X * 7 + Y) % count
    colours = np.random.default_rng(0).integers(0, 256, (count, 3))
    wide = (colours * 257).T.reshape(-1).tolist()
    photo = read(plain_tiff(index[..., None].astype(np.uint8), bits, 3, {320: wide}))
    np.testing.assert_array_equal(photo.colour, colours[index])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_with_transparency(dtype: type) -> None:
    ink = np.concatenate([255 - RGB8, np.zeros_like(RGB8[..., :1])], -1)
    scale = 257 if dtype is np.uint16 else 1
    both = np.concatenate([ink, ALPHA8[..., None]], -1).astype(dtype) * dtype(scale)
    photo = read(written(both, "separated", extrasamples=["unassalpha"]))
    np.testing.assert_array_equal(photo.colour, RGB8)
    np.testing.assert_array_equal(photo.alpha, ALPHA8)
    assert photo.notes[0] == "CMYK converted to sRGB without a profile: colours may be off"
    assert ("16 bits reduced to 8" in "".join(photo.notes)) == (dtype is np.uint16)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [8, 9], ids=["CIELab", "ICCLab"])
def test_lab_against_littlecms(photometric: int, bits: int) -> None:
    lab = ImageCms.profileToProfile(
        Image.fromarray(RGB8), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    raw = np.asarray(lab).astype(int)  # a and b in two's complement
    raw[..., 1:] = (raw[..., 1:] + 128) % 256
    if bits == 8:
        signed = raw - [0, 128, 128] if photometric == 8 else raw
        stored = signed.astype(np.int8).view(np.uint8)
    else:
        lightness = raw[..., :1] * (257 if photometric == 8 else 256)
        opponents = (raw[..., 1:] - (128 if photometric == 8 else 0)) * 256
        stored = np.concatenate([lightness, opponents], -1).astype(np.int32).astype(np.uint16)
    photo = read(plain_tiff(stored, bits, photometric))
    assert np.abs(photo.colour.astype(int) - RGB8).mean() < 2
    assert photo.notes[0] == "LAB converted to sRGB"


def test_plain_ycbcr() -> None:
    stored = np.asarray(Image.fromarray(RGB8).convert("YCbCr"))
    photo = read(plain_tiff(stored, 8, 6, {530: (1, 1)}))
    assert np.abs(photo.colour.astype(int) - RGB8).max() <= 3  # rounded twice


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(orientation: int) -> None:
    turned = []
    for compression in ("raw", "jpeg"):
        buffer = io.BytesIO()
        image = Image.fromarray(np.stack([X * 3 + 40, Y * 4 + 30, X + Y + 60], -1).astype(np.uint8))
        image.save(buffer, "TIFF", compression=compression, quality=98, tiffinfo={274: orientation})
        photo = read(buffer.getvalue())
        assert photo.metadata.size == photo.size
        turned.append(photo.colour.astype(int))
    assert np.abs(turned[0] - turned[1]).max() <= 12


@pytest.mark.parametrize("compression", [None, "packbits"])
def test_a_predictor_that_programs_read_in_two_ways_is_refused(compression: str | None) -> None:
    """libtiff ignores it without a code of LZW's or deflate's kind, tifffile does not."""
    buffer = io.BytesIO()
    Image.fromarray(RGB8).save(buffer, "TIFF", compression=compression or "raw", tiffinfo={317: 2})
    with pytest.raises(SkipDiffError, match="predictor 2 with a code for which"):
        read(buffer.getvalue())


def test_first_of_several_pages() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in (RGB16, RGB16[::-1]):
            writer.write(page, photometric="rgb", metadata=None)
    photo = read(buffer.getvalue())
    np.testing.assert_array_equal(photo.colour, RGB16)
    assert photo.notes == ("only the first of 2 frames or pages",)


def test_bigtiff() -> None:
    data = written(RGB16, planarconfig="separate", bigtiff=True, software="Scanner", resolution=(300, 300))
    photo = read(data)
    np.testing.assert_array_equal(photo.colour, RGB16)
    assert photo.metadata.dpi == (300, 300)


REFUSED: dict[str, tuple[bytes, str]] = {
    "float": (written(RGB8.astype(np.float32) / 255), "32-bit float pixels"),
    "half float": (written((RGB8 / 255).astype(np.float16)), "16-bit float pixels"),
    "signed": (written(RGB8.astype(np.int16)), "16-bit signed pixels"),
    "32-bit": (written(RGB8.astype(np.uint32)), "32-bit pixels"),
    "camera raw": (plain_tiff(RGB8, 8, 2, {254: (1,), 330: (8,)}), "a reduced copy"),
    "mosaic": (written(RGB16[..., 0], "cfa"), "colour filter array pixels"),
    "mask": (plain_tiff((X[..., None] % 2).astype(np.uint8), 1, 4), "mask pixels"),
    "inks": (plain_tiff(np.zeros((4, 4, 5), np.uint8), 8, 5, {332: (2,)}), "inks other than CMYK"),
    "subsampled": (plain_tiff(RGB8, 8, 6, {530: (2, 2)}), "subsampled YCbCr"),
    "depths": (
        plain_tiff(RGB8, 8, 2).replace(b"\x08\0\x08\0\x08\0", b"\x08\0\x06\0\x08\0"), "of 6 and 8 bits",
    ),
    "no palette": (plain_tiff(RGB8[..., :1], 8, 3), "no palette"),
    "volume": (written(np.zeros((3, 16, 16), np.uint8), "minisblack", volumetric=True, tile=(1, 16, 16)), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_layouts_are_refused_by_name(name: str, tmp_path: Path) -> None:
    data, layout = REFUSED[name]
    if name == "volume":
        assert "dimensions" in refusal(data)
        return
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(SkipDiffError, match=f"is a TIFF (with|that) .*{layout}"):
        read_header(tmp_path / "a.tif")  # before anything is decoded: a dry run says so, too
    assert "damaged" not in refusal(data)
    with pytest.raises(SkipDiffError, match=layout):
        decode_image(io.BytesIO(data), "x")


def test_sources_read_planes_too(tmp_path: Path) -> None:
    data = written(RGB16, planarconfig="separate", compression="deflate")
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(open_source(tmp_path)[0], np.rint(RGB16 / 257))


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_what_is_cut_off_is_no_picture(compression: str | None, keep: float) -> None:
    data = written(RGB16, planarconfig="separate", compression=compression, rowsperstrip=5)
    assert "damaged or truncated" in refusal(data[: round(keep * len(data))])


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_we_write_tifffile_reads(channels: int, dtype: type, alpha: bool) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, np.iinfo(dtype).max, (900, 700, channels), dtype, endpoint=True)
    plane = colour[..., 0] // 2 if alpha else None
    data = encode_tiff(Photo(colour, plane), Directories())
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page: Any = tiff.pages[0]
        assert len(page.dataoffsets) > 1 or dtype is np.uint8
        found = page.asarray().reshape(900, 700, -1)
        assert page.extrasamples == ((2,) if alpha else ())
    np.testing.assert_array_equal(found[..., :channels], colour)
    if plane is not None:
        np.testing.assert_array_equal(found[..., channels], plane)
    if dtype is np.uint8:
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(np.asarray(image).reshape(900, 700, -1), found)
