"""Converts captions, keywords and rights of IPTC's older form (IIM 4.2) to XMP, which more formats can hold.

Programs that write both keep them consistent (Metadata Working Group, 2010), so a file's own XMP takes
precedence. References: IPTC-IIM 4.2, record 2; IPTC Photo Metadata Standard, for the properties with the same
meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape

RESOURCE = 0x0404
"""Number of Photoshop's image resource that holds IIM."""

_PROPERTIES = {
    5: "dc:title", 25: "dc:subject", 40: "photoshop:Instructions", 80: "dc:creator",
    85: "photoshop:AuthorsPosition", 90: "photoshop:City", 92: "Iptc4xmpCore:Location",
    95: "photoshop:State", 101: "photoshop:Country", 105: "photoshop:Headline", 110: "photoshop:Credit",
    115: "photoshop:Source", 116: "dc:rights", 120: "dc:description", 122: "photoshop:CaptionWriter",
}  # fmt: skip
"""Data sets of record 2 → properties."""
_LISTS = {
    "dc:title": "Alt", "dc:rights": "Alt", "dc:description": "Alt", "dc:subject": "Bag", "dc:creator": "Seq",
}  # fmt: skip
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
    'xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/">{}</rdf:Description></rdf:RDF>'
    "</x:xmpmeta>"
)


def as_xmp(block: bytes) -> bytes:
    """Convert a block of IIM, alone or within Photoshop's resources, to an XMP packet.

    The packet is empty if there is nothing to convert. Everything after a damaged data set is left out.
    """
    said: dict[str, list[str]] = {}
    for number, data in _data_sets(_resource(block) if block.startswith(b"8BIM") else block):
        text = _NO_XML.sub("", _decoded(data)).strip()
        if number in _PROPERTIES and text:
            said.setdefault(_PROPERTIES[number], []).append(escape(text))
    elements = "".join(f"<{name}>{_value(name, texts)}</{name}>" for name, texts in said.items())
    return _PACKET.format(elements).encode() if elements else b""


def _value(name: str, texts: list[str]) -> str:
    if name not in _LISTS:
        return texts[0]
    kind = _LISTS[name]
    item = '<rdf:li xml:lang="x-default">' if kind == "Alt" else "<rdf:li>"
    items = "".join(f"{item}{text}</rdf:li>" for text in (texts[:1] if kind == "Alt" else texts))
    return f"<rdf:{kind}>{items}</rdf:{kind}>"


def _decoded(data: bytes) -> str:
    """Decode the text as UTF-8 (which record 1 may declare, but often does not), else as Latin-1."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _data_sets(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and data of each data set of record 2."""
    place = 0
    while block[place : place + 1] == b"\x1c" and place + 5 <= len(block):
        record, number, length = (
            block[place + 1],
            block[place + 2],
            int.from_bytes(block[place + 3 : place + 5], "big"),
        )
        place += 5
        if place + length > len(block):  # also data sets of more than 32 kB, whose length is elsewhere
            return
        if record == 2:
            yield number, block[place : place + length]
        place += length


def _resource(block: bytes) -> bytes:
    """Return the IIM block among Photoshop's image resources; empty if there is none."""
    place = 0
    while block[place : place + 4] == b"8BIM" and place + 12 <= len(block):
        kind, name = int.from_bytes(block[place + 4 : place + 6], "big"), block[place + 6]
        place += 6 + (name + 2) // 2 * 2  # the name with its length, made even
        length = int.from_bytes(block[place : place + 4], "big")
        if kind == RESOURCE:
            return block[place + 4 : place + 4 + length]
        place += 4 + (length + 1) // 2 * 2
    return b""
