"""EXIF as bytes: what goes in comes out, in every alphabet and format; what counts pixels is turned."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.images.formats import exif
from skipdiff_env.images.formats.exif import Directories, Value
from skipdiff_env.images.formats.metadata import AREAS, DENSITIES, HISTORY
from skipdiff_env.images.photo import FORMATS, decode_photo
from skipdiff_env.images.photo_file import encode_photo
from skipdiff_env.images.raster import Photo

AUTHOR, COPYRIGHT, XP_TITLE, COMMENT, LENS = 315, 33432, 40091, 37510, 42036
PIXELS = np.full((24, 40, 3), 128, np.uint8)

BYTES = {
    AUTHOR: Value(2, "© Zoë Müller, 京都".encode() + b"\0"),
    COPYRIGHT: Value(2, b"photographer \xa9\0editor \xf6\0"),  # Latin-1, in EXIF's two parts
    XP_TITLE: Value(1, "Straße 京".encode("utf-16-le") + b"\0\0"),
}
INNER = {
    COMMENT: Value(7, b"UNICODE\0" + "東京".encode("utf-16-be")),
    LENS: Value(129, "Объектив 50 мм\0".encode()),  # EXIF 3's UTF-8
    HISTORY: Value(2, b"earlier\0"),
    33434: Value(5, struct.pack("<II", 1, 250)),
    37380: Value(10, struct.pack("<ii", -1, 3)),
}

values = st.one_of(
    st.binary(min_size=1, max_size=9).map(lambda data: Value(7, data)),
    st.binary(min_size=1, max_size=9).map(lambda data: Value(2, data + b"\0")),
    st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=4).map(lambda n: exif.shorts(*n)),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3).map(lambda n: exif.longs(*n)),
    st.lists(st.floats(width=64), min_size=1, max_size=2).map(
        lambda n: Value(12, struct.pack(f"<{len(n)}d", *n))
    ),
    st.lists(st.floats(width=32), min_size=1, max_size=2).map(
        lambda n: Value(11, struct.pack(f"<{len(n)}f", *n))
    ),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2).map(
        lambda n: Value(10, struct.pack("<2i", *n))
    ),
)
POINTERS = {exif.EXIF_IFD, exif.GPS_IFD, exif.INTEROP_IFD, exif.STRIP_OFFSETS}
tags = st.dictionaries(st.integers(1, 65535).filter(lambda tag: tag not in POINTERS), values, max_size=5)
directories = st.builds(Directories, tags, tags, tags)


def by_the_book(found: Directories, order: str, big: bool) -> bytes:
    """An EXIF block or TIFF file in either byte order, also a BigTIFF."""
    offset, room, count = ("Q", 8, "Q") if big else ("I", 4, "H")
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 129: 1}
    body = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42))
    body += struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)

    def directory(entries: dict[int, Value]) -> int:
        start = len(body)
        body.extend(bytes(struct.calcsize(order + count) + len(entries) * (4 + 2 * room) + room))
        struct.pack_into(order + count, body, start, len(entries))
        for i, (tag, (kind, data)) in enumerate(sorted(entries.items())):
            size = sizes[kind]
            swapped = (
                data
                if order == "<"
                else b"".join(data[n : n + size][::-1] for n in range(0, len(data), size))
            )
            values = len(data) // (size * (2 if kind in (5, 10) else 1))
            place = start + struct.calcsize(order + count) + i * (4 + 2 * room)
            struct.pack_into(order + "HH" + offset, body, place, tag, kind, values)
            if len(data) <= room:
                body[place + 4 + room : place + 4 + room + len(data)] = swapped
            else:
                struct.pack_into(order + offset, body, place + 4 + room, len(body))
                body.extend(swapped)
        return start

    first = {**found.base}
    for tag, entries in ((exif.EXIF_IFD, found.exif), (exif.GPS_IFD, found.gps)):
        if entries:
            first[tag] = exif.longs(0)
    start = directory(first)
    for tag, entries in ((exif.EXIF_IFD, found.exif), (exif.GPS_IFD, found.gps)):
        if entries:
            place = start + struct.calcsize(order + count) + sorted(first).index(tag) * (4 + 2 * room)
            struct.pack_into(order + "I", body, place + 4 + room, directory(dict(entries)))
    return bytes(body)


@settings(deadline=None)
@given(directories, st.sampled_from("<>"), st.booleans())
def test_reading_is_writing_turned_round(found: Directories, order: str, big: bool) -> None:
    written = b"".join(exif.build(found))
    assert exif.parse(b"Exif\0\0" + written)[:3] == found[:3]
    assert exif.parse(by_the_book(found, order, big))[:3] == found[:3]


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=80), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]), directories, st.data()
)
def test_damage_costs_what_is_damaged(
    noise: bytes, start: bytes, found: Directories, data: st.DataObject
) -> None:
    exif.parse(start + noise)
    whole = bytearray(b"".join(exif.build(found)))
    for _ in range(3):
        whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read = exif.parse(bytes(whole[: data.draw(st.integers(8, len(whole)))]))
    assert sum(len(value.data) for directory in read for value in directory.values()) <= 4 * len(whole)
    classic = tuple({tag: v for tag, v in part.items() if v.type not in (16, 18)} for part in read[:3])
    assert exif.parse(b"".join(exif.build(Directories(*classic))))[:3] == classic


def test_strips_lie_where_the_directory_says() -> None:
    strips = [b"one", b"two2", b"three"]
    data = b"".join(exif.build(Directories({256: exif.longs(7)}, {1: exif.text("x")}), strips))
    offsets = exif.parse(data).base[exif.STRIP_OFFSETS].numbers()
    assert [data[int(at) :][: len(s)] for at, s in zip(offsets, strips, strict=True)] == strips


def test_numbers() -> None:
    assert exif.rationals(0.0, 72.5, 3e9, 1 / 3).numbers() == pytest.approx((0, 72.5, 3e9, 1 / 3), abs=1e-6)
    broken = Value(5, struct.pack("<IIII", 1, 0, 1, 2)).numbers()
    assert np.isnan(broken[0]) and broken[1] == 0.5
    assert exif.text("Zoë").text() == "Zoë".encode()
    assert exif.text("a").numbers() == ()


def with_exif(name: str, found: Directories, order: str = "<") -> bytes:
    block = by_the_book(found, order, False)
    if name == "TIFF":
        tags = {256: exif.longs(40), 257: exif.longs(24), 258: exif.shorts(8, 8, 8), 259: exif.shorts(1)}
        tags |= {
            262: exif.shorts(2),
            277: exif.shorts(3),
            278: exif.longs(24),
            279: exif.longs(PIXELS.nbytes),
        }
        return b"".join(exif.build(found._replace(base={**found.base, **tags}), [PIXELS.tobytes()]))
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, name, exif=b"Exif\0\0" + block)
    return buffer.getvalue()


@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize(
    ("source", "order"), [("PNG", "<"), ("JPEG", "<"), ("JPEG", ">"), ("WEBP", ">"), ("TIFF", "<")]
)
def test_every_alphabet_survives(source: str, order: str, target: str) -> None:
    photo = decode_photo(io.BytesIO(with_exif(source, Directories(BYTES, INNER), order)))
    data, notes = encode_photo(photo, FORMATS[target], "SkipDiff", {"seed": 1})
    assert not notes
    back = decode_photo(io.BytesIO(data)).metadata
    for tag, value in BYTES.items():
        assert back.base[tag] == value
    for tag, value in INNER.items():
        assert back.exif[tag] == (value if tag != HISTORY else exif.text('{"seed": 1}'))
    with Image.open(io.BytesIO(data)) as image:  # and others understand it
        assert image.getexif()[AUTHOR].encode("latin-1").decode() == "© Zoë Müller, 京都"


def spotted(orientation: int, area: tuple[int, ...], spot: tuple[int, int]) -> Photo:
    """A photograph with a white spot at (x, y) of the pixels as stored, where SubjectArea is, too."""
    pixels = np.zeros_like(PIXELS)
    pixels[spot[1], spot[0]] = 255
    inner: dict[int, Any] = {tag: exif.shorts(*area) for tag in AREAS}
    inner |= {DENSITIES[0]: exif.rationals(3000), DENSITIES[1]: exif.rationals(2000)}
    buffer = io.BytesIO()
    block = b"".join(exif.build(Directories({274: exif.shorts(orientation)}, inner)))
    Image.fromarray(pixels).save(buffer, "PNG", exif=b"Exif\0\0" + block)
    return decode_photo(io.BytesIO(buffer.getvalue()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_subject_is_where_it_is_seen(orientation: int) -> None:
    photo = spotted(orientation, (31, 5, 8, 6), (31, 5))
    found = photo.metadata.exif[AREAS[0]].numbers()
    assert photo.colour[int(found[1]), int(found[0])].tolist() == [255] * 3
    assert found[2:] == ((8, 6) if orientation < 5 else (6, 8))
    assert photo.metadata.exif[AREAS[1]].numbers() == found
    # enlarged four times, it is four times as far from the corner, and four times as large
    large = Photo(np.zeros((photo.size[1] * 4, photo.size[0] * 4, 3), np.uint8), metadata=photo.metadata)
    back = decode_photo(io.BytesIO(encode_photo(large, FORMATS["tiff"], "x", {})[0])).metadata.exif
    assert back[AREAS[0]].numbers() == tuple(4 * number for number in found)
    densities = (12000, 8000) if orientation < 5 else (8000, 12000)
    assert tuple(back[tag].numbers()[0] for tag in DENSITIES) == densities


@pytest.mark.parametrize("area", [(5,), (1, 2, 3, 4, 5), ()])
def test_areas_that_are_none_are_left_out(area: tuple[int, ...]) -> None:
    inner = {AREAS[0]: exif.shorts(*area) if area else Value(11, struct.pack("<2f", np.nan, 1))}
    inner |= {DENSITIES[0]: Value(5, struct.pack("<II", 1, 0))}
    photo = decode_photo(io.BytesIO(with_exif("PNG", Directories({}, inner))))
    assert not {AREAS[0], DENSITIES[0]} & set(photo.metadata.exif)
    assert encode_photo(photo, FORMATS["png"], "x", {})[0]


@pytest.mark.parametrize("space", [65535, None, 1], ids=["uncalibrated", "unsaid", "sRGB"])
@pytest.mark.parametrize("source", ["JPEG", "WEBP"])
def test_adobe_rgb_by_dcf_gets_its_profile(source: str, space: int | None) -> None:
    """The interoperability index R03 is all that cameras write."""
    image = Image.new("RGB", (8, 8), (40, 200, 60))
    block = Image.Exif()
    inner = block.get_ifd(exif.EXIF_IFD)
    inner[exif.INTEROP_IFD] = {1: "R03", 2: b"0100"}
    if space is not None:
        inner[40961] = space
    buffer = io.BytesIO()
    image.save(buffer, source, exif=block.tobytes())
    photo = decode_photo(io.BytesIO(buffer.getvalue()))
    assert (photo.profile is not None) == (space != 1)
    if photo.profile:
        # Adobe RGB (40, 200, 60) is out of sRGB's reach in red, greener than it looks
        seen = encode_photo(photo, FORMATS["bmp"], "x", {})[0]
        red, green, _ = np.asarray(Image.open(io.BytesIO(seen)))[4, 4]
        assert red < 10 and green > 190
        assert (
            decode_photo(io.BytesIO(encode_photo(photo, FORMATS["jpeg"], "x", {})[0])).profile
            == photo.profile
        )
