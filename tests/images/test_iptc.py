"""Captions, keywords and rights in IPTC's older form become XMP."""

from __future__ import annotations

import io
import struct
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.images.formats import iptc, xmp
from skipdiff_env.images.photo import FORMATS, decode_photo
from skipdiff_env.images.photo_file import encode_photo
from tests.images.photo_files import RGB8, chunk, png

DC = "{http://purl.org/dc/elements/1.1/}"
SAID = [
    (5, b"A title"), (25, b"wedding"), (25, "Zürich".encode()), (80, "Jörg".encode("latin-1")),
    (90, b"Bern"), (105, "京 & <b>".encode()), (116, b"(c) me"), (120, b"A caption\0"), (200, b"unknown"),
]  # fmt: skip


def data_set(number: int, data: bytes, record: int = 2) -> bytes:
    return b"\x1c" + struct.pack(">BBH", record, number, len(data)) + data


def resource(kind: int, data: bytes, name: bytes = b"") -> bytes:
    """An image resource of Photoshop's."""
    named = bytes([len(name)]) + name
    return b"8BIM" + struct.pack(">H", kind) + named + b"\0" * (len(named) % 2) + (
        struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)
    )  # fmt: skip


BLOCK = data_set(90, b"\x1b%G", record=1) + b"".join(data_set(*pair) for pair in SAID)
RESOURCES = (
    resource(0x03ED, b"\0" * 15, b"odd") + resource(iptc.RESOURCE, BLOCK) + resource(0x0406, b"\0" * 7)
)


def file_with(kind: str) -> bytes:
    if kind == "PNG":
        text = f"\niptc\n{len(RESOURCES):8}\n{RESOURCES.hex()}\n"
        return png(RGB8, 2, chunk(b"tEXt", b"Raw profile type iptc\0" + text.encode()))
    buffer = io.BytesIO()
    tags = Image.Exif()
    if kind == "JPEG":
        Image.fromarray(RGB8).save(buffer, "JPEG")
        body = b"Photoshop 3.0\0" + RESOURCES
        segment = b"\xff\xed" + struct.pack(">H", 2 + len(body)) + body
        return buffer.getvalue()[:2] + segment + buffer.getvalue()[2:]
    if kind == "TIFF":
        tags[33723] = BLOCK
    else:
        tags[34377] = RESOURCES
    Image.fromarray(RGB8).save(buffer, "TIFF", exif=tags)
    return buffer.getvalue()


def texts(packet: bytes) -> dict[str, list[str]]:
    """The texts in a packet by property."""
    (about,) = ET.fromstring(packet.decode().strip("\ufeff"))[0]
    return {element.tag: [part for part in map(str.strip, element.itertext()) if part] for element in about}


@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "TIFF by Photoshop", "PNG"])
def test_it_survives_in_every_format(kind: str, target: str) -> None:
    photo = decode_photo(io.BytesIO(file_with(kind)))
    assert not photo.notes
    back = decode_photo(io.BytesIO(encode_photo(photo, FORMATS[target], "test", {})[0])).metadata.xmp
    said = texts(back)
    assert said[DC + "title"] == ["A title"] and said[DC + "subject"] == ["wedding", "Zürich"]
    assert said[DC + "creator"] == ["Jörg"] and said[DC + "rights"] == ["(c) me"]
    assert said[DC + "description"] == ["A caption"]
    photoshop = "{http://ns.adobe.com/photoshop/1.0/}"
    assert said[photoshop + "Headline"] == ["京 & <b>"] and said[photoshop + "City"] == ["Bern"]
    assert len(said) == 7
    placeless = texts(photo.metadata.without_location().xmp)
    assert set(said) - set(placeless) == {photoshop + "City"}


def test_a_files_own_xmp_goes_first() -> None:
    packet = iptc.as_xmp(data_set(120, b"newer"))
    data = file_with("JPEG")
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]
    assert texts(decode_photo(io.BytesIO(data)).metadata.xmp) == {DC + "description": ["newer"]}


def test_what_says_nothing_is_nothing() -> None:
    for block in (b"", b"8BIM", data_set(200, b"x"), data_set(120, b" \0 "), resource(0x0406, BLOCK)):
        assert iptc.as_xmp(block) == b""
    photo = decode_photo(io.BytesIO(png(RGB8, 2, chunk(b"tEXt", b"Raw profile type iptc\0\niptc\n2\nzz\n"))))
    assert photo.metadata.xmp == b"" and np.array_equal(photo.colour, RGB8)


@given(st.one_of(st.binary(max_size=40), st.integers(0, len(RESOURCES)).map(lambda end: RESOURCES[:end])))
def test_damage_gives_a_packet_or_nothing(block: bytes) -> None:
    for damaged in (block, BLOCK[:20] + block, b"\x1c\x02\x78\x00\x09" + block):
        assert xmp.is_legible(iptc.as_xmp(damaged))
