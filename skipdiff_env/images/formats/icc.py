"""Makes ICC profiles for colour spaces that a file specifies by code points, or by gamma and primaries.

A profile is the only way of specifying a colour space that JPEG, PNG, WebP and TIFF share. References:
ICC.1:2001-04 (the format), ITU-T H.273 (code points), Bradford's matrix (from a white point to D50, to which
profiles refer).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

Curve = float | np.ndarray
"""How encoded values become light: a gamma, or evenly spaced samples in 0 … 1."""

D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)


class Primaries(NamedTuple):
    """The chromaticities (x, y) of the primaries and of white."""

    white: tuple[float, float]
    red: tuple[float, float]
    green: tuple[float, float]
    blue: tuple[float, float]


SRGB = Primaries(_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB = Primaries(_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
ADOBE_GAMMA = 563 / 256

_PRIMARIES = {
    1: SRGB,
    4: Primaries(_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Primaries(_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries(_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: Primaries(_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: Primaries(_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Primaries((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Primaries(_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: Primaries(_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""Primaries by code point (H.273, table 2)."""

_OPEN = 2
"""The code point for unspecified primaries, and for an unspecified transfer."""

HDR = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of H.273, table 3, that no profile of gammas and primaries can express."""

_SAMPLES = np.linspace(0, 1, 4096)


def srgb_curve() -> np.ndarray:
    """Return sRGB's curve from encoded values to light, according to IEC 61966-2-1."""
    return np.where(_SAMPLES <= 0.04045, _SAMPLES / 12.92, ((_SAMPLES + 0.055) / 1.055) ** 2.4)


def _video_curve(edge: float, slope: float, offset: float) -> np.ndarray:
    power = ((_SAMPLES + offset) / (1 + offset)) ** (1 / 0.45)
    return np.where(edge > _SAMPLES, _SAMPLES / slope, power)


def _transfer(code: int) -> Curve | None:
    """Return the inverse of a transfer function of H.273, table 3: from encoded values to light."""
    if code in (1, 6, 14, 15):
        return _video_curve(0.081, 4.5, 0.099)
    if code == 7:
        return _video_curve(0.0913, 4.0, 0.1115)
    return {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}.get(code, srgb_curve() if code == 13 else None)


def from_code_points(
    codes: bytes, grey: bool, gamma: float | None = None, primaries: Primaries | None = None
) -> bytes | None:
    """Return the profile that four code points stand for: primaries, transfer, matrix, full range.

    None if there is none: for HDR, for codes that are undefined or not supported, and for values that are not
    full-range RGB. For unspecified codes, ``primaries`` and the encoding ``gamma`` are used, or else sRGB's.
    """
    curve: Curve | None = 1 / gamma if gamma else srgb_curve()
    curve = curve if codes[1] == _OPEN else _transfer(codes[1])
    primaries = primaries or SRGB if codes[0] == _OPEN else _PRIMARIES.get(codes[0])
    if primaries is None or curve is None or codes[2] != 0 or codes[3] != 1:
        return None
    return profile(primaries, curve, grey)


def is_open(codes: bytes) -> bool:
    """Return whether four code points leave primaries or transfer unspecified, and give none but sRGB's."""
    return _OPEN in codes[:2] and codes[0] in (1, _OPEN) and codes[1] in (13, _OPEN)


def is_srgb(codes: bytes) -> bool:
    """Return whether four code points mean sRGB, which is also assumed if a file states nothing."""
    return codes == bytes([1, 13, 0, 1])


def is_limited(codes: bytes) -> bool:
    """Return whether four code points mean RGB of limited range; those that H.273 reserves do not."""
    defined = codes[0] in (_OPEN, *_PRIMARIES) and codes[1] in range(1, 19) and codes[1] != 3
    return defined and codes[2:] == b"\0\0"


def from_gamma(gamma: float | None, primaries: Primaries | None, grey: bool) -> bytes | None:
    """Make the profile for an encoding gamma (0.45455 is usual) and chromaticities.

    A missing gamma or missing chromaticities are taken from sRGB. None if the result is sRGB, for which
    0.45455 is the usual approximation, or if the values are invalid.
    """
    primaries = primaries or SRGB
    usual = gamma is None or abs(gamma - 0.45455) < 0.005
    near = np.abs(np.subtract(primaries, SRGB)).max() < 0.005
    if usual and (near or grey):
        return None
    curve = srgb_curve() if gamma is None else 1 / gamma
    return profile(primaries, curve, grey)


def profile(primaries: Primaries, curve: Curve, grey: bool = False) -> bytes | None:
    """Make an ICC profile (version 2) with these primaries and this curve, for grey or RGB pixels.

    None if the primaries span no colours, or if they or the gamma are beyond what a profile can hold.
    """
    if isinstance(curve, float) and not 0.01 < curve < 255:
        return None
    try:
        white, colourants = _xyz(primaries.white), _colourants(primaries)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return None
    if not (np.abs([white, *colourants]) <= 100).all():  # false for NaN, too
        return None
    name = b"made for an enlargement"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" * (1 + 4 + 4 + 2 + 1 + 67),
        b"cprt": b"text\0\0\0\0No copyright\0",
        b"wtpt": _xyz_tag(white),
    }
    response = _curve_tag(curve)
    if grey:
        tags[b"kTRC"] = response
    else:
        for letter, colourant in zip((b"r", b"g", b"b"), colourants.T, strict=True):
            tags[letter + b"XYZ"] = _xyz_tag(colourant)
            tags[letter + b"TRC"] = response
    return _assembled(b"GRAY" if grey else b"RGB ", tags)


def _xyz(chromaticity: tuple[float, float]) -> np.ndarray:
    x, y = chromaticity
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _colourants(primaries: Primaries) -> np.ndarray:
    """Return the matrix from linear RGB to XYZ relative to D50."""
    white = _xyz(primaries.white)
    mixed = np.stack([_xyz(p) for p in primaries[1:]], axis=1)
    mixed = mixed * np.linalg.solve(mixed, white)
    ratio = (_BRADFORD @ D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(ratio) @ _BRADFORD @ mixed


def _xyz_tag(xyz: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in xyz))


def _curve_tag(curve: Curve) -> bytes:
    if isinstance(curve, float):
        numbers = np.array([] if curve == 1 else [round(curve * 256)])
    else:
        numbers = np.rint(curve * 65535)
    return b"curv\0\0\0\0" + struct.pack(">I", len(numbers)) + numbers.astype(">u2").tobytes()


def _assembled(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Assemble the profile: header, table of tags, and each distinct value once."""
    first = 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    body = b""
    for value in tags.values():
        if value not in places:
            places[value] = first + len(body)
            body += value + b"\0" * (-len(value) % 4)
    table = struct.pack(">I", len(tags))
    table += b"".join(struct.pack(">4sII", tag, places[v], len(v)) for tag, v in tags.items())
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    illuminant = struct.pack(">3i", *(round(v * 65536) for v in D50))
    header = (
        struct.pack(">I4xI4s4s4s", first + len(body), 0x02100000, b"mntr", space, b"XYZ ") + date + b"acsp"
    )
    return header.ljust(68, b"\0") + illuminant.ljust(60, b"\0") + table + body
