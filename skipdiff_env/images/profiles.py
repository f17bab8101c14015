"""ICC colour profiles: which fit the pixels, and the way to sRGB where a file cannot hold them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "LAB"}


def profile_fits(profile: bytes | None, mode: str) -> bool:
    """Whether ``profile`` is readable and describes pixels of a Pillow mode (L, RGB, CMYK, LAB)."""
    if not profile:
        return False
    try:
        space = ImageCms.ImageCmsProfile(BytesIO(profile)).profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError):
        return False
    return space == _SPACES.get(mode)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An L, RGB, CMYK or LAB image → RGB in sRGB, perceptually, by its profile.

    CMYK without a profile is converted by the plain formula.
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
