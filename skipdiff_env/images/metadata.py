"""What a photograph file says besides its pixels: EXIF, XMP, PNG texts, resolution.

Kept are what describes the picture (camera, date, author, caption, …) and the resolution. Dropped
are what an enlargement makes wrong (orientation once applied, sizes, thumbnails), and what names the
place (GPS, cities in XMP, makers' private notes, which may) unless that is asked for. Added is a record of
how the picture was made: EXIF ``Software`` and, as JSON, ``ImageHistory``.
"""

from __future__ import annotations

import contextlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import ExifTags, Image, TiffImagePlugin

Tag = ExifTags.Base
ORIENTATION = int(Tag.Orientation)
EXIF_IFD, GPS_IFD = int(ExifTags.IFD.Exif), int(ExifTags.IFD.GPSInfo)
HISTORY = int(Tag.ImageHistory)
XMP_TAG, ICC_TAG = 700, 34675

DESCRIPTIVE = frozenset(
    int(tag)
    for tag in (
        Tag.DocumentName, Tag.ImageDescription, Tag.Make, Tag.Model, Tag.PageName, Tag.XResolution,
        Tag.YResolution, Tag.ResolutionUnit, Tag.DateTime, Tag.Artist, Tag.HostComputer, Tag.Copyright,
        Tag.Rating, Tag.RatingPercent, Tag.XPTitle, Tag.XPComment, Tag.XPAuthor, Tag.XPKeywords,
        Tag.XPSubject,
    )
)  # fmt: skip
"""Tags of the main directory that are kept. A TIFF has its layout in there too, hence a list."""

OUTDATED = frozenset(
    int(t) for t in (Tag.ExifImageWidth, Tag.ExifImageHeight, Tag.ExifInteroperabilityOffset)
)
"""Tags of the EXIF directory that an enlargement makes wrong."""

MAKER_NOTE = int(Tag.MakerNote)

PLACES = {
    "City", "State", "Country", "CountryCode", "Location", "Sublocation", "LocationCreated",
    "LocationShown",
}  # fmt: skip
"""XMP properties that name a place, in whatever namespace; besides those that begin with GPS."""
STALE_XMP = {
    "Orientation", "ImageWidth", "ImageLength", "PixelXDimension", "PixelYDimension", "Thumbnails",
    "HasExtendedXMP",
}  # fmt: skip

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class Metadata:
    """Descriptive metadata as read, location included."""

    base: Mapping[int, Any] = field(default_factory=dict)
    """EXIF main directory, by tag."""
    exif: Mapping[int, Any] = field(default_factory=dict)
    """EXIF directory, by tag."""
    gps: Mapping[int, Any] = field(default_factory=dict)
    xmp: bytes = b""
    texts: Mapping[str, str] = field(default_factory=dict)
    """PNG texts by keyword."""
    dpi: tuple[float, float] | None = None

    def without_location(self) -> Metadata:
        """The same without what may name the place."""
        exif = {tag: value for tag, value in self.exif.items() if tag != MAKER_NOTE}
        texts = {
            k: v for k, v in self.texts.items() if "gps" not in k.lower() and "location" not in k.lower()
        }
        return Metadata(self.base, exif, {}, clean_xmp(self.xmp, PLACES | STALE_XMP, "GPS"), texts, self.dpi)


def read_metadata(image: Image.Image) -> Metadata:
    """What a loaded Pillow image carries; what cannot be read is left out."""
    base: dict[int, Any] = {}
    exif: dict[int, Any] = {}
    gps: dict[int, Any] = {}
    # damaged EXIF makes Pillow raise nearly anything, and is no reason to refuse the picture
    with contextlib.suppress(Exception):
        tags = image.getexif()
        base = {tag: value for tag, value in tags.items() if tag in DESCRIPTIVE}
        with contextlib.suppress(Exception):
            exif = {tag: value for tag, value in tags.get_ifd(EXIF_IFD).items() if tag not in OUTDATED}
        with contextlib.suppress(Exception):
            gps = dict(tags.get_ifd(GPS_IFD))
    xmp = image.info.get("xmp") or getattr(image, "tag_v2", {}).get(XMP_TAG) or b""
    texts = {}
    for key, value in getattr(image, "text", {}).items():
        if not any(word in key.lower() for word in ("raw profile", "xmp", "exif", "software")):
            texts[key] = str(value)
    return Metadata(base, exif, gps, _xmp_bytes(xmp), texts, _resolution(image, base))


def _resolution(image: Image.Image, base: Mapping[int, Any]) -> tuple[float, float] | None:
    """Dots per inch, from the format's own field or from EXIF."""
    inches = {2: 1.0, 3: 2.54}.get(base.get(Tag.ResolutionUnit, 0), 0.0)  # inches, centimetres
    candidates: list[list[tuple[Any, float]]] = [
        [(number, 1.0) for number in image.info.get("dpi", ())],
        [(base.get(tag), inches) for tag in (Tag.XResolution, Tag.YResolution)],
    ]
    for candidate in candidates:
        with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
            across, down = (float(number) * scale for number, scale in candidate)
            if 1 < min(across, down) <= max(across, down) < 1e6:  # 1 is what Pillow makes of none
                return across, down
    return None


def _xmp_bytes(xmp: Any) -> bytes:
    return clean_xmp(xmp.encode() if isinstance(xmp, str) else bytes(xmp), STALE_XMP)


def clean_xmp(xmp: bytes, names: set[str], prefix: str | None = None) -> bytes:
    """An XMP packet without the properties of these local names, or that begin with ``prefix``.

    A packet that is no plain XML (damaged, or with entities of its own) comes back empty.
    """
    if not xmp or b"<!" in xmp.replace(b"<!--", b""):
        return b""

    def unwanted(name: str) -> bool:
        local = name.rpartition("}")[2]
        return local in names or (prefix is not None and local.startswith(prefix))

    try:
        for _, (short, uri) in ET.iterparse(BytesIO(xmp.strip(b"\0 \r\n\t")), events=["start-ns"]):
            with contextlib.suppress(ValueError):  # reserved prefixes are renamed, which XML allows
                ET.register_namespace(short, uri)
        root = ET.fromstring(xmp.strip(b"\0 \r\n\t"))
    except (ET.ParseError, ValueError, LookupError):
        return b""
    for description in root.iter(f"{RDF}Description"):
        for name in [name for name in description.attrib if unwanted(name)]:
            del description.attrib[name]
        for child in [child for child in description if unwanted(child.tag)]:
            description.remove(child)
    return (
        b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        + ET.tostring(root, encoding="utf-8", xml_declaration=False)
        + b'<?xpacket end="w"?>'
    )


def exif_directory(metadata: Metadata, software: str, record: Mapping[str, Any]) -> dict[int, Any]:
    """The tags to write, sub-directories as dicts: description, GPS if it is there, software and record."""
    base = {**metadata.base, int(Tag.Software): software}
    exif = {**metadata.exif, HISTORY: json.dumps(record)}
    directory = {tag: value for tag, value in base.items() if _writable(tag, value)}
    directory[EXIF_IFD] = {tag: value for tag, value in exif.items() if _writable(tag, value)}
    gps = {tag: value for tag, value in metadata.gps.items() if _writable(tag, value)}
    return {**directory, GPS_IFD: gps} if gps else directory


def exif_bytes(directory: Mapping[int, Any]) -> bytes:
    """An EXIF block of these tags."""
    exif = Image.Exif()
    for tag, value in directory.items():
        exif[tag] = value
    return exif.tobytes()


def _writable(tag: int, value: Any) -> bool:
    """Whether Pillow can write the tag: what it could read from a damaged file it may be unable to write."""
    try:
        ifd = TiffImagePlugin.ImageFileDirectory_v2()
        ifd[tag] = value
        ifd.tobytes(8)
    except Exception:
        return False
    return True


def read_record(image: Image.Image) -> dict[str, Any] | None:
    """The record that :func:`exif_directory` put into a file, if there is one."""
    with contextlib.suppress(Exception):
        record = json.loads(image.getexif().get_ifd(EXIF_IFD)[HISTORY])
        return record if isinstance(record, dict) else None
    return None
