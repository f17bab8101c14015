"""The picture of an episode: LR, current x̂0, HR where it is known, and the decisions so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.error import DependencyNotInstalled, ResetNeeded
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from .scenes import Cell, Scenes

RENDER_FPS = 4
"""Decisions per second, in windows and videos."""

_MARGIN, _LINE, _CELL = 16, 24, 30
_PAPER, _INK, _FAINT = "#ffffff", "#202124", "#5f6368"
_DENOISE, _SKIP, _OPEN = "#1a66c2", "#d9690b", "#eceff1"
_SMALLEST, _LARGEST = 256, 512


def draw_frame(episodes: Scenes, row: int) -> np.ndarray:
    """Draw one row of a batch.

    Returns:
        uint8 (h, w, 3) with even sides, as video codecs require; always the same size for one batch.

    Raises:
        ResetNeeded: before the first reset.
    """
    if not episodes.pairs:
        raise ResetNeeded("there is nothing to draw yet: call reset() first")
    pair, info = episodes.pairs[row], episodes.books.info(row)
    level = float(episodes.state.level[row])
    panels = [("LR input", pair.lr), (_estimate_title(level), episodes.picture(row))]
    if pair.hr is not None:
        panels.append(("HR original", pair.hr))
    side = min(_LARGEST, episodes.image_size * -(-_SMALLEST // episodes.image_size))
    width = 3 * side + 4 * _MARGIN if pair.hr is not None else 2 * side + 3 * _MARGIN
    height = side + _CELL + 5 * _LINE + 3 * _MARGIN
    page = Image.new("RGB", (width + width % 2, height + height % 2), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for i, (title, picture) in enumerate(panels):
        left = _MARGIN + i * (side + _MARGIN)
        draw.text((left, _MARGIN // 2), title, _INK, font)
        # LR pixels stay visible as squares; what is shrunk to fit is averaged
        how = Image.Resampling.BOX if side < len(picture) else Image.Resampling.NEAREST
        page.paste(Image.fromarray(picture).resize((side, side), how), (left, _MARGIN // 2 + _LINE))
    top = _MARGIN // 2 + _LINE + side + _MARGIN
    _draw_decisions(draw, top, width - 2 * _MARGIN, episodes.cells(row))
    where = f"{pair.name}   noise seed {info['noise_seed']}   evaluations {info['evaluations']}"
    top += _CELL + 2 * _LINE
    for line in (where, _outcome(info, episodes.metric.name) if level == 0 else ""):
        draw.text((_MARGIN, top), _fitted(line, font, width - 2 * _MARGIN), _INK, font)
        top += _LINE
    return np.asarray(page).copy()


def _estimate_title(level: float) -> str:
    return f"current x0 estimate, level {level:g}" if level else "SR result"


def _draw_decisions(draw: ImageDraw.ImageDraw, top: int, width: int, cells: Sequence[Cell]) -> None:
    """Draw the decisions from left to right, and their legend."""
    font, small = ImageFont.load_default(16), ImageFont.load_default(12)
    edges = _MARGIN + np.linspace(0, width, len(cells) + 1).round().astype(int)
    for i, cell in enumerate(cells):
        left, right = int(edges[i]), int(edges[i + 1])
        colour = {None: _OPEN, True: _SKIP, False: _DENOISE}[cell.skips]
        gap = 2 if right - left > 6 else 0
        draw.rectangle((left, top, right - 1 - gap, top + _CELL), colour)
        middle = (left + right - gap) / 2
        if right - left >= 60:
            draw.text((middle, top + _CELL / 2), cell.inside, _PAPER, small, anchor="mm")
        if right - left >= 24 or i in (0, len(cells) - 1):
            draw.text((middle, top + _CELL + 3), cell.below, _FAINT, small, anchor="ma")
    legend = top + _CELL + _LINE - 4
    for i, (label, colour) in enumerate((("denoise", _DENOISE), ("skip", _SKIP), ("to come", _OPEN))):
        left = _MARGIN + 110 * i
        draw.rectangle((left, legend + 3, left + 14, legend + 17), colour)
        draw.text((left + 22, legend), label, _INK, font)


def _outcome(info: dict[str, Any], metric: str) -> str:
    parts = [f"{metric} {info['metric']:.4g}" if info["reward_valid"] else f"{metric}: no valid score"]
    if not math.isnan(info["psnr"]):
        parts += [f"PSNR {info['psnr']:.2f} dB", f"SSIM {info['ssim']:.4f}"]
    return "   ".join(parts)


def _fitted(text: str, font: Any, width: int) -> str:
    """Cut a text at its beginning (file names differ at their ends) to fit into ``width`` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("..." + text) > width:
        text = text[1:]
    return "..." + text


class Window:
    """A window on the screen, opened with the first picture. It needs pygame."""

    def __init__(self) -> None:
        try:
            import pygame
        except ImportError:
            raise DependencyNotInstalled(
                'render_mode="human" needs pygame, which is not installed: pip install pygame'
            ) from None
        self._pygame = pygame
        self._screen: Any = None

    def show(self, frame: np.ndarray) -> None:
        """Show a picture, uint8 (h, w, 3), and wait as the frame rate requires."""
        pygame, (height, width) = self._pygame, frame.shape[:2]
        if self._screen is None:
            pygame.display.init()  # not init(): that opens the sound card, too
            self._screen = pygame.display.set_mode((width, height))
            pygame.display.set_caption("SkipDiff")
            self._clock = pygame.time.Clock()
        self._screen.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()
        self._clock.tick(RENDER_FPS)
        pygame.display.flip()

    def close(self) -> None:
        """Close the window; it opens again with the next picture."""
        if self._screen is not None:
            self._pygame.display.quit()
            self._pygame.quit()
            self._screen = None

    def __reduce__(self) -> tuple[type[Window], tuple[()]]:
        return Window, ()
