"""What files say besides pixels, well-formed and wild: EXIF, XMP, profiles, the smaller chunks of PNG."""

from __future__ import annotations

import struct
import zlib

from hypothesis import strategies as st

from tests.images.photo_files import SRGB

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
"""Text in any alphabet."""

TAGS = st.sampled_from(
    [256, 270, 271, 274, 282, 283, 296, 306, 315, 700, 33432, 34665, 34675, 34853, 0x9000, 0x9214, 0x927C,
     0x9286, 0xA001, 0xA002, 0xA20E, 0xA20F, 0xA210, 0xA214, 0xA432, 0xC4A5, 40965]
)  # fmt: skip
"""Tags that somebody interprets: pointers, areas, densities, texts."""


def tag(number: int, kind: int, count: int, field: bytes, order: str) -> bytes:
    """An entry of a directory; ``field`` is its value or where that lies."""
    return struct.pack(order + "HHI", number, kind, count) + field[:4].ljust(4, b"\0")


def exif(orientation: int, description: str, order: str) -> bytes:
    """A plain EXIF block with an orientation and a text."""
    text = b"text: " + description.encode() + b"\0"  # too long to lie in the entry
    behind = 8 + 2 + 2 * 12 + 4
    entries = tag(270, 2, len(text), struct.pack(order + "I", behind), order)
    entries += tag(274, 3, 1, struct.pack(order + "H", orientation), order)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", 2) + entries + b"\0\0\0\0" + text


@st.composite
def wild_exif(draw: st.DrawFn) -> bytes:
    """A block of directories whose types, counts and offsets need not make sense."""
    order = draw(st.sampled_from("<>"))
    offset = st.one_of(st.integers(0, 200), st.sampled_from([2**16, 2**31, 2**32 - 1]))
    block = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    for _ in range(draw(st.integers(1, 3))):
        entries = [
            tag(
                draw(TAGS), draw(st.integers(0, 18)), draw(st.one_of(st.integers(0, 5), offset)),
                draw(st.one_of(st.binary(max_size=4), offset.map(lambda n: struct.pack(order + "I", n)))),
                order,
            )
            for _ in range(draw(st.integers(0, 6)))
        ]  # fmt: skip
        block += struct.pack(order + "H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return block + draw(st.binary(max_size=40))


@st.composite
def xmp(draw: st.DrawFn) -> bytes:
    """A packet with attributes and elements of several vocabularies; some are no XML."""
    names = ["dc:title", "tiff:ImageWidth", "exif:GPSLatitude", "drone:Latitude", "GPano:FullPanoWidthPixels",
             "Iptc4xmpCore:Location", "photoshop:City", "xmpMM:History", "crs:Crop"]  # fmt: skip
    attributes = "".join(
        f' {draw(st.sampled_from(names))}="{draw(st.one_of(st.just("7"), WORDS))}"'
        for _ in range(draw(st.integers(0, 3)))
    )
    name = draw(st.sampled_from(names))
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
        'xmlns:drone="urn:a-maker" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
        'xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/" '
        'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" '
        f'xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"{attributes}>'
        f"<{name}>{draw(WORDS)}</{name}></rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()
    return packet[: draw(st.integers(0, len(packet)))] if draw(st.integers(0, 3)) == 0 else packet


PROFILES = st.one_of(
    st.just(SRGB), st.integers(1, len(SRGB)).map(lambda n: SRGB[:n]), st.binary(min_size=1, max_size=200)
)
"""ICC profiles: whole, cut short, and no profiles at all."""


def _text_chunk(key: str, text: str, kind: bytes) -> tuple[bytes, bytes]:
    name = key.encode("latin-1", "replace")[:79]
    if kind == b"tEXt":
        return kind, name + b"\0" + text.encode("latin-1", "replace")
    if kind == b"zTXt":
        return kind, name + b"\0\0" + zlib.compress(text.encode("latin-1", "replace"))
    return kind, name + b"\0\1\0\0\0" + zlib.compress(text.encode())


NUMBERS = st.one_of(st.integers(0, 100_000), st.sampled_from([0, 1, 45455, 2**31 - 1, 2**32 - 1]))

CHUNKS = st.one_of(
    st.builds(_text_chunk, WORDS, WORDS, st.sampled_from([b"tEXt", b"zTXt", b"iTXt"])),
    PROFILES.map(lambda body: (b"iCCP", b"a\0\0" + zlib.compress(body))),
    NUMBERS.map(lambda n: (b"gAMA", struct.pack(">I", n))),
    st.lists(NUMBERS, min_size=8, max_size=8).map(lambda n: (b"cHRM", struct.pack(">8I", *n))),
    st.binary(min_size=4, max_size=4).map(lambda b: (b"cICP", b)),
    st.tuples(NUMBERS, NUMBERS, st.integers(0, 2)).map(lambda n: (b"pHYs", struct.pack(">IIB", *n))),
    st.tuples(NUMBERS, NUMBERS).map(lambda n: (b"acTL", struct.pack(">II", *n))),
    xmp().map(lambda body: (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + body)),
    st.tuples(
        st.sampled_from([b"gAMA", b"cHRM", b"cICP", b"iCCP", b"sRGB", b"pHYs", b"eXIf", b"tEXt", b"zTXt",
                         b"iTXt", b"acTL", b"fcTL", b"bKGD", b"tIME", b"quAk"]),
        st.binary(max_size=40),
    ),
)  # fmt: skip
"""Name and body of chunks that are no pixels, wild ones among them. None of them turns the picture."""
