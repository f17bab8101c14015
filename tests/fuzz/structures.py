"""PNG, JPEG, TIFF and WebP files in the structures that they may have, and what damages them."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import tifffile
from hypothesis import strategies as st
from PIL import Image

from tests.images.photo_files import chunk

from . import metadata


@dataclass(frozen=True)
class Made:
    """A generated file."""

    data: bytes
    suffix: str
    pixels: np.ndarray | None = field(default=None, repr=False)
    """Float (H, W, 3) in 0 … 1, upright, as another decoder than ours has them; None if nobody can say."""


SIDES = st.sampled_from([9, *range(4, 21), 1])


@st.composite
def _samples(draw: st.DrawFn, channels: int, white: int) -> np.ndarray:
    """Integers (H, W, channels) from 0 to white: a gradient with a little noise. Most are opaque."""
    height, width = draw(SIDES), draw(SIDES)
    y, x = np.mgrid[:height, :width] / max(height, width)
    noise = np.random.default_rng(draw(st.integers(0, 999))).uniform(0, 0.05, (height, width, channels))
    planes = np.stack([0.1 + 0.7 * x, 0.9 - 0.7 * y, 0.3 + 0.4 * x * y, 0.8 - 0.5 * x], axis=-1)
    samples = np.rint((planes[..., :channels] + noise).clip(0, 1) * white).astype(int)
    if channels in (2, 4) and draw(st.integers(0, 3)):
        samples[..., -1] = white
    return samples


def _turned(pixels: np.ndarray | None, orientation: int | None) -> np.ndarray | None:
    """What EXIF's orientation makes of a picture, by its table (TIFF 6.0, section 8), if both are known."""
    if pixels is None or orientation is None:
        return None
    turns = {
        1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud,
        5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(p.swapaxes(0, 1), 2), 8: np.rot90,
    }  # fmt: skip
    return np.array(turns[orientation](pixels), float)


def _rgb(samples: np.ndarray, white: int) -> np.ndarray | None:
    """Grey or RGB as floats (H, W, 3); None if something shines through, where colours are made up."""
    if samples.shape[2] in (2, 4) and (samples[..., -1] < white).any():
        return None
    colour = samples[..., :3] if samples.shape[2] >= 3 else samples[..., :1]
    return np.broadcast_to(colour / white, (*samples.shape[:2], 3))


def _by_opencv(data: bytes) -> np.ndarray:
    """Pixels as they lie."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)[..., ::-1] / 255.0


@st.composite
def _exif(draw: st.DrawFn) -> tuple[bytes, int | None]:
    """An EXIF block and its orientation, of which a wild one has none that is known."""
    if draw(st.integers(0, 2)) == 0:
        return draw(metadata.wild_exif()), None
    orientation = draw(st.integers(1, 8))
    return metadata.exif(orientation, draw(metadata.WORDS), draw(st.sampled_from("<>"))), orientation


@st.composite
def png(draw: st.DrawFn) -> Made:
    """Every colour type and depth, filters, several IDATs, other chunks in between."""
    colour, channels = draw(st.sampled_from([(0, 1), (2, 3), (3, 1), (4, 2), (6, 4)]))
    depth = draw(st.sampled_from({0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(colour, (8, 16))))
    white = 2**depth - 1
    samples = draw(_samples(channels, white))
    pixels = _rgb(samples, white)
    before = []
    if colour == 3:
        table = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (white + 1, 3))
        before.append(chunk(b"PLTE", table.astype(np.uint8).tobytes()))
        pixels = table[samples[..., 0]] / 255
    extra = draw(st.lists(metadata.CHUNKS, max_size=4))
    orientation: int | None = 1
    if any(name == b"eXIf" or b"xif" in body or b"XML" in body or b"APP1" in body for name, body in extra):
        orientation = None
    elif draw(st.booleans()):
        block, orientation = draw(_exif())
        extra.append((b"eXIf", block))
    packed = zlib.compress(b"".join(_filtered(row, depth, draw(st.integers(0, 1))) for row in samples))
    cut = draw(st.integers(0, len(packed)))
    parts = [chunk(b"IDAT", packed[:cut]), chunk(b"IDAT", packed[cut:])]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour, 0, 0, 0))
    others = [chunk(*pair) for pair in extra]
    split = draw(st.integers(0, len(others)))
    data = b"".join([b"\x89PNG\r\n\x1a\n", head, *others[:split], *before, *parts, *others[split:]])
    return Made(data + chunk(b"IEND", b""), ".png", _turned(pixels, orientation))


def _filtered(row: np.ndarray, depth: int, kind: int) -> bytes:
    """A row of a PNG by the filter None or Sub."""
    flat = row.reshape(-1)
    if depth == 16:
        raw = flat.astype(">u2").tobytes()
    else:
        bits = (flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1
        raw = np.packbits(bits.reshape(-1).astype(np.uint8)).tobytes()
    if kind == 0:
        return b"\0" + raw
    step = max(1, depth * row.shape[-1] // 8)
    values = np.frombuffer(raw, np.uint8)
    left = np.concatenate([np.zeros(step, np.uint8), values])[: len(values)]
    return b"\1" + (values - left).tobytes()


@st.composite
def jpeg(draw: st.DrawFn) -> Made:
    """Baseline and progressive, grey, YCbCr and CMYK, with segments of several kinds."""
    channels = draw(st.sampled_from([1, 3, 4]))
    samples = draw(_samples(channels, 255)).astype(np.uint8)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
    options: dict[str, Any] = {
        "quality": draw(st.integers(60, 100)), "progressive": draw(st.booleans()),
        "subsampling": draw(st.integers(0, 2)), "dpi": (draw(st.integers(0, 65535)), 72),
    }  # fmt: skip
    if draw(st.integers(0, 3)) == 0:
        options["restart_marker_blocks"] = draw(st.integers(1, 4))
    return draw(_with_baggage(Image.frombytes(mode, samples.shape[1::-1], samples.tobytes()), options))


@st.composite
def webp(draw: st.DrawFn) -> Made:
    """Lossy and lossless, opaque."""
    samples = draw(_samples(draw(st.sampled_from([3, 4])), 255)).astype(np.uint8)
    options = {"lossless": draw(st.booleans()), "quality": draw(st.integers(60, 100)), "exact": True}
    return draw(_with_baggage(Image.fromarray(samples), options))


@st.composite
def _with_baggage(draw: st.DrawFn, image: Image.Image, options: dict[str, Any]) -> Made:
    """A JPEG or WebP as Pillow writes it."""
    name, suffix = (
        ("WEBP", ".webp") if "lossless" in options else ("JPEG", draw(st.sampled_from([".jpg", ".jpeg"])))
    )
    orientation: int | None = 1
    if draw(st.booleans()):
        block, orientation = draw(_exif())
        options["exif"] = b"Exif\0\0" + block
    if draw(st.integers(0, 2)) == 0:
        options["xmp"] = draw(metadata.xmp())
    if draw(st.integers(0, 2)) == 0:
        options["icc_profile"] = draw(metadata.PROFILES)
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    data = buffer.getvalue()
    opaque = image.mode != "CMYK" and (image.mode != "RGBA" or image.getextrema()[3][0] == 255)
    return Made(data, suffix, _turned(_by_opencv(data) if opaque else None, orientation))


@st.composite
def tiff(draw: st.DrawFn) -> Made:
    """Strips and tiles, planes together and apart, both orders, BigTIFF, pages, all sorts of numbers."""
    dtype = draw(st.sampled_from(["u1", "u2", "u1", "u2", "i2", "f4", "?", "u4"]))
    channels = 1 if dtype == "?" else draw(st.sampled_from([1, 3, 4]))
    white = {"u1": 255, "u2": 65535, "i2": 32767, "u4": 2**32 - 1}.get(dtype, 1)
    samples = draw(_samples(channels, white)).astype(dtype)
    apart = channels > 1 and draw(st.booleans())
    options: dict[str, Any] = {
        "photometric": draw(st.sampled_from(["minisblack", "miniswhite"])) if channels == 1 else "rgb",
        "planarconfig": ("separate" if apart else "contig") if channels > 1 else None,
        "metadata": None, "software": False, "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
    }  # fmt: skip
    if channels == 4:
        options["extrasamples"] = ["unassalpha"]
    if dtype != "?":
        options["compression"] = draw(st.sampled_from([None, "zlib", "lzma"]))
    if draw(st.booleans()):
        options["tile"] = (16, draw(st.sampled_from([16, 32])))
    else:
        options["rowsperstrip"] = draw(st.integers(1, 20))
    orientation = draw(st.integers(1, 8))
    extra = [(274, 3, 1, orientation, True)]
    if draw(st.integers(0, 2)) == 0:
        packet = draw(metadata.xmp()) or b" "
        extra.append((700, 1, len(packet), packet, True))
    if draw(st.integers(0, 2)) == 0:
        profile = draw(metadata.PROFILES)
        extra.append((34675, 7, len(profile), profile, True))
    planes = samples.transpose(2, 0, 1) if apart else samples.squeeze(2) if channels == 1 else samples
    buffer = io.BytesIO()
    with tifffile.TiffWriter(
        buffer, bigtiff=options.pop("bigtiff"), byteorder=options.pop("byteorder")
    ) as file:
        for _ in range(draw(st.integers(1, 2))):
            file.write(np.ascontiguousarray(planes), extratags=extra, **options)
    data = buffer.getvalue()
    suffix = draw(st.sampled_from([".tif", ".tiff"]))
    if dtype in ("i2", "f4", "u4"):
        return Made(data, suffix)  # which do not say what white is
    read = tifffile.imread(io.BytesIO(data), key=0).astype(float).reshape(planes.shape)
    read = read.transpose(1, 2, 0) if apart else read.reshape(samples.shape)
    pixels = _rgb(white - read if options["photometric"] == "miniswhite" else read, white)
    return Made(data, suffix, _turned(pixels, orientation))


@st.composite
def libtiff(draw: st.DrawFn) -> Made:
    """TIFF as Pillow and its libtiff write it: more codes, palettes, CMYK, Lab."""
    mode, channels = draw(
        st.sampled_from([("1", 1), ("L", 1), ("P", 1), ("RGB", 3), ("RGBA", 4), ("CMYK", 4), ("LAB", 3)])
    )
    samples = draw(_samples(channels, 255)).astype(np.uint8)
    image = Image.frombytes("L" if mode == "1" else mode, samples.shape[1::-1], samples.tobytes())
    pixels = _rgb(samples, 255) if mode in ("L", "RGB", "RGBA") else None
    if mode == "P":
        table = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (256, 3))
        image.putpalette(table.astype(np.uint8).tobytes())
        pixels = table[samples[..., 0]] / 255
    codes = ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate"]
    if mode == "1":
        image, codes = image.convert("1"), [*codes, "group3", "group4", "tiff_ccitt"]
        pixels = _rgb(np.array(image, np.uint8)[..., None], 1)
    elif mode in ("L", "RGB"):
        codes.append("jpeg")
    code = draw(st.sampled_from(codes))
    tags: dict[int, Any] = {274: draw(st.integers(1, 8))}
    if code == "group3":
        tags[292] = draw(st.integers(0, 1))  # whether rows refer to those above them
    if code in ("tiff_lzw", "tiff_adobe_deflate") and mode in ("L", "RGB", "RGBA"):
        tags[317] = draw(st.integers(1, 2))
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression=code, tiffinfo=tags)
    known = None if pixels is None or code == "jpeg" else _turned(pixels, tags[274])
    return Made(buffer.getvalue(), ".tif", known)


def _tags(data: bytes) -> tuple[str, list[int]]:
    """Order of a TIFF's bytes, and where the entries of its first directory lie; none if it is a BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return order, []
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    return order, [start + 2 + 12 * number for number in range(count)]


@st.composite
def retagged(draw: st.DrawFn, made: Made) -> Made:
    """The same with other values, types, counts or numbers in some tags."""
    data = bytearray(made.data)
    order, places = _tags(made.data)
    small = st.integers(0, 40)
    for place in draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)) if places else []:
        how = draw(st.sampled_from(["value", "value", "value", "type", "count", "tag"]))
        if how == "value":
            code = "H" if struct.unpack_from(order + "H", data, place + 2) == (3,) else "I"
            value = draw(st.one_of(small, small, st.sampled_from([255, 32773, 32946, 34925, 65535])))
            struct.pack_into(order + code, data, place + 8, value)
        elif how == "type":
            struct.pack_into(order + "H", data, place + 2, draw(st.integers(0, 18)))
        elif how == "count":
            struct.pack_into(order + "I", data, place + 4, draw(st.one_of(small, st.just(2**32 - 1))))
        else:
            struct.pack_into(
                order + "H", data, place, draw(st.sampled_from([254, 266, 320, 330, 332, 529, 530, 32997]))
            )
    return Made(bytes(data), made.suffix)


@st.composite
def damaged(draw: st.DrawFn, made: Made) -> Made:
    """The same with bits flipped, bytes overwritten, parts cut off, left out or repeated."""
    data = bytearray(made.data)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        near = draw(st.booleans())  # headers matter more than pixels
        place = draw(st.integers(0, min(len(data), 128 if near else 2**31) - 1))
        length = draw(st.integers(1, 64))
        how = draw(st.integers(0, 4))
        if how == 0:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif how == 1:
            data[place : place + 4] = draw(
                st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x01"])
            )
        elif how == 2:
            del data[place + length if near else place :]
        elif how == 3:
            del data[place : place + length]
        else:
            data[place:place] = data[place : place + length] * draw(st.integers(1, 3))
    whole = bytes(data)
    return Made(_with_checksums(whole) if draw(st.booleans()) else whole, made.suffix)


def _with_checksums(data: bytes) -> bytes:
    """The same with right checksums, if it is a PNG, so that its damage is looked at."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    parts, place = [data[:8]], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        parts.append(chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += length + 12
    return b"".join(parts) + data[place:]


_TIFFS = st.one_of(tiff(), libtiff())
WHOLE = st.one_of(png(), jpeg(), _TIFFS, webp())
_NO_IMAGES = st.binary(max_size=60).map(lambda data: Made(data, ".png"))
_KINDS = [WHOLE] * 7 + [WHOLE.flatmap(damaged)] * 4 + [_TIFFS.flatmap(retagged)] * 2 + [_NO_IMAGES]
FILES = st.sampled_from(_KINDS).flatmap(lambda kind: kind)
"""Files as a folder may hold them: half of them whole."""
