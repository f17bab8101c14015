"""ICC colour profiles: whether they fit the pixels, and the conversion of pixels to sRGB."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "LAB"}


def profile_fits(profile: bytes | None, mode: str) -> bool:
    """Return whether pixels of a Pillow mode (L, RGB, CMYK, LAB) can be converted with ``profile``."""
    if not profile:
        return False
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != _SPACES.get(mode):
            return False
        ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ImageCms.PyCMSError):
        return False
    return True


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an L, RGB or CMYK image by its profile, or a LAB image, to sRGB, with perceptual intent.

    Without a profile that fits, Pillow converts: each of CMYK's colours becomes (1 - ink) · (1 - black), and
    L and RGB count as sRGB.
    """
    source: Any = ImageCms.createProfile("LAB")
    if image.mode != "LAB":
        if profile is None or not profile_fits(profile, image.mode):
            return image.convert("RGB")
        source = BytesIO(profile)
    target = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert converted is not None  # None is for in-place conversions
    return converted
