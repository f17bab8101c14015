"""Text and line art, drawn by code, since people enlarge these as well as photographs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from skipdiff_env.images import ImageSource

SIDE = 256
"""Side of the originals in pixels."""
OVERSAMPLING = 4
"""Everything is drawn this many times larger and shrunk, so that edges are smooth at any angle."""
# fmt: off
_WORDS = [
    "the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "Invoice", "Total", "Figure", "Menu",
    "Paris", "1984", "24.50", "email", "river", "Warning", "open", "Monday", "coffee", "north", "station",
    "page", "chapter", "light", "water", "https", "index", "Kelvin", "Basel",
]
# fmt: on


def text(seed: int) -> np.ndarray:
    """Draw lines of words in two sizes on a light or dark background, uint8 (256, 256, 3)."""
    rng = np.random.default_rng([1, seed])
    paper, ink = _two_colours(rng)
    image = Image.new("RGB", (SIDE * OVERSAMPLING,) * 2, paper)
    pen, y = ImageDraw.Draw(image), 8 * OVERSAMPLING
    while y < SIDE * OVERSAMPLING:
        size = int(rng.choice([13, 16, 20, 28])) * OVERSAMPLING
        line = " ".join(rng.choice(_WORDS, 12))
        pen.text((8 * OVERSAMPLING, y), line, fill=ink, font=ImageFont.load_default(size))
        y += int(1.35 * size)
    return _shrunk(image)


def line_art(seed: int) -> np.ndarray:
    """Draw curves, circles, polygons and filled shapes with outlines, uint8 (256, 256, 3)."""
    rng = np.random.default_rng([2, seed])
    paper, ink = _two_colours(rng)
    side = SIDE * OVERSAMPLING
    image = Image.new("RGB", (side, side), paper)
    pen = ImageDraw.Draw(image)
    for _ in range(14):
        width = int(rng.integers(1, 5)) * OVERSAMPLING
        points = [(float(x), float(y)) for x, y in rng.uniform(0, side, (int(rng.integers(3, 6)), 2))]
        fill = tuple(int(c) for c in rng.integers(0, 256, 3)) if rng.random() < 0.4 else None
        kind = rng.integers(3)
        if kind == 0:
            pen.polygon(points, fill=fill, outline=ink, width=width)
        elif kind == 1:
            (x, y), radius = points[0], float(rng.uniform(0.03, 0.25)) * side
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill, outline=ink, width=width)
        else:
            pen.line(points, fill=ink, width=width, joint="curve")
    return _shrunk(image)


DRAWN: dict[str, Callable[[int], np.ndarray]] = {"text": text, "line art": line_art}
"""Functions that draw a picture from a seed, by name."""


def drawings(of: str, count: int) -> ImageSource:
    """Return ``count`` originals of one kind."""
    name = of.replace(" ", "-")
    return ImageSource([(f"{name}-{seed}", partial(DRAWN[of], seed)) for seed in range(count)])


def _two_colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw a background and an ink at random, tinted and mostly dark on light."""
    light, dark = rng.integers(225, 256, 3), rng.integers(0, 60, 3)
    if rng.random() < 0.25:
        light, dark = dark, light
    return tuple(int(c) for c in light), tuple(int(c) for c in dark)


def _shrunk(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))
