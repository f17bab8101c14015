"""PNGs of a training run, drawn by OpenCV: grids of samples, and curves of the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ...files import write_atomically

FONT = cv2.FONT_HERSHEY_SIMPLEX
PANEL = (300, 640)
"""Height and width of one panel of the curves."""
MARGIN = 40
COLOURS = ((170, 70, 30), (30, 110, 200), (40, 150, 60), (130, 60, 150))
"""RGB of the lines of a panel."""


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 RGB (H, W, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not written:
        raise OSError(f"{path}: OpenCV cannot encode a picture of shape {picture.shape}")
    write_atomically(path, data.tobytes())


def grid(columns: Mapping[str, np.ndarray], gap: int = 4) -> np.ndarray:
    """Join pictures (B, H, W, 3) of equal size, one row per image, under the names of the columns."""
    rows = min(len(images) for images in columns.values())
    height, width = next(iter(columns.values())).shape[1:3]
    header = 24
    canvas = np.full((header + rows * (height + gap), len(columns) * (width + gap) - gap, 3), 255, np.uint8)
    for column, (name, images) in enumerate(columns.items()):
        left = column * (width + gap)
        cv2.putText(canvas, name, (left + 4, 17), FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        for row in range(rows):
            top = header + row * (height + gap)
            canvas[top : top + height, left : left + width] = images[row]
    return canvas


def curves(lines: Sequence[Mapping[str, float]], logarithmic: Sequence[str] = ("loss",)) -> np.ndarray:
    """Plot quantities over steps, uint8 (H, W, 3), a panel each; keys ``a/b`` with the same ``a`` share one.

    Args:
        lines: lines of the log, each with a ``step``.
        logarithmic: quantities with a logarithmic axis.
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in lines:
        for key, value in line.items():
            quantity, _, name = key.partition("/")
            if key != "step" and np.isfinite(value):
                panels.setdefault(quantity, {}).setdefault(name, []).append((line["step"], value))
    drawn = [_panel(title, series, title in logarithmic) for title, series in panels.items()]
    return np.concatenate(drawn) if drawn else np.full((*PANEL, 3), 255, np.uint8)


def _panel(title: str, series: Mapping[str, list[tuple[float, float]]], logarithmic: bool) -> np.ndarray:
    height, width = PANEL
    canvas = np.full((height, width, 3), 255, np.uint8)
    points = {name: np.array(xy, np.float64) for name, xy in series.items()}
    if logarithmic:
        for xy in points.values():
            xy[:, 1] = np.log10(np.maximum(xy[:, 1], 1e-12))
    everything = np.concatenate(list(points.values()))
    low, high = everything.min(axis=0), everything.max(axis=0)
    span = np.where(high > low, high - low, 1)
    left, right, top, bottom = 2 * MARGIN, width - MARGIN, MARGIN, height - MARGIN
    corner, size = np.array([left, bottom]), np.array([right - left, top - bottom])
    cv2.rectangle(canvas, (left, top), (right, bottom), (200, 200, 200), 1)
    shown = 10.0 ** np.array([low[1], high[1]]) if logarithmic else (low[1], high[1])
    labels = {
        (4, 20): title,
        (4, bottom): f"{shown[0]:.4g}",
        (4, top + 8): f"{shown[1]:.4g}",
        (left, height - 14): f"{low[0]:.0f}",
        (right - 2 * MARGIN, height - 14): f"{high[0]:.0f}",
    }
    for where, text in labels.items():
        cv2.putText(canvas, text, where, FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    for i, (name, xy) in enumerate(points.items()):
        colour = COLOURS[i % len(COLOURS)]
        pixels = np.round(corner + (xy - low) / span * size).astype(np.int32)
        cv2.polylines(canvas, [pixels[:, None]], False, colour, 2, cv2.LINE_AA)
        cv2.circle(canvas, pixels[-1].tolist(), 3, colour, -1, cv2.LINE_AA)
        cv2.putText(canvas, name, (left + 110 * i, 20), FONT, 0.45, colour, 1, cv2.LINE_AA)
    return canvas
