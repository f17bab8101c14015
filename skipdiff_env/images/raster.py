"""A photograph in memory, and operations on its pixels that are common to all file formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ..errors import SkipDiffError
from .formats.coding import Coding
from .formats.exif import Directories
from .formats.metadata import Metadata, read_metadata, read_orientation
from .formats.profiles import profile_fits, to_srgb


class DamagedError(SkipDiffError):
    """A file of a known format, part of which is missing or invalid."""

    def __init__(self, why: str) -> None:
        super().__init__(f"is damaged or truncated ({why}): copy it again from the source")


@dataclass(frozen=True)
class Photo:
    """An upright photograph."""

    colour: np.ndarray
    """uint8 or uint16 (H, W, 3), or (H, W, 1) if grey."""
    alpha: np.ndarray | None = None
    """Alpha (H, W) with the same dtype, not premultiplied; None if there is none."""
    profile: bytes | None = None
    """ICC profile of ``colour``."""
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    """Changes that reading made, in words for the user."""
    code_points: bytes | None = None
    """Code points of ITU-T H.273 for the colour space of ``colour``, as in PNG's cICP chunk; None if the file
    gives none, or if they are not needed. HDR has a profile in addition only if the file holds one."""
    coding: Coding | None = None
    """The lossy coding of its file, if the header describes one."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.colour.shape[1], self.colour.shape[0]

    @property
    def deep(self) -> bool:
        """Whether it has 16 bits per channel."""
        return self.colour.dtype == np.uint16

    @property
    def mode(self) -> str:
        """Pillow's mode for the colour, L or RGB."""
        return "L" if self.colour.shape[2] == 1 else "RGB"

    def planes(self) -> np.ndarray:
        """Return the channels, (H, W, 1 … 4): colour, followed by alpha if there is one."""
        return (
            self.colour
            if self.alpha is None
            else np.concatenate([self.colour, self.alpha[..., None]], axis=2)
        )

    def pillow(self) -> Image.Image:
        """Return the pixels, which must have 8 bits, as a Pillow image: L, LA, RGB or RGBA."""
        pixels = self.planes()
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)

    def noting(self, *notes: str) -> Photo:
        """Return a copy with more notes."""
        return replace(self, notes=(*self.notes, *notes))


@dataclass(frozen=True)
class Source:
    """A file whose header has been read."""

    format: str
    """Name of its format, in lower case."""
    size: tuple[int, int]
    """Width and height of the picture as stored."""
    decode: Callable[[], Photo]
    """Function that decodes the pixels as stored, with colour space and notes, while the file is open."""
    exif: Directories = field(default_factory=Directories)
    xmp: bytes = b""
    texts: Mapping[str, str] = field(default_factory=dict)
    """PNG texts by keyword."""
    dpi: tuple[Any, ...] = ()
    """Dots per inch across and down, from the format's own field; empty if it has none."""
    turned: bool = False
    """Whether the decoder turns it upright, whatever EXIF says."""
    coding: Coding | None = None
    """Its lossy coding, if the header describes one."""

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1 … 8."""
        return 1 if self.turned else read_orientation(self.exif, self.xmp)

    @property
    def metadata(self) -> Metadata:
        """The metadata of the upright picture."""
        return read_metadata(self.exif, self.xmp, self.orientation, self.size, self.texts, self.dpi)


def with_profile(photo: Photo, profile: bytes | None) -> Photo:
    """Return the photograph with a file's ICC profile if it fits, else with a note."""
    if not profile:
        return photo
    if profile_fits(profile, photo.mode):
        return replace(photo, profile=profile)
    return photo.noting("its colour profile does not fit its pixels and is left out")


def from_pillow(image: Image.Image, profile: bytes | None = None) -> Photo:
    """Convert a loaded Pillow image, of 8 bits per channel or 16 bits of grey, to a photograph.

    The photograph has no metadata and is not turned upright. Palettes become RGB; CMYK, by the profile,
    and Lab become sRGB.

    Raises:
        SkipDiffError: if its pixels have 32 bits.
    """
    if image.mode in ("I", "F"):
        raise SkipDiffError("has 32-bit pixels without a defined white: convert it to 8 or 16 bits first")
    if image.mode.startswith("I;16"):
        return with_profile(Photo(np.asarray(image).astype(np.uint16)[..., None]), profile)
    if image.mode in ("CMYK", "LAB"):
        return converted(image, profile)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data or image.mode in ("La", "PA"):
        pixels = np.array(image.convert("LA" if grey else "RGBA"))
        colour, alpha = np.ascontiguousarray(pixels[..., :-1]), np.ascontiguousarray(pixels[..., -1])
        return with_profile(Photo(colour, alpha), profile)
    colour = np.array(image.convert("L" if grey else "RGB"))
    return with_profile(Photo(colour[..., None] if grey else colour), profile)


def converted(image: Image.Image, profile: bytes | None) -> Photo:
    """Convert a CMYK or LAB image to sRGB, and add a note that says so."""
    known = image.mode == "LAB" or profile_fits(profile, image.mode)
    note = f"{image.mode} converted to sRGB" + ("" if known else " without a profile: colours may be off")
    return Photo(np.array(to_srgb(image, profile)), notes=(note,))


def upright(photo: Photo, orientation: int) -> Photo:
    """Apply an EXIF orientation, 1 … 8."""

    def turn(pixels: np.ndarray) -> np.ndarray:
        if orientation in (5, 6, 7, 8):
            pixels = np.swapaxes(pixels, 0, 1)
        if orientation in (2, 3, 6, 7):
            pixels = pixels[:, ::-1]
        if orientation in (3, 4, 7, 8):
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    alpha = None if photo.alpha is None else turn(photo.alpha)
    return replace(photo, colour=turn(photo.colour), alpha=alpha)


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composite colour (H, W, C) over white with alpha (H, W); both have the same dtype."""
    white = np.iinfo(colour.dtype).max
    share = alpha[..., None] / white
    return np.rint(colour * share + white * (1 - share)).astype(colour.dtype)


def unmultiplied(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Undo the premultiplication of colour (H, W, C) by alpha (H, W)."""
    white = np.iinfo(colour.dtype).max
    share = np.maximum(alpha, 1)[..., None] / white
    return np.rint(np.minimum(colour / share, white)).astype(colour.dtype)


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Convert uint8 or uint16 to uint8, rounded."""
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)


def rescaled(samples: np.ndarray, bits: int) -> np.ndarray:
    """Scale unsigned integers of 1 … 16 bits to uint8 or, above 8 bits, uint16, with white at the maximum."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    if bits in (8, 16):
        return samples.astype(dtype)
    white = np.iinfo(dtype).max
    table = np.rint(np.arange(2**bits) * (white / (2**bits - 1))).astype(dtype)
    return table[samples]


def full_range(samples: np.ndarray) -> np.ndarray:
    """Spread uint8 or uint16 of H.273's limited range (black at 16/256, white at 235/256) to the full one."""
    white = np.iinfo(samples.dtype).max
    step = (white + 1) / 256
    levels = (np.arange(white + 1) - 16 * step) * (white / (219 * step))
    return np.rint(levels.clip(0, white)).astype(samples.dtype)[samples]
