"""Files of every format and mode, made in memory, and the pixels that are in them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

from skipdiff_env.images.photo import decode_photo
from skipdiff_env.images.raster import Photo


def scene(height: int = 10, width: int = 14) -> np.ndarray:
    """Smooth, with a colour of its own in each corner; float (H, W, 3) in 0 … 1."""
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x / (width - 1), y / (height - 1)
    return np.stack([0.1 + 0.8 * x, 0.9 - 0.7 * y, 0.3 + 0.4 * x * y], axis=-1)


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


def decoded(*chunks: bytes, pixels: np.ndarray = RGB8) -> Photo:
    """A PNG with these chunks before its pixels, read."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    return decode_photo(io.BytesIO(png(pixels, kind, *chunks)))


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
    "png LA 16": (lambda: png(with_alpha(GREY16, ALPHA16), 4), GREY16, ALPHA16, 0),
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
