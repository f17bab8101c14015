"""Removes from XMP packets what an enlargement makes untrue and, by default, what may reveal the location.

Names are compared together with their namespace's URI, since prefixes are arbitrary. The list is of
properties that may stay, not of those that may reveal the location, since makers keep inventing more of the
latter.
"""

from __future__ import annotations

import contextlib
import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from io import StringIO

_RDF, _XML = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://www.w3.org/XML/1998/namespace"
_SKELETON = {
    _RDF: frozenset({"RDF", "Description", "Bag", "Seq", "Alt", "li"}),
    "adobe:ns:meta/": frozenset({"xmpmeta", "xapmeta"}),
    _XML: frozenset[str](),
}
"""Namespace → elements that structure a packet and carry no information of their own."""
_ABOUT = f"{{{_RDF}}}about"
"""An attribute that is required, and carries no information."""
_SAID = {f"{{{_RDF}}}parseType": "Resource", f"{{{_XML}}}lang": "[A-Za-z]{1,8}([-_][A-Za-z0-9]{1,8})*"}
"""The skeleton's other attributes → patterns of the values that they may have."""
_VALUES = frozenset(f"{{{_RDF}}}{name}" for name in ("type", "value", "resource"))
"""RDF's elements and attributes that hold a property's value; outside a property they are removed."""

_ENCODINGS = {
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"<\0\0\0": "utf-32-le", b"\0\0\0<": "utf-32-be",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be",
}  # fmt: skip
"""Beginning of a packet → its encoding, which is UTF-8 otherwise; the packet's own declaration is ignored."""
_DECLARATION = re.compile(r"<!(?!--|\[CDATA\[)")
"""Pattern of document type declarations, whose entities may be bombs or refer to files."""

_EXIF, _TIFF = "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/tiff/1.0/"
_XMP, _PANORAMA = "http://ns.adobe.com/xap/1.0/", "http://ns.google.com/photos/1.0/panorama/"
_NOTE = "http://ns.adobe.com/xmp/note/"

PLACELESS: dict[str, frozenset[str]] = {
    uri: frozenset(names.split())
    for uri, names in {
        "http://purl.org/dc/elements/1.1/": (
            "contributor creator date description format identifier language publisher relation rights "
            "source subject title type"
        ),
        _XMP: "BaseURL CreateDate CreatorTool Identifier Label MetadataDate ModifyDate Nickname Rating",
        "http://ns.adobe.com/xap/1.0/rights/": "Certificate Marked Owner UsageTerms WebStatement",
        "http://ns.adobe.com/xap/1.0/mm/": "DocumentID InstanceID OriginalDocumentID",
        _TIFF: (
            "Artist Copyright DateTime ImageDescription Make Model ResolutionUnit Software "
            "XResolution YResolution"
        ),
        _EXIF: (
            "ApertureValue BrightnessValue CompressedBitsPerPixel Contrast CustomRendered "
            "DateTimeDigitized DateTimeOriginal DigitalZoomRatio ExifVersion ExposureBiasValue "
            "ExposureIndex ExposureMode ExposureProgram ExposureTime FileSource Fired Flash FlashEnergy "
            "FlashpixVersion FNumber FocalLength FocalLengthIn35mmFilm Function GainControl "
            "ISOSpeedRatings ImageUniqueID LightSource MaxApertureValue MeteringMode Mode RedEyeMode "
            "Return Saturation SceneCaptureType SceneType SensingMethod Sharpness ShutterSpeedValue "
            "SpectralSensitivity SubjectDistance SubjectDistanceRange UserComment WhiteBalance"
        ),
        "http://ns.adobe.com/exif/1.0/aux/": (
            "Firmware FlashCompensation ImageNumber Lens LensID LensInfo LensSerialNumber OwnerName "
            "SerialNumber"
        ),
        "http://cipa.jp/exif/1.0/": (
            "BodySerialNumber CameraOwnerName Gamma ISOSpeed LensMake LensModel LensSerialNumber "
            "LensSpecification PhotographicSensitivity RecommendedExposureIndex SensitivityType"
        ),
        "http://ns.adobe.com/photoshop/1.0/": (
            "AuthorsPosition CaptionWriter Category Copyright Credit DateCreated Headline Instructions "
            "Source SupplementalCategories TransmissionReference Urgency"
        ),
        "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": (
            "AltTextAccessibility CiEmailWork CiTelWork CiUrlWork CreatorContactInfo "
            "ExtDescrAccessibility IntellectualGenre Scene SubjectCode"
        ),
        "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "DigitalSourceType PersonInImage",
        "http://ns.useplus.org/ldf/xmp/1.0/": (
            "CopyrightOwner CopyrightOwnerID CopyrightOwnerName DataMining ImageCreator ImageCreatorID "
            "ImageCreatorName ImageSupplier ImageSupplierID ImageSupplierName Licensor LicensorEmail "
            "LicensorID LicensorName LicensorURL"
        ),
        "http://creativecommons.org/ns#": "attributionName attributionURL license morePermissions",
        _PANORAMA: (
            "CroppedAreaImageHeightPixels CroppedAreaImageWidthPixels CroppedAreaLeftPixels "
            "CroppedAreaTopPixels FirstPhotoDate FullPanoHeightPixels FullPanoWidthPixels "
            "InitialHorizontalFOVDegrees InitialViewHeadingDegrees InitialViewPitchDegrees "
            "InitialViewRollDegrees LargestValidInteriorRectHeight LargestValidInteriorRectLeft "
            "LargestValidInteriorRectTop LargestValidInteriorRectWidth LastPhotoDate PoseHeadingDegrees "
            "PosePitchDegrees PoseRollDegrees ProjectionType SourcePhotosCount StitchingSoftware "
            "UsePanoramaViewer"
        ),
    }.items()
}  # fmt: skip
"""Namespace → properties that reveal no location; an author's postal address is not among them."""

_STALE: dict[str, frozenset[str]] = {
    uri: frozenset(names.split())
    for uri, names in {
        _TIFF: (
            "BitsPerSample Compression ImageLength ImageWidth Orientation PhotometricInterpretation "
            "PlanarConfiguration PrimaryChromaticities ReferenceBlackWhite SamplesPerPixel "
            "TransferFunction WhitePoint YCbCrCoefficients YCbCrPositioning YCbCrSubSampling"
        ),
        _EXIF: (
            "ColorSpace ComponentsConfiguration FocalPlaneResolutionUnit FocalPlaneXResolution "
            "FocalPlaneYResolution PixelXDimension PixelYDimension SubjectArea SubjectLocation"
        ),
        _XMP: "Thumbnails",
        _NOTE: "HasExtendedXMP",
        "http://ns.adobe.com/photoshop/1.0/": "ColorMode ICCProfile",
        "http://www.metadataworkinggroup.com/schemas/regions/": "AppliedToDimensions",
    }.items()
}
"""Sizes, layouts and colour spaces that the result does not share, and pointers to what it does not hold."""

_COMPANIONS = {
    "http://ns.adobe.com/hdr-gain-map/": "gain map (HDR)",
    "http://ns.apple.com/HDRGainMap/": "gain map (HDR)",
    "http://ns.google.com/photos/1.0/depthmap/": "depth map",
    "http://ns.google.com/photos/dd/": "depth map",
    "http://ns.apple.com/depthData/": "depth map",
    "http://ns.google.com/photos/1.0/audio/": "sound",
    "http://ns.google.com/photos/1.0/image/": "second picture",
    "http://ns.google.com/photos/1.0/container/": "",
    "http://ns.google.com/photos/1.0/camera/": "",
    "http://ns.apple.com/pixeldatainfo/": "",
}
"""Beginnings of namespaces → what else is in the file if they are used; empty if that varies."""
_MOTION = ("http://ns.google.com/photos/1.0/camera/", ("MotionPhoto", "MicroVideo"))

_SCALED = {"Width": 0, "Left": 0, "Height": 1, "Top": 1}
"""Words in names of panorama properties → 0 if the number counts columns, 1 if it counts rows."""


_PADDING = "\0 \r\n\t"

_prefixes = threading.RLock()
"""ElementTree keeps the prefixes that it writes in a global table, so packets are handled one at a time."""


def clean(xmp: bytes) -> bytes:
    """Return an XMP packet, in UTF-8, without what an enlargement makes untrue; empty if not legible."""
    return _filtered(xmp, lambda uri, name: not (name in _STALE.get(uri, ()) or _companion(uri) is not None))


def without_places(xmp: bytes) -> bytes:
    """Return an XMP packet with only the properties that are known to reveal no location."""
    return _filtered(xmp, lambda uri, name: name in PLACELESS.get(uri, ()))


def is_legible(xmp: bytes) -> bool:
    """Return whether a packet is empty or plain XML: no damage, no entities of its own."""
    return not xmp.strip(_PADDING.encode()) or _parsed(xmp) is not None


def orientation(xmp: bytes) -> int:
    """Return the picture's orientation according to a packet, in EXIF's numbers; 1 if it gives none."""
    root = _parsed(xmp)
    for element in root.iter() if root is not None else ():
        said = {element.tag: element.text or "", **element.attrib}.get(f"{{{_TIFF}}}Orientation", "").strip()
        if re.fullmatch("[1-8]", said):
            return int(said)
    return 1


def companions(xmp: bytes) -> list[str]:
    """List in words what else is in the file according to a packet, such as a gain map or a motion video."""
    found = set()
    for uri, name in _names(_parsed(xmp)):
        if uri == _MOTION[0] and name.startswith(_MOTION[1]):
            found.add("motion video")
        elif (uri, name) == (_NOTE, "HasExtendedXMP"):
            found.add("extended XMP")
        elif what := _companion(uri):
            found.add(what)
    return sorted(found)


def scaled(xmp: bytes, across: float, down: float) -> bytes:
    """Return an XMP packet with the panorama's sizes and positions scaled by ``across`` and ``down``."""

    def factor(name: str) -> float | None:
        uri, local = _split(name)
        axes = [axis for word, axis in _SCALED.items() if word in local]
        return (across, down)[axes[0]] if uri == _PANORAMA and axes else None

    with _prefixes:
        root = _parsed(xmp)
        if root is None or not any(uri == _PANORAMA for uri, _ in _names(root)):
            return xmp
        for element in root.iter():
            for name, text in element.attrib.items():
                element.set(name, _times(text, factor(name)))
            if element.text and not len(element):
                element.text = _times(element.text, factor(element.tag))
        return _packet(root)


def _times(text: str, factor: float | None) -> str:
    with contextlib.suppress(ValueError, OverflowError):
        return text if factor is None else str(round(float(text) * factor))
    return text


def _companion(uri: str) -> str | None:
    return next((what for start, what in _COMPANIONS.items() if uri.startswith(start)), None)


def _split(name: str) -> tuple[str, str]:
    """Split an element's or attribute's name, as ElementTree gives it, into namespace and local name."""
    uri, _, local = name.rpartition("}")
    return uri.removeprefix("{"), local


def _names(root: ET.Element | None) -> Iterator[tuple[str, str]]:
    for element in root.iter() if root is not None else ():
        yield from (_split(name) for name in (element.tag, *element.attrib))


def _parsed(xmp: bytes) -> ET.Element | None:
    encoding = next((name for start, name in _ENCODINGS.items() if xmp.startswith(start)), "utf-8")
    try:
        text = xmp.decode(encoding).strip("\ufeff" + _PADDING)
        if not text or _DECLARATION.search(text):
            return None
        for _, (short, uri) in ET.iterparse(StringIO(text), events=["start-ns"]):
            with contextlib.suppress(ValueError), _prefixes:  # reserved ones may be renamed
                if short:  # attributes cannot be in a namespace without a prefix
                    ET.register_namespace(short, uri)
        return ET.fromstring(text)
    except (ET.ParseError, ValueError):
        return None


def _filtered(xmp: bytes, wanted: Callable[[str, str], bool]) -> bytes:
    """Return the packet with the properties (and fields of properties) that are wanted, and its skeleton."""
    with _prefixes:
        root = _parsed(xmp)
        if root is None or not _prune(root, wanted) or all(uri in _SKELETON for uri, _ in _names(root)):
            return b""
        return _packet(root)


def _prune(element: ET.Element, wanted: Callable[[str, str], bool], inside: bool = False) -> bool:
    """Remove what is unwanted in an element; return whether the element itself is to stay.

    Args:
        element: element of a packet.
        wanted: function that says whether a property stays, by namespace and local name.
        inside: whether the element is part of a property; the skeleton loses its text.
    """

    def stays(name: str) -> bool:
        uri, local = _split(name)
        return (inside and name in _VALUES) if uri in _SKELETON else wanted(uri, local)

    uri, local = _split(element.tag)
    if not (local in _SKELETON.get(uri, ()) or stays(element.tag)):
        return False
    inside = inside or uri not in _SKELETON
    for name, text in list(element.attrib.items()):
        if name == _ABOUT:
            element.set(name, "")
        elif not (re.fullmatch(_SAID[name], text) if name in _SAID else stays(name)):
            del element.attrib[name]
    for child in list(element):
        if not _prune(child, wanted, inside):
            element.remove(child)
        elif not inside:
            child.tail = None
    if not inside:
        element.text = None
    return True


def _packet(root: ET.Element) -> bytes:
    return (
        b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        + ET.tostring(root, encoding="utf-8", xml_declaration=False)
        + b'<?xpacket end="w"?>'
    )
