"""What is kept, dropped and added besides the pixels."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from skipdiff_env.images.formats import exif as raw
from skipdiff_env.images.formats import icc
from skipdiff_env.images.formats.exif import EXIF_IFD, GPS_IFD
from skipdiff_env.images.formats.metadata import HISTORY, Metadata, read_record
from skipdiff_env.images.formats.profiles import to_srgb
from skipdiff_env.images.formats.xmp import clean, without_places
from skipdiff_env.images.photo import FORMATS, decode_photo, read_photo
from skipdiff_env.images.photo_file import encode_photo
from skipdiff_env.images.raster import Photo

PIXELS = np.zeros((8, 9, 3), np.uint8)
RECORD = {"model": "natural-4x", "start": 7, "size": [36, 32]}

XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:own="http://example.org/own/" tiff:Orientation="6" tiff:Make="Maker" exif:GPSLatitude="46,57N"
 photoshop:City="Bern" photoshop:Credit="A. Author" own:Mood="fine">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">A title</rdf:li></rdf:Alt></dc:title>
<exif:GPSLongitude>7,26E</exif:GPSLongitude><photoshop:Country>CH</photoshop:Country>
<exif:PixelXDimension>9</exif:PixelXDimension></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def camera_file(name: str = "JPEG") -> bytes:
    """As a phone writes it: camera, exposure, caption, place, orientation, resolution, XMP."""
    exif = Image.Exif()
    exif[271], exif[272], exif[270], exif[305], exif[274] = "Maker", "Phone 3", "A caption", "Phone OS", 1
    exif[282], exif[283], exif[296], exif[306] = 300.0, 300.0, 2, "2024:05:06 07:08:09"
    exif[EXIF_IFD] = {
        33434: 0.004,
        33437: 1.8,
        34855: 200,
        40962: 9,
        40963: 8,
        37500: b"maker's note",
        36867: "2024",
    }
    exif[GPS_IFD] = {1: "N", 2: (46.0, 57.0, 0.0), 3: "E", 4: (7.0, 26.0, 0.0)}
    buffer = io.BytesIO()
    options: dict[str, Any] = {"dpi": (300, 300)}
    if name == "PNG":
        texts = PngImagePlugin.PngInfo()
        for key, value in {
            "Title": "A title",
            "Software": "Old",
            "Location": "Bern",
            "Author": "Zoë",
        }.items():
            texts.add_itxt(key, value)
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options["pnginfo"] = texts
    elif name == "TIFF":
        exif[700] = XMP
    elif name == "JPEG":
        payload = b"http://ns.adobe.com/xap/1.0/\0" + XMP
        options["extra"] = b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
    else:
        options["xmp"] = XMP
    Image.fromarray(PIXELS).save(buffer, name, exif=exif.tobytes(), **options)
    return buffer.getvalue()


@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("location", [False, True], ids=["", "location"])
def test_metadata_from_any_format_to_any(source: str, target: str, location: bool, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(camera_file(source))
    photo = read_photo(tmp_path / "a")
    metadata = photo.metadata if location else photo.metadata.without_location()
    data, notes = encode_photo(Photo(PIXELS, metadata=metadata), FORMATS[target], "SkipDiff 1", RECORD)
    texts = "'Title', 'Location', 'Author'" if location else "'Title', 'Author'"
    lost = [f"{target.upper()} has no place for the texts {texts}: PNG keeps them"]
    assert notes == (lost if source == "PNG" and target != "png" else [])
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        exif = image.getexif()
        assert exif[271] == "Maker"
        assert exif[272] == "Phone 3"
        assert exif[270] == "A caption"
        assert exif[305] == "SkipDiff 1"
        assert exif.get(274, 1) == 1
        inner = exif.get_ifd(EXIF_IFD)
        assert float(inner[33434]) == pytest.approx(0.004)
        assert float(inner[33437]) == pytest.approx(1.8)
        assert inner[34855] == 200
        assert 40962 not in inner  # the old size
        assert json.loads(inner[HISTORY]) == RECORD
        assert (37500 in inner) == location
        gps = exif.get_ifd(GPS_IFD)
        assert (len(gps) == 4) == location
        assert (len(gps) == 0) == (not location)
        if target != "webp":
            assert tuple(round(float(d)) for d in image.info["dpi"]) == (300, 300)
        if target == "png":
            texts = image.text
            assert texts["Software"] == "SkipDiff 1"
            if source == "PNG":
                assert texts["Author"] == "Zoë"
                assert ("Location" in texts) == location
    back = decode_photo(io.BytesIO(data)).metadata
    assert read_record(back) == RECORD
    xmp = back.xmp
    assert b"A title" in xmp
    assert b"Maker" in xmp
    assert (b"fine" in xmp) == location  # who knows what another maker's properties say
    for word in (b"Bern", b"46,57N", b"7,26E", b">CH<"):
        assert (word in xmp) == location
        assert (word in data) <= location
    for word in (b"Orientation", b"PixelXDimension"):
        assert word not in xmp


def test_cleaned_xmp_is_xml_with_the_same_properties() -> None:
    cleaned = clean(XMP)
    found = ET.fromstring(cleaned)
    names = {child.tag.rpartition("}")[2] for child in found.iter()} | {
        name.rpartition("}")[2] for element in found.iter() for name in element.attrib
    }
    assert {"title", "Make", "Credit", "Mood", "City", "Country", "GPSLatitude"} <= names
    assert not names & {"Orientation", "PixelXDimension"}
    assert b"own:Mood" in cleaned  # prefixes stay as they were
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    "xmp",
    [b"", b"rubbish", b"<a><b></a>", b'<!DOCTYPE x [<!ENTITY e "e">]><x>&e;</x>', b"\xff\xfe<a/>", b"\0" * 9],
)  # fmt: skip
def test_xmp_that_is_no_plain_xml_is_dropped(xmp: bytes) -> None:
    assert clean(xmp) == without_places(xmp) == b""


def test_what_is_too_long_for_jpeg_is_dropped_and_said() -> None:
    metadata = Metadata(base={270: raw.text("x" * 70000)}, xmp=XMP + b" " * 70000)
    data, notes = encode_photo(Photo(PIXELS, metadata=metadata), FORMATS["jpeg"], "SkipDiff", RECORD)
    assert notes == ["EXIF too long for JPEG, dropped", "XMP too long for JPEG, dropped"]
    assert read_record(decode_photo(io.BytesIO(data)).metadata) == RECORD
    for name in ("png", "webp", "tiff"):
        assert encode_photo(Photo(PIXELS, metadata=metadata), FORMATS[name], "SkipDiff", RECORD)[1] == []


@pytest.mark.parametrize("source", ["JPEG", "GIF", "PNG"])
@pytest.mark.parametrize("comment", ["At the well", "Zoë, 京"])
def test_a_comment_survives_where_there_is_a_place_for_it(source: str, comment: str) -> None:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"comment": comment.encode()}
    if source == "PNG":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("Comment", comment)
    Image.fromarray(PIXELS).save(buffer, source, **options)
    photo = decode_photo(io.BytesIO(buffer.getvalue()))
    assert photo.metadata.without_location().texts == {"Comment": comment}
    for target, word in (("png", "Comment"), ("jpeg", "comment")):
        data, notes = encode_photo(photo, FORMATS[target], "SkipDiff", RECORD)
        found = Image.open(io.BytesIO(data)).info[word]
        assert (found if target == "png" else found.decode()) == comment and not notes
    notes = encode_photo(photo, FORMATS["webp"], "SkipDiff", RECORD)[1]
    assert notes == ["WEBP has no place for the text 'Comment': PNG keeps it"]


def test_comments_of_unknown_spelling_or_length() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", comment="Zoë\0at sea\0".encode("latin-1"))
    photo = decode_photo(io.BytesIO(buffer.getvalue()))
    assert photo.metadata.texts == {"Comment": "Zoë at sea"}
    texts = {"Comment": "x" * 70000, **{f"{i}": "y" for i in range(4)}}
    metadata = replace(photo.metadata, texts=texts)
    data, notes = encode_photo(replace(photo, metadata=metadata), FORMATS["jpeg"], "SkipDiff", RECORD)
    assert notes == [
        "JPEG has no place for the texts '0', '1', '2' and 1 more: PNG keeps them",
        "comment too long for JPEG, dropped",
    ]
    assert "comment" not in Image.open(io.BytesIO(data)).info


def test_a_profile_that_is_too_large_for_jpeg() -> None:
    """A JPEG holds 255 segments of it; the colours are what they were."""
    adobe = icc.profile(icc.ADOBE_RGB, icc.ADOBE_GAMMA)
    assert adobe is not None
    room = FORMATS["jpeg"].max_profile
    for size, fits in ((room, True), (room + 1, False)):
        profile = size.to_bytes(4, "big") + adobe[4:].ljust(size - 4, b"\0")  # which begins with its length
        photo = Photo(np.full((8, 8, 3), (40, 200, 90), np.uint8), profile=profile)
        data, notes = encode_photo(photo, FORMATS["jpeg"], "SkipDiff", RECORD)
        found = decode_photo(io.BytesIO(data))
        assert notes == ([] if fits else ["colours converted to sRGB, as JPEG cannot hold the profile"])
        assert found.profile == (profile if fits else None)
        meant = to_srgb(Image.fromarray(photo.colour), profile)
        shown = to_srgb(Image.fromarray(found.colour), found.profile)
        assert np.abs(np.asarray(shown).astype(int) - np.asarray(meant)).max() <= 4


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "WEBP"]), st.sampled_from(sorted(FORMATS)))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_costs_only_itself(folder: Path, block: bytes, source: str, target: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, source, exif=b"Exif\0\0MM\0*\0\0\0\x08" + block)
    (folder / "a").write_bytes(buffer.getvalue())
    photo = read_photo(folder / "a")
    assert photo.size in ((9, 8), (8, 9))
    data, _ = encode_photo(photo, FORMATS[target], "SkipDiff", RECORD)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == photo.size
    if target != "bmp":
        assert read_record(decode_photo(io.BytesIO(data)).metadata) == RECORD


@pytest.mark.parametrize(("unit", "dpi"), [(1, None), (2, (200, 200)), (3, (508, 508)), (0, None), (7, None)])
@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "tiff"])
def test_a_resolution_in_a_unit_that_is_none_is_dropped(
    unit: int, dpi: tuple[int, int] | None, target: str
) -> None:
    """A reader that takes inches where the unit makes no sense would see a resolution that nobody meant."""
    block = Image.Exif()
    block[282], block[283], block[296], block[271] = 200.0, 200.0, unit, "Maker"
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", exif=block.tobytes())
    metadata = decode_photo(io.BytesIO(buffer.getvalue())).metadata
    assert metadata.dpi == dpi
    data, _ = encode_photo(Photo(PIXELS, metadata=metadata), FORMATS[target], "x", {})
    with Image.open(io.BytesIO(data)) as image:
        exif = image.getexif()
        assert exif[271] == "Maker"
        if unit in (1, 2, 3):
            assert (exif[282], exif[296]) == (200, unit)
        else:
            assert {282, 283, 296}.isdisjoint(exif)


@pytest.mark.parametrize("dpi", [300.0, 76200.0])
@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "tiff"])
def test_a_resolution_that_only_the_format_told_of_survives(target: str, dpi: float) -> None:
    """WebP has no field for it, and that of JPEG ends at 65535."""
    data, notes = encode_photo(Photo(PIXELS, metadata=Metadata(dpi=(dpi, dpi))), FORMATS[target], "x", {})
    assert not notes
    assert decode_photo(io.BytesIO(data)).metadata.dpi == pytest.approx((dpi, dpi), rel=1e-4)


def test_no_record_is_none() -> None:
    assert read_record(Metadata()) is None
    for said in ("cropped by hand", "7", "[1]"):
        assert read_record(Metadata(exif={HISTORY: raw.text(said)})) is None
