"""XMP packets: what holds them together says nothing; every encoding is read; what is not is said."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.images.formats import xmp
from skipdiff_env.images.formats.metadata import Metadata
from skipdiff_env.images.photo import FORMATS, decode_photo
from skipdiff_env.images.photo_file import encode_photo
from skipdiff_env.images.raster import Photo

from .photo_files import RGB8, chunk, png
from .test_privacy import DC, packet

RDF, XML, X = (
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://www.w3.org/XML/1998/namespace", "adobe:ns:meta/",
)  # fmt: skip
PLAIN = packet([(DC, "title", "public ö京")], "element")
ILLEGIBLE = "its XMP is damaged or not plain XML, and is left out"


@settings(deadline=None)
@given(
    space=st.sampled_from(["rdf", "xml", "x"]),
    name=st.one_of(
        st.sampled_from(
            ["about", "ID", "nodeID", "datatype", "type", "value", "resource", "parseType", "lang", "base",
             "id", "xmptk", "li", "RDF", "Description", "xmpmeta"]
        ),
        st.text("abcGPSgpsLatLonCity", min_size=1, max_size=9),
    ),
    place=st.sampled_from(["<x:xmpmeta ", "<rdf:RDF ", "<rdf:Description "]),
    location=st.booleans(),
)  # fmt: skip
def test_the_skeletons_attributes_say_nothing(space: str, name: str, place: str, location: bool) -> None:
    whole = PLAIN.replace(b' rdf:about=""', b"").decode()
    whole = whole.replace("<x:xmpmeta", f'<x:xmpmeta xmlns:rdf="{RDF}"')
    secret = whole.replace(place, f'{place}{space}:{name}="46.9N 7.4E" ', 1).encode()
    rest = xmp.clean(secret)
    rest = rest if location else xmp.without_places(rest)
    assert b"46.9N" not in rest and "public ö京".encode() in rest


@pytest.mark.parametrize(
    ("inside", "stays"),
    [
        ('<dc:source rdf:resource="public"/>', True),
        ('<dc:source rdf:parseType="Resource"><rdf:value>public</rdf:value></dc:source>', True),
        ("<dc:source><rdf:Bag><rdf:li>public</rdf:li></rdf:Bag></dc:source>", True),
        ("<dc:source rdf:about='secret'>t</dc:source>", False),
        ("<dc:source><rdf:Description rdf:about='secret' rdf:value='t'/></dc:source>", False),
        ("<dc:source rdf:ID='secret'>t</dc:source>", False),
        ("<dc:source rdf:datatype='secret'>t</dc:source>", False),
        ("<dc:source xml:base='secret'>t</dc:source>", False),
        ("<dc:source xml:lang='secret place'>t</dc:source>", False),
        ("<dc:source rdf:parseType='secret'>t</dc:source>", False),
        ("<rdf:type rdf:resource='secret'/><dc:source>t</dc:source>", False),
        ("<rdf:value>secret</rdf:value><dc:source>t</dc:source>", False),
        ("<rdf:li>secret</rdf:li><dc:source>t</dc:source>", False),
        ("<rdf:GPSLatitude>secret</rdf:GPSLatitude><dc:source>t</dc:source>", False),
        ("<x:GPSLatitude>secret</x:GPSLatitude><dc:source>t</dc:source>", False),
    ],
)
def test_names_of_rdf(inside: str, stays: bool) -> None:
    whole = packet([], "element").replace(b"<rdf:Description ", f'<rdf:Description xmlns:dc="{DC}" '.encode())
    rest = xmp.without_places(whole.replace(b"></rdf:Description>", f">{inside}</rdf:Description>".encode()))
    assert b"secret" not in rest and (b"public" in rest) == stays
    ET.fromstring(rest)


def test_languages_and_an_older_root_stay() -> None:
    title = "<dc:title><rdf:Alt><rdf:li xml:lang='{}'>t</rdf:li></rdf:Alt></dc:title>"
    for language in ("x-default", "en", "de-CH", "zh-Hant-TW"):
        whole = (
            f'<x:xapmeta xmlns:x="{X}" x:xaptk="a tool"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description '
            f'rdf:about="uuid:1" xmlns:dc="{DC}">{title.format(language)}</rdf:Description></rdf:RDF>'
            "</x:xapmeta>"
        )
        root = ET.fromstring(xmp.without_places(xmp.clean(whole.encode())))
        (item,) = root.iter(f"{{{RDF}}}li")
        (description,) = root.iter(f"{{{RDF}}}Description")
        assert item.attrib == {f"{{{XML}}}lang": language} and item.text == "t"
        assert description.attrib == {f"{{{RDF}}}about": ""} and root.attrib == {}


def encodings() -> dict[str, bytes]:
    """The same packet in every encoding of the standard, with a mark of the order of bytes and without."""
    text = PLAIN.decode()
    found = {name: text.encode(name) for name in ("utf-8", "utf-8-sig", "utf-16", "utf-32")}
    for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        found[name] = text.encode(name)
        found[f"{name} marked"] = ("\ufeff" + text).encode(name)
    found["declared"] = ('<?xml version="1.0" encoding="UTF-16"?>' + text).encode("utf-16")
    header = "<?xpacket begin='\ufeff' id='W5M0MpCehiHzreSzNTczkc9d'?>"
    found["packet"] = (header + text + " " * 99 + "<?xpacket end='w'?>\n").encode("utf-16-be")
    found["padded"] = PLAIN + b" \n\0\0"
    data = text.replace("public ö京", "<![CDATA[public ö京]]>")
    return {**found, "CDATA": data.encode(), "CDATA utf-16": data.encode("utf-16")}


ENCODED = encodings()


def file_with(name: str, whole: bytes) -> bytes:
    if name == "PNG":
        return png(RGB8, 2, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + whole))
    buffer = io.BytesIO()
    block = Image.Exif()
    block[700] = whole
    Image.fromarray(RGB8).save(buffer, name, **({"exif": block} if name == "TIFF" else {"xmp": whole}))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("encoding", ENCODED)
def test_every_encoding_is_read(name: str, encoding: str) -> None:
    photo = decode_photo(io.BytesIO(file_with(name, ENCODED[encoding])))
    assert photo.notes == ()
    assert "public ö京".encode() in xmp.without_places(photo.metadata.xmp)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    "whole",
    [PLAIN[:-9], PLAIN.decode().encode("utf-16")[:-6], b"rubbish", PLAIN.replace("ö".encode(), b"\xf6")],
)
def test_what_is_not_legible_is_said(name: str, whole: bytes) -> None:
    photo = decode_photo(io.BytesIO(file_with(name, whole)))
    assert photo.notes == (ILLEGIBLE,) and photo.metadata.xmp == b""


@pytest.mark.parametrize("padding", [b"", b"\0" * 9, b" \n" * 9])
def test_nothing_is_nothing_to_speak_of(padding: bytes) -> None:
    assert decode_photo(io.BytesIO(file_with("JPEG", padding))).notes == ()


@pytest.mark.parametrize(
    "form",
    ['<rdf:Description tiff:Orientation="6"/>', "<rdf:Description tiff:Orientation='6'/>",
     "<rdf:Description><tiff:Orientation>6</tiff:Orientation></rdf:Description>",
     "<rdf:Description><t:Orientation> <![CDATA[6]]></t:Orientation></rdf:Description>"],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_orientation_in_every_form(form: str, encoding: str) -> None:
    spaces = 'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:t="http://ns.adobe.com/tiff/1.0/"'
    whole = f'<rdf:RDF xmlns:rdf="{RDF}" {spaces}>{form}</rdf:RDF>'
    assert decode_photo(io.BytesIO(file_with("JPEG", whole.encode(encoding)))).size == RGB8.shape[:2]
    for other in ("0", "9", "66", "", "x"):
        assert xmp.orientation(whole.replace("6", other).encode(encoding)) == 1


def test_packets_that_are_only_looked_at_leave_prefixes_alone() -> None:
    """What is written depends on the packet, not on what other threads look at meanwhile."""
    mine, other = packet([(DC, "title", "t")], "element", "p"), packet([("urn:x", "y", "z")], "element", "p")
    alone = xmp.without_places(mine)
    with ThreadPoolExecutor(8) as pool:
        looks = pool.map(xmp.companions, [other] * 300)
        found = set(pool.map(xmp.without_places, [mine] * 300))
        assert list(looks) == [[]] * 300
    assert found == {alone}


def test_a_packet_of_the_result_is_utf_8() -> None:
    metadata = Metadata(xmp=xmp.clean(ENCODED["utf-16"]))
    for name in ("png", "jpeg", "webp", "tiff"):
        data, _ = encode_photo(
            Photo(np.zeros((8, 8, 3), np.uint8), metadata=metadata), FORMATS[name], "x", {}
        )
        assert "public ö京".encode() in data
