"""The labelled comparison: bicubic, the full chain and SkipDiff, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..chains import CSA
from ..diffusion import bicubic, to_signed, to_uint8
from ..diffusion.resize import to_arrays, to_planes
from ..images.photo import FORMATS, Photo
from ..images.photo_file import fit_format
from .enlarge import Enlarger, Size, Work

PANEL = 1024
"""Maximum width and height of a picture in a comparison, which shows only the centres of larger results."""


class Comparison:
    """Compares results of an enlarger with those of the full chain, which has one network evaluation for each
    step of the model's schedule and runs only on the part that is shown."""

    def __init__(self, enlarger: Enlarger) -> None:
        same, model = enlarger.tiles, enlarger.model
        self._name = enlarger.chain.name
        full = CSA(model.schedule.steps)
        self.full = Enlarger(model, full, enlarger.seed, same.tile, same.batch, same.on_tile)

    def work(self, size: Size, target: Size) -> Work:
        """Return the work of the full chain for a photograph of ``size`` and a result of size ``target``."""
        return self.full.work(*_shown(size, target)[1:])

    def __call__(self, photo: Photo, result: Photo, evaluations: int) -> np.ndarray:
        """Return bicubic, the full chain and ``result``, or their centres, side by side, uint8 (H, W, 3)."""
        corner, small_size, large_size = _shown(photo.size, result.size)
        factor = result.size[0] / photo.size[0], result.size[1] / photo.size[1]
        small = _cut(photo, corner, small_size)
        skip = _cut(result, (round(corner[0] * factor[0]), round(corner[1] * factor[1])), large_size)
        chain = self.full(small, large_size)
        cubic = to_arrays(to_uint8(bicubic(to_signed(to_planes(_rgb(small))), *large_size[::-1])))[0]
        part = "" if small_size == photo.size else ", centre"
        return side_by_side(
            [
                (f"bicubic{part}", cubic),
                (f"full DDPM, {chain.evaluations} evaluations", _rgb(chain.photo)),
                (f"{self._name}, {evaluations} evaluation{'s' * (evaluations != 1)}", _rgb(skip)),
            ]
        )


def _shown(size: Size, target: Size) -> tuple[tuple[int, int], Size, Size]:
    """Return corner and size of the part of the photograph that is shown, and its size in the result."""
    shown = [max(1, min(side, PANEL * side // goal)) for side, goal in zip(size, target, strict=True)]
    corner = [(side - part) // 2 for side, part in zip(size, shown, strict=True)]
    large = [part * goal // side for part, side, goal in zip(shown, size, target, strict=True)]
    return (corner[0], corner[1]), (shown[0], shown[1]), (large[0], large[1])


def side_by_side(panels: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Join pictures of equal size, uint8 (H, W, 3), in a row with labels above; return uint8 (h, w, 3)."""
    height, width = panels[0][1].shape[:2]
    text = max(11, min(28, width // 24))
    bar, gap = 2 * text, max(2, text // 4)
    sheet = Image.new("RGB", (len(panels) * (width + gap) - gap, height + bar), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(text)
    for i, (label, picture) in enumerate(panels):
        x = i * (width + gap)
        draw.text((x + width / 2, bar / 2), label, "black", font, anchor="mm")
        sheet.paste(Image.fromarray(picture), (x, bar))
    return np.asarray(sheet)


def _cut(photo: Photo, corner: tuple[int, int], size: Size) -> Photo:
    window = slice(corner[1], corner[1] + size[1]), slice(corner[0], corner[0] + size[0])
    return replace(
        photo, colour=photo.colour[window], alpha=None if photo.alpha is None else photo.alpha[window]
    )


def _rgb(photo: Photo) -> np.ndarray:
    """Convert to 8-bit sRGB over white, (H, W, 3)."""
    colour = fit_format(photo, FORMATS["bmp"])[0].colour
    return np.array(np.broadcast_to(colour, (*colour.shape[:2], 3)))
