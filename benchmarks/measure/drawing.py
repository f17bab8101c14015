"""Draws and writes the benchmarks' pictures; matplotlib comes with the extra ``bench``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skipdiff_env import SkipDiffError
from skipdiff_env.files import write_atomically

COLOURS = 256
"""Number of colours in the palette of a plot; a palette halves the size of the file."""
DESCRIPTION = 0x010E
"""The EXIF tag ``ImageDescription``, which says what a picture was made from."""


def new_figure(width: float, height: float) -> Any:
    """Create a matplotlib figure of this size in inches, without a window system.

    Raises:
        SkipDiffError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SkipDiffError("plots need matplotlib: pip install 'skipdiff[bench]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def save_plot(figure: Any, path: Path) -> None:
    """Write a plot as a PNG with a palette, whole or not at all."""
    file = io.BytesIO()
    _drawn(figure, 130).quantize(COLOURS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    write_atomically(path, file.getvalue())


def save_picture(picture: Any, path: Path, about: str) -> None:
    """Write photographs, or a figure that shows them, as lossless WebP, whole or not at all.

    A lossy file would be a quarter of the size, but would smooth the grain that the pictures should show.

    Args:
        picture: a figure, or an array (H, W, 3) of bytes.
        path: file with the suffix ``.webp``.
        about: what it was made from, see :func:`made_of`.
    """
    # A figure shows noise, which does not compress, so it has fewer dots per inch.
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else _drawn(picture, 80)
    exif, file = Image.Exif(), io.BytesIO()
    exif[DESCRIPTION] = about
    image.save(file, "WEBP", lossless=True, method=6, exif=exif)
    write_atomically(path, file.getvalue())


def made_of(path: Path) -> str | None:
    """Return the ``about`` that :func:`save_picture` was given, or None if there is no such picture."""
    if not path.is_file():
        return None
    with Image.open(path) as image:
        return image.getexif().get(DESCRIPTION)


def _drawn(figure: Any, dpi: int) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return Image.open(file).convert("RGB")
