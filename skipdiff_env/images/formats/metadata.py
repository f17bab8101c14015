"""The metadata of a photograph file: EXIF, XMP, PNG texts, resolution.

Descriptions of the picture (camera, date, author, caption, …) and the resolution are kept. Data that an
enlargement makes wrong (orientation once applied, sizes, thumbnails, pointers to pictures that are not in the
result) are dropped, and values in pixels are scaled. Data that may reveal the location (GPS, most of XMP,
makers' private notes and tags) are dropped unless the user asks to keep them. A record of how the picture was
made is added: EXIF ``Software`` and, as JSON, ``ImageHistory``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import ExifTags

from . import exif, exif_tags, xmp
from .exif import Directories, Directory

Tag = ExifTags.Base
ORIENTATION = int(Tag.Orientation)
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
"""Tags of the main directory that are kept; others, such as those of a TIFF's layout, are not."""

OUTDATED = int(Tag.ExifImageWidth), int(Tag.ExifImageHeight), exif.EXIF_IFD, exif.GPS_IFD
"""Tags of the EXIF directory that an enlargement makes wrong: sizes, and pointers that would lead nowhere."""

RESOLUTION = int(Tag.XResolution), int(Tag.YResolution), int(Tag.ResolutionUnit)
AREAS = 0x9214, int(Tag.SubjectLocation)  # the first is SubjectArea
DENSITIES = int(Tag.FocalPlaneXResolution), int(Tag.FocalPlaneYResolution)

TEXTS = frozenset({
    "title", "author", "description", "copyright", "creation time", "disclaimer", "warning", "source",
    "comment", "parameters", "prompt", "workflow", "dream", "sd-metadata", "invokeai_metadata",
    "invokeai_graph",
})  # fmt: skip
"""Keywords of PNG texts that reveal no location: those of the standard, and those of image generators."""
COMMENT = "Comment"
"""The keyword of the only text that JPEG and GIF can also hold."""


@dataclass(frozen=True)
class Metadata:
    """Descriptive metadata as read, location included."""

    base: Directory = field(default_factory=dict)
    """EXIF main directory, by tag."""
    exif: Directory = field(default_factory=dict)
    """EXIF directory, by tag."""
    gps: Directory = field(default_factory=dict)
    xmp: bytes = b""
    texts: Mapping[str, str] = field(default_factory=dict)
    """PNG texts by keyword."""
    dpi: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    """Width and height of the upright picture that values in pixels refer to."""

    def without_location(self) -> Metadata:
        """Return a copy without data that may reveal the location."""
        kept = {tag: value for tag, value in self.exif.items() if tag in exif_tags.PLACELESS}
        texts = {key: text for key, text in self.texts.items() if key.lower() in TEXTS}
        return replace(self, exif=kept, gps={}, texts=texts, xmp=xmp.without_places(self.xmp))

    def at(self, size: tuple[int, int]) -> Metadata:
        """Return a copy for the picture enlarged to ``size``, with values in pixels scaled."""
        if self.size in (None, size):
            return self
        assert self.size is not None
        across, down = size[0] / self.size[0], size[1] / self.size[1]
        scaled = dict(self.exif)
        for tag in AREAS:
            if tag in scaled:
                numbers = zip(scaled[tag].numbers(), (across, down) * 2, strict=False)
                scaled[tag] = _counts(*(number * factor for number, factor in numbers))
        for tag, factor in zip(DENSITIES, (across, down), strict=True):
            if tag in scaled:
                scaled[tag] = exif.rationals(scaled[tag].numbers()[0] * factor)
        return replace(self, exif=scaled, xmp=xmp.scaled(self.xmp, across, down), size=size)


def read_metadata(
    found: Directories,
    packet: bytes,
    orientation: int,
    size: tuple[int, int],
    texts: Mapping[str, str],
    dpi: tuple[Any, ...],
) -> Metadata:
    """Read the metadata of a file's picture.

    Args:
        found: the file's EXIF.
        packet: the file's XMP.
        orientation: EXIF orientation of the picture as stored.
        size: width and height of the picture as stored.
        texts: PNG texts by keyword.
        dpi: dots per inch across and down, from the format's own field; empty if it has none.
    """
    base = {tag: value for tag, value in found.base.items() if tag in DESCRIPTIVE}
    unit = base.get(int(Tag.ResolutionUnit))
    if unit and unit.numbers() not in ((1,), (2,), (3,)):  # none, inches, centimetres; others are meaningless
        base = {tag: value for tag, value in base.items() if tag not in RESOLUTION}
    inner = {tag: value for tag, value in found.exif.items() if tag not in OUTDATED}
    kept = {
        key: text
        for key, text in texts.items()
        if not any(word in key.lower() for word in ("raw profile", "xmp", "exif", "software"))
    }
    return Metadata(
        base, _turned(inner, orientation, size), found.gps, xmp.clean(packet), kept, _resolution(dpi, base),
        size[::-1] if orientation >= 5 else size,
    )  # fmt: skip


def read_orientation(found: Directories, packet: bytes = b"") -> int:
    """Return the EXIF orientation, 1 … 8; 1 if it is missing or invalid. If EXIF has none, XMP's is used."""
    if ORIENTATION in found.base:
        numbers = found.base[ORIENTATION].numbers()
        return int(numbers[0]) if len(numbers) == 1 and numbers[0] in range(1, 9) else 1
    return xmp.orientation(packet)


def _turned(found: Directory, orientation: int, size: tuple[int, int]) -> dict[int, exif.Value]:
    """Turn subject areas and resolutions of an EXIF directory to those of the upright picture; drop invalid
    ones."""
    numbers = {tag: found[tag].numbers() for tag in (*AREAS, *DENSITIES) if tag in found}
    counted = {tag: them for tag, them in numbers.items() if all(0 <= number < 2**24 for number in them)}
    turned = {tag: value for tag, value in found.items() if tag not in (*AREAS, *DENSITIES)}
    sideways = orientation >= 5
    for tag, other in zip(DENSITIES, DENSITIES[::-1] if sideways else DENSITIES, strict=True):
        if len(counted.get(other, ())) == 1:
            turned[tag] = found[other]
    width, height = size[::-1] if sideways else size
    for tag in AREAS:
        if 2 <= len(counted.get(tag, ())) <= 4:
            x, y, *extent = counted[tag]
            if sideways:
                x, y, extent = y, x, extent[::-1]
            x = width - 1 - x if orientation in (2, 3, 6, 7) else x
            y = height - 1 - y if orientation in (3, 4, 7, 8) else y
            turned[tag] = _counts(x, y, *extent)
    return turned


def _counts(*numbers: float) -> exif.Value:
    """Encode values in pixels, in 16 bits as in EXIF, or in 32 if the result is too large for that."""
    whole = [max(0, round(number)) for number in numbers]
    return exif.shorts(*whole) if max(whole, default=0) < 2**16 else exif.longs(*whole)


def _resolution(dpi: tuple[Any, ...], base: Directory) -> tuple[float, float] | None:
    """Return the dots per inch, from the format's own field or from EXIF."""

    def numbers(tag: int) -> tuple[float, ...]:
        return base[tag].numbers() if tag in base else ()

    units: dict[tuple[float, ...], float] = {(2,): 1.0, (3,): 2.54}  # inches, centimetres
    inches = units.get(numbers(Tag.ResolutionUnit), 0.0)
    from_exif = tuple(n * inches for tag in (Tag.XResolution, Tag.YResolution) for n in numbers(tag))
    for candidate in (dpi, from_exif):
        with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
            across, down = (float(number) for number in candidate)
            if 1 < across < 1e6 and 1 < down < 1e6:  # Pillow gives 1 if there is none
                return across, down
    return None


def exif_directories(metadata: Metadata, software: str, record: Mapping[str, Any]) -> Directories:
    """Return the EXIF to write: description, GPS if there is any, software and record."""
    base = {**metadata.base, int(Tag.Software): exif.text(software)}
    if metadata.dpi and int(Tag.XResolution) not in base:  # WebP has no field of its own, JPEG's is small
        values = (*(exif.rationals(number) for number in metadata.dpi), exif.shorts(2))
        base |= dict(zip(RESOLUTION, values, strict=True))
    return Directories(base, {**metadata.exif, HISTORY: exif.text(json.dumps(record))}, metadata.gps)


def exif_bytes(found: Directories) -> bytes:
    """Return an EXIF block, preceded by the name that JPEG requires."""
    return b"Exif\0\0" + b"".join(exif.build(found))


def read_record(metadata: Metadata) -> dict[str, Any] | None:
    """Read the record that :func:`exif_directories` put into a file; None if there is none."""
    with contextlib.suppress(KeyError, ValueError):
        record = json.loads(metadata.exif[HISTORY].text())
        return record if isinstance(record, dict) else None
    return None
