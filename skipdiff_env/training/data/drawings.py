"""Text and line art to train on, drawn by code, since collections of photographs contain hardly any."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 256
"""Side of a drawing in pixels."""
OVERSAMPLING = 4
"""Drawings are made this many times larger and shrunk, so that edges are as smooth as in photographs."""
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX_SMALL, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)  # fmt: skip
SIGNS = list("abcdefghijklmnopqrstuvwxyzeeeettaaoinsABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?-+()&%    ")


def drawing(seed: int) -> np.ndarray:
    """Draw shapes, text or both, uint8 (256, 256, 3); half of the drawings are turned by a random angle."""
    rng = np.random.default_rng([7, seed])
    side = SIDE * OVERSAMPLING
    image: np.ndarray = np.empty((side, side, 3), np.uint8)
    ground = rng.integers(200, 256, 3) if rng.random() < 0.7 else rng.integers(0, 256, 3)
    image[:] = ground
    ink = _apart(ground, rng)
    with_text = rng.random() < 0.7
    for _ in range(int(rng.integers(0 if with_text else 5, 12))):
        _shape(image, ink, rng)
    if with_text:
        _text(image, ink, rng)
    if rng.random() < 0.5:
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(-30, 30)), 1.5)
        image = cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_LINEAR)
    return cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _apart(ground: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int]:
    """Return a colour that stands out from the background: dark on a light one, light on a dark one."""
    ink = rng.integers(0, 100, 3) if ground.mean() > 127 else rng.integers(156, 256, 3)
    return int(ink[0]), int(ink[1]), int(ink[2])


def _shape(image: np.ndarray, ink: tuple[int, int, int], rng: np.random.Generator) -> None:
    side, width = len(image), int(rng.integers(2, 5 * OVERSAMPLING))
    points = rng.integers(0, side, (int(rng.integers(2, 6)), 2)).astype(np.int32)
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    kind = rng.integers(3)
    if kind == 0:
        if rng.random() < 0.5:
            cv2.fillPoly(image, [points], colour)
        cv2.polylines(image, [points], bool(rng.random() < 0.5), ink, width)
    elif kind == 1:
        axes = tuple(int(a) for a in rng.integers(side // 40, side // 3, 2))
        centre, angle = tuple(int(c) for c in points[0]), float(rng.uniform(0, 180))
        if rng.random() < 0.5:
            cv2.ellipse(image, centre, axes, angle, 0, 360, colour, -1)
        cv2.ellipse(image, centre, axes, angle, 0, 360, ink, width)
    else:
        step = int(rng.integers(4, 16)) * OVERSAMPLING  # hatching
        for offset in range(0, int(rng.integers(2, 12)) * step, step):
            first, second = points[0] + offset, points[1] + offset
            cv2.line(image, tuple(map(int, first)), tuple(map(int, second)), ink, max(1, width // 2))


def _text(image: np.ndarray, ink: tuple[int, int, int], rng: np.random.Generator) -> None:
    side, y = len(image), 0
    font, one_size = int(rng.choice(FONTS)), rng.random() < 0.5
    height = int(rng.integers(9, 30)) * OVERSAMPLING
    while y < side:
        height = height if one_size else int(rng.integers(9, 30)) * OVERSAMPLING
        y += int(1.4 * height)
        line = "".join(rng.choice(SIGNS, 60))
        size = cv2.getFontScaleFromHeight(font, int(0.7 * height))
        cv2.putText(
            image, line, (2 * OVERSAMPLING, y), font, size, ink, max(1, round(height / rng.uniform(8, 25)))
        )
