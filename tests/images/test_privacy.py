"""What may name the place stays behind unless it is asked for; what is no longer true stays behind anyway."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from skipdiff_env.images.formats import exif, exif_tags, xmp
from skipdiff_env.images.formats.exif import Directories
from skipdiff_env.images.formats.metadata import Metadata
from skipdiff_env.images.photo import FORMATS, decode_photo, read_photo
from skipdiff_env.images.photo_file import encode_photo
from skipdiff_env.images.raster import Photo

PIXELS = np.full((12, 16, 3), 90, np.uint8)

DC, EXIF, PHOTOSHOP = (
    "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/photoshop/1.0/",
)  # fmt: skip
IPTC, IPTC_EXT = (
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/", "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
)  # fmt: skip
PANORAMA, CAMERA = "http://ns.google.com/photos/1.0/panorama/", "http://ns.google.com/photos/1.0/camera/"

PLACES = [
    ("http://www.dji.com/drone-dji/1.0/", "GpsLatitude"),
    ("http://www.dji.com/drone-dji/1.0/", "GpsLongtitude"),  # the maker's own spelling
    ("http://www.dji.com/drone-dji/1.0/", "Latitude"),
    ("http://www.dji.com/drone-dji/1.0/", "RtkFlag"),
    ("http://pix4d.com/camera/1.0", "GPSXYAccuracy"),
    ("http://www.parrot.com/drone-parrot/1.0/", "takeOffPosition"),
    ("http://ns.flir.com/xmp/1.0/", "HomeLat"),
    ("http://ns.example.org/own/", "lat"),
    (EXIF, "GPSLatitude"),
    (EXIF, "gpslatitude"),
    (EXIF, "GPSDestBearing"),
    (DC, "coverage"),
    (DC, "GpsLatitude"),  # a maker's property in a namespace that is not the maker's
    (PHOTOSHOP, "City"),
    (PHOTOSHOP, "State"),
    (IPTC, "Location"),
    (IPTC, "CiAdrCity"),
    (IPTC_EXT, "LocationCreated"),
    ("http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject"),
    ("http://www.metadataworkinggroup.com/schemas/keywords/", "Hierarchy"),
]
KEPT = [
    (DC, "title"), (DC, "creator"), (EXIF, "ExposureTime"), (PHOTOSHOP, "Credit"),
    (IPTC_EXT, "DigitalSourceType"),
    ("http://ns.adobe.com/xap/1.0/", "Rating"), ("http://ns.adobe.com/exif/1.0/aux/", "Lens"),
    (PANORAMA, "ProjectionType"),
]  # fmt: skip


def packet(properties: list[tuple[str, str, str]], form: str, prefix: str = "p") -> bytes:
    """An XMP packet of (namespace, name, value): attributes, elements, or elements with fields."""
    spaces = {uri: f"{prefix}{i}" for i, uri in enumerate(dict.fromkeys(uri for uri, _, _ in properties))}
    declared = "".join(f' xmlns:{short}="{uri}"' for uri, short in spaces.items())
    attributes = elements = ""
    for uri, name, value in properties:
        full, text = f"{spaces[uri]}:{name}", escape(value, {'"': "&quot;"})
        inside = {
            "element": text,
            "struct": f'<rdf:Description {full}="{text}"><{full}>{text}</{full}></rdf:Description>',
            "resource": f'<rdf:Bag><rdf:li rdf:parseType="Resource"><{full}>{text}</{full}></rdf:li>'
            "</rdf:Bag>",
        }
        if form == "attribute":
            attributes += f' {full}="{text}"'
        else:
            elements += f"<{full}>{inside[form]}</{full}>"
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about=""{declared}{attributes}>{elements}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


FORMS = ["attribute", "element", "struct", "resource"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", ["p", "exif", "dc"])
def test_makers_places_in_every_spelling_and_form(form: str, prefix: str) -> None:
    secrets = [(uri, name, f"secret-{i}") for i, (uri, name) in enumerate(PLACES)]
    public = [(uri, name, f"public-{i}") for i, (uri, name) in enumerate(KEPT)]
    whole = xmp.clean(packet([*secrets, *public], form, prefix))
    assert all(value.encode() in whole for _, _, value in [*secrets, *public])  # with --keep-location
    rest = xmp.without_places(whole)
    assert b"secret" not in rest
    assert all(value.encode() in rest for _, _, value in public)
    assert xmp.without_places(rest) == rest


@settings(deadline=None)
@given(
    uri=st.sampled_from([DC, EXIF, "http://www.dji.com/drone-dji/1.0/", "urn:x", "a b"]),
    name=st.text("abcGPSgpsLatLonCityé", min_size=1, max_size=12).filter(str.isidentifier),
    form=st.sampled_from(FORMS),
)
def test_what_is_not_known_never_stays(uri: str, name: str, form: str) -> None:
    rest = xmp.without_places(packet([(uri, name, "secret")], form))
    assert (b"secret" in rest) == (name in xmp.PLACELESS.get(uri, ()))


@pytest.mark.parametrize(
    "hidden",
    [
        b'<rdf:Description xmlns:e="http://ns.adobe.com/exif/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        b'<dc:title e:GPSLatitude="secret">t</dc:title></rdf:Description>',
        b'<rdf:Description xmlns="http://www.dji.com/drone-dji/1.0/"><GpsLatitude>secret</GpsLatitude>'
        b"</rdf:Description>",
        b"<rdf:Description>secret</rdf:Description>",
        b"<rdf:Description/>secret",
        b"<rdf:Bag><rdf:li>secret</rdf:li></rdf:Bag>",
        b'<rdf:Description><!-- secret --></rdf:Description>',
        b'<rdf:Description><?gps secret?></rdf:Description>',
        b'<rdf:Description place="secret"/>',
        b'<GpsLatitude>secret</GpsLatitude>',
    ],
)  # fmt: skip
def test_places_in_other_corners(hidden: bytes) -> None:
    whole = packet([], "element").replace(b"</rdf:RDF>", hidden + b"</rdf:RDF>")
    assert b"secret" not in xmp.without_places(whole)


def test_an_authors_contact_stays_without_the_address() -> None:
    info = (
        b'<i:CreatorContactInfo rdf:parseType="Resource"><i:CiAdrCity>Bern</i:CiAdrCity>'
        b"<i:CiEmailWork>a@example.org</i:CiEmailWork></i:CreatorContactInfo>"
    )
    whole = packet([], "element").replace(
        b"</rdf:RDF>",
        b'<rdf:Description xmlns:i="' + IPTC.encode() + b'">' + info + b"</rdf:Description></rdf:RDF>",
    )
    rest = xmp.without_places(whole)
    assert b"a@example.org" in rest and b"Bern" not in rest


FOREIGN = {
    "IPTC": 0x83BB, "Photoshop": 0x8649, "a maker's note": 0x927C, "Photoshop's layers": 0x935C,
    "GeoTIFF's scale": 0x830E, "GeoTIFF's tie points": 0x8482, "GeoTIFF's matrix": 0x85D8,
    "GeoTIFF's keys": 0x87AF, "GeoTIFF's numbers": 0x87B0, "GeoTIFF's texts": 0x87B1,
    "a pointer to GPS": 0x8825, "a pointer to EXIF": 0x8769, "pressure": 0x9402, "nobody's": 0xA5FF,
}  # fmt: skip
"""Tags in an Exif directory that are not of its standard, or tell of the place."""


def test_tags_of_exif_are_those_of_its_standard() -> None:
    named = {
        name: tag for name, tags in vars(exif_tags).items() if isinstance(tags, dict) and name.isupper()
        for name, tag in tags.items()
    }  # fmt: skip
    assert set(named.values()) == exif_tags.PLACELESS and not exif_tags.PLACELESS & set(FOREIGN.values())
    by_pillow = {tag.name: tag.value for tag in ExifTags.Base}
    assert all(by_pillow.get(name, tag) == tag for name, tag in named.items())
    others = {0x9214, 0xA461, 0xA462, *range(0xA436, 0xA43D)}  # named otherwise there, or new in EXIF 3.0
    assert {tag for name, tag in named.items() if name not in by_pillow} == others


def test_no_other_tag_stays() -> None:
    whole = Metadata(exif={tag: exif.text("secret") for tag in range(2**16)})
    assert set(whole.without_location().exif) == exif_tags.PLACELESS


@pytest.mark.parametrize("target", ["png", "jpeg", "webp", "tiff"])
def test_nothing_of_the_place_is_in_the_file(target: str) -> None:
    metadata = Metadata(
        base={271: exif.text("Maker")},
        exif={
            37500: exif.Value(7, b"secret note"),
            64000: exif.text("secret tag"),
            33434: exif.rationals(0.01),
            42036: exif.text("Lens"),
        },
        gps={2: exif.text("secret")},
        xmp=packet([(*PLACES[0], "secret"), (DC, "title", "public")], "attribute"),
        texts={"GeoInfo": "secret", "Comment": "public", "exif:GPSInfo": "secret", "City": "secret"},
    )
    kept, _ = encode_photo(Photo(PIXELS, metadata=metadata), FORMATS[target], "x", {})
    assert b"secret" in kept
    data, _ = encode_photo(Photo(PIXELS, metadata=metadata.without_location()), FORMATS[target], "x", {})
    assert b"secret" not in data and b"public" in data and b"Lens" in data
    assert 34853 not in decode_photo(io.BytesIO(data)).metadata.base


def test_prompts_of_image_generators_stay(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    for key in ("parameters", "Prompt", "workflow", "Location"):
        texts.add_text(key, f"said in {key}", zip=True)
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=texts)
    metadata = read_photo(tmp_path / "a.png").metadata
    assert set(metadata.texts) == {"parameters", "Prompt", "workflow", "Location"}
    assert set(metadata.without_location().texts) == {"parameters", "Prompt", "workflow"}


GAIN_MAP = [("http://ns.adobe.com/hdr-gain-map/1.0/", "Version", "1.0")]
COMPANIONS: dict[str, tuple[list[tuple[str, str, str]], tuple[str, ...]]] = {
    "Ultra HDR": (GAIN_MAP, ("its gain map (HDR) is left out",)),
    "Apple's HDR": (
        [("http://ns.apple.com/HDRGainMap/1.0/", "HDRGainMapVersion", "65536")],
        ("its gain map (HDR) is left out",),
    ),
    "motion": ([(CAMERA, "MotionPhoto", "1")], ("its motion video is left out",)),
    "motion as it was": ([(CAMERA, "MicroVideoOffset", "5000")], ("its motion video is left out",)),
    "depth": (
        [("http://ns.google.com/photos/1.0/depthmap/", "Mime", "image/png")], ("its depth map is left out",),
    ),
    "all": (
        [*GAIN_MAP, (CAMERA, "MotionPhoto", "1")],
        ("its gain map (HDR) is left out", "its motion video is left out"),
    ),
    "more than a segment": (
        [("http://ns.adobe.com/xmp/note/", "HasExtendedXMP", "0" * 32)], ("its extended XMP is left out",),
    ),
    "a container": ([("http://ns.google.com/photos/1.0/container/", "Directory", "x")], ()),
    "a burst": ([(CAMERA, "BurstID", "x")], ()),
    "none": ([(EXIF, "FNumber", "2")], ()),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", COMPANIONS)
def test_companions_are_no_longer_claimed_and_that_is_said(name: str, form: str) -> None:
    properties, notes = COMPANIONS[name]
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", xmp=packet([*properties, (DC, "title", "public")], form))
    photo = decode_photo(io.BytesIO(buffer.getvalue()))
    assert photo.notes == notes
    assert b"public" in photo.metadata.xmp  # with --keep-location, too
    if name != "none":
        assert all(uri.encode() not in photo.metadata.xmp for uri, _, _ in properties)


@pytest.mark.parametrize("form", ["attribute", "element"])
@pytest.mark.parametrize("location", [False, True], ids=["", "location"])
def test_a_panorama_keeps_its_proportions(form: str, location: bool) -> None:
    sizes = {
        "FullPanoWidthPixels": (16, 48), "FullPanoHeightPixels": (14, 28),
        "CroppedAreaImageWidthPixels": (16, 48), "CroppedAreaImageHeightPixels": (12, 24),
        "CroppedAreaLeftPixels": (1, 3), "CroppedAreaTopPixels": (2, 4),
        "LargestValidInteriorRectLeft": (5, 15), "LargestValidInteriorRectTop": (6, 12),
    }  # fmt: skip
    others = [
        ("ProjectionType", "equirectangular"),
        ("PoseHeadingDegrees", "90"),
        ("InitialViewHeadingDegrees", "7"),
    ]
    given = [(PANORAMA, name, str(before)) for name, (before, _) in sizes.items()]
    buffer = io.BytesIO()
    whole = packet([*given, *((PANORAMA, name, value) for name, value in others)], form)
    Image.fromarray(PIXELS).save(buffer, "JPEG", xmp=whole)
    metadata = decode_photo(io.BytesIO(buffer.getvalue())).metadata
    metadata = metadata if location else metadata.without_location()
    large: Any = Photo(np.zeros((24, 48, 3), np.uint8), metadata=metadata)
    data, notes = encode_photo(large, FORMATS["png"], "x", {})
    found = decode_photo(io.BytesIO(data)).metadata.xmp
    assert not notes
    for name, value in [*((name, after) for name, (_, after) in sizes.items()), *others]:
        told = f':{name}="{value}"' if form == "attribute" else f":{name}>{value}</"
        assert told.encode() in found


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("http://ns.adobe.com/tiff/1.0/", "Orientation"),
        ("http://ns.adobe.com/tiff/1.0/", "ImageWidth"),
        ("http://ns.adobe.com/tiff/1.0/", "BitsPerSample"),
        (EXIF, "PixelXDimension"),
        (EXIF, "SubjectArea"),
        (EXIF, "FocalPlaneXResolution"),
        (EXIF, "ColorSpace"),
        (PHOTOSHOP, "ICCProfile"),
        ("http://ns.adobe.com/xap/1.0/", "Thumbnails"),
        ("http://ns.adobe.com/xmp/note/", "HasExtendedXMP"),
        ("http://www.metadataworkinggroup.com/schemas/regions/", "AppliedToDimensions"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_longer_true_is_dropped(uri: str, name: str, form: str) -> None:
    kept = xmp.clean(packet([(uri, name, "stale"), (DC, "title", "public")], form))
    assert b"stale" not in kept and b"public" in kept


def test_packets_of_several_threads_keep_their_prefixes() -> None:
    packets = [
        packet([(DC, "title", "t"), (EXIF, "FNumber", "2")], "attribute", p) for p in ("abc", "xyz", "q")
    ]
    alone = [xmp.without_places(p) for p in packets]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(xmp.without_places, packets * 60))
    assert found == alone * 60


def test_a_block_of_metadata_alone_has_no_pointer_to_places() -> None:
    found = exif.parse(b"".join(exif.build(Directories({271: exif.text("Maker")}, {}, {}))))
    assert set(found.base) == {271} and not found.gps
