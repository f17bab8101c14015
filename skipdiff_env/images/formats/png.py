"""Reads and writes PNG chunk by chunk, where Pillow is too strict or lacks a feature.

Pillow and OpenCV are given only the chunks of the pixels. A text of several megabytes, or a damaged chunk
that is not needed, therefore does no harm, and transparency and colour follow the standard (third edition).
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image

from ...errors import SkipDiffError
from ..raster import DamagedError, Photo, Source, from_pillow, full_range, with_profile
from . import exif, icc, iptc
from .exif import Directories
from .profiles import profile_fits

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_XMP_KEY = "XML:com.adobe.xmp"
_ROOM = 2**27
"""Maximum number of bytes of a file's texts and profile, unpacked; any further ones are left out."""
_PIXELS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_PALETTE = 3
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Number of samples per pixel by colour type."""
_ADAM7 = [
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
]  # fmt: skip
"""First row, first column, row step and column step of each pass of an interlaced file."""
_MOST_IN_CHUNK = 2**30
_AT_ONCE = 2**22
"""Number of bytes that are unpacked at once if only their total number is needed."""


@dataclass
class _Chunks:
    """The parts of a PNG file."""

    head: bytes = b""
    """IHDR's 13 bytes."""
    first: dict[bytes, bytes] = field(default_factory=dict)
    """Content of the first intact chunk of each name, except those of the pixels."""
    texts: dict[str, str] = field(default_factory=dict)
    pixels: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of each chunk that makes up the pixels."""
    palette: int = 0
    """Size in bytes of the palette before the pixels."""
    profile: bytes = b""
    room: int = _ROOM
    """Number of bytes to which further texts and the profile may still unpack."""
    is_apart: bool = False
    """Whether the pixels are not a frame of the animation, if there is one."""
    oversized: bool = False
    """Whether a text or profile was too large and is left out."""

    @property
    def size(self) -> tuple[int, int]:
        width, height = struct.unpack_from(">II", self.head)
        return width, height

    @property
    def depth(self) -> int:
        return self.head[8]

    @property
    def kind(self) -> int:
        """Colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
        return self.head[9]

    @property
    def grey(self) -> bool:
        return self.kind in (0, 4)


def open_png(file: BinaryIO) -> Source:
    """Read everything in an opened PNG file except its pixels.

    Raises:
        SkipDiffError: if it has no header.
    """
    chunks = _read_chunks(file)
    if len(chunks.head) != 13:
        raise DamagedError("no PNG header")

    def decode() -> Photo:
        photo = _coloured(_pixels(chunks, _pixel_file(file, chunks)), chunks)
        notes = ["texts or a profile beyond 128 MiB in total are left out"] if chunks.oversized else []
        return photo.noting(*notes, *_about_frames(chunks))

    packet = chunks.texts.get(_XMP_KEY, "").encode(errors="surrogateescape")
    packet = packet or iptc.as_xmp(_raw_profile(chunks, "iptc"))
    found = exif.parse(_exif_block(chunks))
    return Source("png", chunks.size, decode, found, packet, chunks.texts, _density(chunks))


def _about_frames(chunks: _Chunks) -> list[str]:
    """Return notes on what is lost of an animation."""
    count = int.from_bytes(chunks.first.get(b"acTL", b"")[:4], "big")
    if count and chunks.is_apart:
        return [f"only the still picture, not its {count} frame{'s' * (count != 1)}"]
    return [f"only the first of {count} frames or pages"] if count > 1 else []


def _read_chunks(file: BinaryIO) -> _Chunks:
    chunks = _Chunks()
    file.seek(0, 2)
    end, has_pixels = file.tell(), False
    for name, start, length in _walk(file, end):
        palette = chunks.head[9:10] == bytes([_PALETTE])
        if name in (b"IHDR", b"IDAT") or (palette and name in (b"PLTE", b"tRNS")):
            chunks.pixels.append((start, length + 12))
        if name == b"IHDR":
            file.seek(start + 8)
            chunks.head = chunks.head or file.read(length)
        elif name == b"PLTE" and not has_pixels:
            chunks.palette = chunks.palette or length
        elif name == b"IDAT":
            chunks.is_apart = chunks.is_apart or not (has_pixels or b"fcTL" in chunks.first)
            has_pixels = True
        elif name not in _PIXELS | {b"fdAT"}:
            file.seek(start + 4)
            body = file.read(4 + length)
            if file.read(4) == zlib.crc32(body).to_bytes(4, "big"):
                _keep(chunks, name, body[4:])
    return chunks


def _walk(file: BinaryIO, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, offset and body length of every chunk up to IEND; the last may be cut off."""
    place = len(SIGNATURE)
    while place + 8 <= end:
        file.seek(place)
        length, name = struct.unpack(">I4s", file.read(8))
        yield name, place, length
        if name == b"IEND":
            return
        place += length + 12


def _keep(chunks: _Chunks, name: bytes, body: bytes) -> None:
    chunks.first.setdefault(name, body)
    try:
        if name == b"iCCP":
            chunks.profile = chunks.profile or _unpacked(chunks, body.split(b"\0", 1)[1][1:])
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            key, text = _text(chunks, name, body)
            chunks.texts.setdefault(key, text)
    except (zlib.error, ValueError, IndexError):  # damage, which is no reason to refuse the picture
        return
    except OverflowError:
        chunks.oversized = True


def _text(chunks: _Chunks, name: bytes, body: bytes) -> tuple[str, str]:
    """Return keyword and text of a text chunk."""
    key, rest = body.split(b"\0", 1)
    if name == b"tEXt":
        return key.decode("latin-1"), rest.decode("latin-1")
    if name == b"zTXt":
        return key.decode("latin-1"), _unpacked(chunks, rest[1:]).decode("latin-1")
    packed = rest[:1] == b"\1"
    _language, _translated, rest = rest[2:].split(b"\0", 2)
    word = key.decode("latin-1")
    errors = "surrogateescape" if word == _XMP_KEY else "strict"  # it may be in UTF-16, against the standard
    return word, (_unpacked(chunks, rest) if packed else rest).decode(errors=errors)


def _unpacked(chunks: _Chunks, data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    found = inflater.decompress(data, chunks.room + 1)
    if len(found) > chunks.room:
        raise OverflowError
    if not inflater.eof:
        raise ValueError("ends too early")
    chunks.room -= len(found)
    return found


def _exif_block(chunks: _Chunks) -> bytes:
    if b"eXIf" in chunks.first:
        return chunks.first[b"eXIf"]
    return _raw_profile(chunks, "exif") or _raw_profile(chunks, "APP1")


def _raw_profile(chunks: _Chunks, name: str) -> bytes:
    """Read a block that ImageMagick stores in a text, as hexadecimal after three lines; empty if none."""
    with contextlib.suppress(ValueError):
        return bytes.fromhex("".join(chunks.texts.get(f"Raw profile type {name}", "").split("\n")[3:]))
    return b""


def _density(chunks: _Chunks) -> tuple[float, ...]:
    """Return the dots per inch across and down."""
    body = chunks.first.get(b"pHYs", b"")
    if len(body) != 9 or body[8] != 1:  # dots per metre
        return ()
    return tuple(number * 0.0254 for number in struct.unpack_from(">II", body))


def _pixel_file(file: BinaryIO, chunks: _Chunks) -> bytes:
    """Make a PNG file of only the chunks of the pixels, with an end of its own."""
    parts = [SIGNATURE]
    for start, length in chunks.pixels:
        file.seek(start)
        parts.append(file.read(length))
        if len(parts[-1]) < length:
            raise DamagedError("it ends too early")
    return b"".join([*parts, _chunk(b"IEND", b"")])


def _pixels(chunks: _Chunks, data: bytes) -> Photo:
    if chunks.kind == _PALETTE and (not 0 < chunks.palette <= 3 * 256 or chunks.palette % 3):
        what = f"a palette of {chunks.palette} bytes" if chunks.palette else "no palette before its pixels"
        raise DamagedError(f"it has {what}")
    if not _has_all_rows(data, chunks):  # Pillow leaves rows that are missing black
        raise DamagedError("rows are missing")
    with Image.open(BytesIO(data), formats=["PNG"]) as image:
        image.load()  # at 16 bits, too, since OpenCV does not detect damage
        photo = from_pillow(image)
    if chunks.depth == 16 and chunks.kind != 0:
        photo = _deep(data, chunks)
    key = chunks.first.get(b"tRNS", b"")
    if chunks.kind in (0, 2) and len(key) == (2, 0, 6)[chunks.kind]:
        photo = replace(photo, alpha=_keyed(photo.colour, key, chunks.depth))
    return photo


def _deep(data: bytes, chunks: _Chunks) -> Photo:
    """Decode intact 16-bit colour with OpenCV, which prints errors for damage; Pillow gives only 8 bits."""
    import cv2

    intact = _checksums_hold(data) and _has_all_rows(data, chunks, nothing_more=True)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if intact else None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[1::-1] != chunks.size:
        raise DamagedError("16-bit PNG")
    alpha = np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] == 4 else None
    return Photo(np.ascontiguousarray(pixels[..., :1] if chunks.grey else pixels[..., 2::-1]), alpha)


def _checksums_hold(data: bytes) -> bool:
    """Return whether every chunk is complete and agrees with its checksum."""
    for _, start, length in _walk(BytesIO(data), len(data)):
        whole = memoryview(data)[start + 4 : start + 12 + length]
        if len(whole) != length + 8 or zlib.crc32(whole[:-4]) != int.from_bytes(whole[-4:], "big"):
            return False
    return True


def _has_all_rows(data: bytes, chunks: _Chunks, nothing_more: bool = False) -> bool:
    """Return whether the data unpack to all bytes of the pixels (with ``nothing_more``: exactly)."""
    inflater, found = zlib.decompressobj(), 0
    with contextlib.suppress(zlib.error):
        for name, start, length in _walk(BytesIO(data), len(data)):
            rest: bytes | memoryview = (
                memoryview(data)[start + 8 : start + 8 + length] if name == b"IDAT" else b""
            )
            while rest and not inflater.eof:
                found += len(inflater.decompress(rest, _AT_ONCE))
                rest = inflater.unconsumed_tail
    if nothing_more:
        return found == _packed_size(chunks) and inflater.eof and not inflater.unused_data
    return found >= _packed_size(chunks)


def _packed_size(chunks: _Chunks) -> int:
    """Return the size of all rows, with their filter bytes, in seven passes if the file is interlaced."""
    width, height = chunks.size
    bits = chunks.depth * _SAMPLES.get(chunks.kind, 1)
    total = 0
    for top, left, down, right in _ADAM7 if chunks.head[12] else [(0, 0, 1, 1)]:
        rows, columns = -(-(height - top) // down), -(-(width - left) // right)
        if rows > 0 and columns > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _keyed(colour: np.ndarray, key: bytes, depth: int) -> np.ndarray:
    """Return the alpha of pixels if one colour, given in the file's own depth, is transparent."""
    white = np.iinfo(colour.dtype).max
    top = 2**depth - 1
    hidden = (np.frombuffer(key, ">u2").astype(int) & top) * white // top
    return np.where((colour == hidden).all(axis=-1), 0, white).astype(colour.dtype)


def _coloured(photo: Photo, chunks: _Chunks) -> Photo:
    """Return the photograph with its colour space: from cICP, a fitting profile, sRGB, or gAMA and cHRM."""
    codes = chunks.first.get(b"cICP", b"")
    grey = photo.mode == "L"
    if len(codes) == 4:
        if icc.is_limited(codes):
            photo = replace(photo, colour=full_range(photo.colour))
            photo = photo.noting("its values were of limited range and have been spread to the full range")
            codes = codes[:3] + b"\1"
        if icc.is_srgb(codes):
            return photo
        if not icc.is_open(codes):
            profile = icc.from_code_points(codes, grey, *_gamma(chunks))
            if profile is None and profile_fits(chunks.profile, photo.mode):
                profile = chunks.profile
            return replace(photo, profile=profile, code_points=codes)
    if b"iCCP" in chunks.first:
        photo = with_profile(photo, chunks.profile or b"damaged")
        if photo.profile:
            return photo
    if b"sRGB" in chunks.first:
        return photo
    return replace(photo, profile=icc.from_gamma(*_gamma(chunks), grey))


def _gamma(chunks: _Chunks) -> tuple[float | None, icc.Primaries | None]:
    """Return the encoding gamma and the chromaticities that a file states."""
    gamma = int.from_bytes(chunks.first.get(b"gAMA", b"")[:4], "big") / 1e5 or None
    body = chunks.first.get(b"cHRM", b"")
    if len(body) != 32:
        return gamma, None
    numbers = [number / 1e5 for number in struct.unpack(">8I", body)]
    white, red, green, blue = zip(numbers[::2], numbers[1::2], strict=True)
    return gamma, icc.Primaries(white, red, green, blue)


def encode_png(photo: Photo, found: Directories, software: str) -> bytes:
    """Encode a PNG file; ``found`` is its EXIF."""
    coded = BytesIO()
    if photo.deep:
        coded.write(_coded_deep(photo))
    else:
        photo.pillow().save(coded, "PNG")
    data = coded.getbuffer()
    pixels = [data[at : at + length + 12] for name, at, length in _walk(coded, len(data)) if name in _PIXELS]
    metadata = photo.metadata
    chunks = []
    if photo.code_points:
        chunks.append(_chunk(b"cICP", photo.code_points))
    if photo.profile:
        chunks.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(photo.profile)))
    if metadata.dpi:
        a_metre = (round(number / 0.0254) for number in metadata.dpi)
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *a_metre, 1)))
    chunks.append(_chunk(b"eXIf", b"".join(exif.build(found))))
    texts = {**metadata.texts, "Software": software}
    if metadata.xmp:
        texts[_XMP_KEY] = metadata.xmp.decode("utf-8", "replace")
    chunks += [
        _chunk(b"iTXt", key.encode("latin-1") + b"\0" * 5 + text.encode()) for key, text in texts.items()
    ]
    return b"".join([SIGNATURE, pixels[0], *chunks, *pixels[1:]])


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _coded_deep(photo: Photo) -> bytes:
    """Encode the pixels at 16 bits with OpenCV, since Pillow cannot."""
    import cv2

    pixels = photo.planes()
    if pixels.shape[2] == 2:
        return _coded_grey_alpha(pixels)
    order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.shape[2] > 1 else [0]
    good, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., order]))
    if not good:
        raise SkipDiffError("cannot be encoded at 16 bits: use another --format")
    return data.tobytes()


def _coded_grey_alpha(pixels: np.ndarray) -> bytes:
    """Encode uint16 (H, W, 2), which OpenCV cannot; each row is the difference from the one above."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2", order="C").view(np.uint8).reshape(height, -1)
    filtered = np.full((height, 1 + rows.shape[1]), 2, np.uint8)  # number of the filter, then the bytes
    filtered[:, 1:] = rows
    filtered[1:, 1:] -= rows[:-1]
    packed = zlib.compress(filtered.tobytes())
    parts = [packed[place : place + _MOST_IN_CHUNK] for place in range(0, len(packed), _MOST_IN_CHUNK)]
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0))
    return b"".join([SIGNATURE, head, *(_chunk(b"IDAT", part) for part in parts), _chunk(b"IEND", b"")])
