"""Enlarges one photograph, keeping its bit depth and its transparency."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..chains import Chain, Final, Refined
from ..chains.detail import Detailed
from ..diffusion import FrozenModel, NoiseKey, bicubic, image_key
from ..diffusion.engines import TORCH
from ..diffusion.model import bicubic_condition
from ..diffusion.process import Refine
from ..diffusion.refiner import Refiner
from ..diffusion.resize import back_project, fix_colours, to_arrays, to_planes
from ..errors import SkipDiffError, fraction
from ..images.mapped import channel_by_channel, release, strips
from ..images.photo import Photo
from ..images.tiling import Tiled, TiledModel
from .clock import Clock

MIN_SIDE = 4
"""Minimum side of a photograph in pixels; smaller ones hold too little information."""

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Scaling:
    """The size of a result: by a factor, or the largest that fits a width and a height."""

    factor: float | None = None
    width: int | None = None
    height: int | None = None

    def target(self, size: Size, model_scale: int) -> Size:
        """Return the size of the result for a photograph of ``size``, by default with the model's own scale.

        Raises:
            SkipDiffError: if the result is not larger than the photograph, or the photograph is too small.
        """
        width, height = size
        if min(size) < MIN_SIDE:
            raise SkipDiffError(
                f"{width}x{height} is too small to enlarge: each side needs at least {MIN_SIDE} pixels"
            )
        if self.width or self.height:
            factor = min(
                asked / side for asked, side in ((self.width, width), (self.height, height)) if asked
            )
        else:
            factor = self.factor or model_scale
        found = max(1, round(width * factor)), max(1, round(height * factor))
        if factor <= 1 or found == size:
            raise SkipDiffError(
                f"{width}x{height} would become {found[0]}x{found[1]}, which is not larger: ask for a "
                "larger --scale, --width or --height"
            )
        return found


def passes(size: Size, target: Size, scale: int) -> list[Size]:
    """List the sizes of a model's inputs if it enlarges by ``scale``: the photograph, then earlier results.

    A result that is enlarged again is first shrunk, so that the last run ends at the target, or less than
    ``scale`` pixels beyond it, with detail of the target's own size.
    """
    count = 1
    while any(side * scale**count < goal for side, goal in zip(size, target, strict=True)):
        count += 1
    later = [scale ** (count - n) for n in range(1, count)]
    return [size, *((-(-target[0] // rest), -(-target[1] // rest)) for rest in later)]


class Work(NamedTuple):
    """The work of enlarging a photograph."""

    runs: int
    """Number of runs of the model."""
    tiles: int
    """Number of tiles that the images are cut into, over all runs."""
    calls: int
    """Number of network calls, each on one tile, over all runs and evaluations."""
    pixels: int
    """Number of pixels of those calls, to which the time is proportional."""

    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Enlargement:
    """The result for a photograph."""

    photo: Photo
    levels: list[list[int]]
    """Levels visited in each run of the model."""
    evaluations: int
    """Number of network evaluations of the whole image, over all runs."""


class Enlarger:
    """Enlarges photographs with a chain.

    Args:
        model: the frozen model.
        chain: the chain that makes the pictures, see :mod:`skipdiff_env.chains`.
        seed: noise seed.
        tile: side of a tile in pixels of the result.
        batch: number of tiles per network call.
        on_tile: function that is called after each tile of each evaluation with its number of pixels.
            Evaluations that an agent saves are reported too, when their run ends.
        clean: share, 0 … 1, of what the model removed that stays removed; at 0, the result of a run,
            when shrunk, equals its input, see :func:`~skipdiff_env.diffusion.resize.back_project`.
        colour_fix: whether large areas get the colours of a run's input, see
            :func:`~skipdiff_env.diffusion.resize.fix_colours`.
        clock: clock of the model, if its speed on this machine is known already.

    Raises:
        SkipDiffError: if the model does not enlarge, or a network cannot process a tile of this size.
    """

    def __init__(
        self,
        model: FrozenModel,
        chain: Chain,
        seed: int,
        tile: int,
        batch: int = 1,
        on_tile: Callable[[int], None] | None = None,
        clean: float = 1.0,
        clock: Clock | None = None,
        colour_fix: bool = False,
    ) -> None:
        if model.scale < 2:
            raise SkipDiffError(
                f"model {model.name!r} does not enlarge (its scale is {model.scale}): use another"
            )
        self.model, self.seed, self.clean = model, seed, fraction("clean", clean)
        self.colour_fix = colour_fix
        self.tiled = TiledModel(model, tile, batch, on_tile)
        self.tiles = self.tiled.tiles
        self.clock = clock or Clock(model, tile)
        self._plain, self.chain = chain, _refined_in_tiles(chain, tile, batch)
        self.most_evaluations = chain.most_evaluations(model.schedule)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that decide the result for a photograph, as plain JSON."""
        return {
            "model": self.model.name, "model_hash": self.model.hash, **self.chain.settings,
            **({"clean": self.clean} if self.clean < 1 else {}),
            **({"colour_fix": True} if self.colour_fix else {}),
            **({"engine": self.model.engine} if self.model.engine != TORCH else {}),
            "seed": self.seed, "tile": self.tiles.tile,
            "precision": str(self.model.dtype).removeprefix("torch."),
        }  # fmt: skip

    def work(self, size: Size, target: Size) -> Work:
        """Return the maximum work of enlarging a photograph of ``size`` to ``target``."""
        steps = passes(size, target, self.model.scale)
        tiles = [pixels for step in steps for pixels in self._tiles(step)]
        most = self.most_evaluations
        return Work(len(steps), len(tiles), len(tiles) * most, sum(tiles) * most)

    def seconds(self, work: Work) -> float:
        """Estimate the seconds that ``work`` takes on this machine, with the speed that :attr:`clock` has
        found."""
        return work.pixels * (self.clock.call + self.clock.once(self._plain) / self.most_evaluations)

    def _tiles(self, size: Size) -> list[int]:
        """Return the number of pixels of each tile of one evaluation, for an image of ``size``."""
        width, height = (side * self.model.scale for side in size)
        grid = self.tiles.grid(height, width)
        return [(row.stop - row.start) * (column.stop - column.start) for row, column in grid]

    def held(self, size: Size, target: Size) -> int:
        """Return the number of pixels of the largest intermediate image between ``size`` and ``target``."""
        return max(width * height for width, height in passes(size, target, self.model.scale)) * (
            self.model.scale**2
        )

    @torch.no_grad()
    def __call__(self, photo: Photo, target: Size, scratch: Path | None = None) -> Enlargement:
        """Enlarge a photograph to ``target``. Grey photographs, and colour files that hold only grey, stay
        neutral.

        Args:
            photo: the photograph.
            target: width and height of the result.
            scratch: folder for intermediate images that are too large for memory; on CUDA they stay on the
                device. None: the system's folder for temporary files.

        Raises:
            SkipDiffError: if ``scratch`` cannot hold them.
        """
        folder = (scratch or Path(tempfile.gettempdir())) if self.model.device.type == "cpu" else None
        if photo.alpha is not None:
            photo = replace(photo, colour=_bleed(photo.colour, photo.alpha))
        neutral = photo.colour.shape[2] == 1 or bool((photo.colour == photo.colour[..., :1]).all())
        colour = np.broadcast_to(photo.colour, (*photo.colour.shape[:2], 3))
        levels, evaluations = [], 0
        steps = passes(photo.size, target, self.model.scale)
        for number, goal in enumerate([*steps[1:], target]):
            colour, visited, spent = self._run(colour, goal, neutral, folder, restore=number == 0)
            levels.append(visited)
            evaluations += spent
        colour = np.ascontiguousarray(colour[..., : photo.colour.shape[2]])
        alpha = None
        if photo.alpha is not None:
            alpha = _resized(photo.alpha, target)
            colour = _bleed(colour, alpha)
        return Enlargement(replace(photo, colour=colour, alpha=alpha), levels, evaluations)

    def _run(
        self, colour: np.ndarray, goal: Size, neutral: bool, folder: Path | None, restore: bool
    ) -> tuple[np.ndarray, list[int], int]:
        """Run the model once, (h, w, 3) → (H, W, 3) of size ``goal``; return levels and evaluations, too.

        Only the photograph itself is restored: results of the model have nothing to remove.
        """
        large, final = self._chained(colour, folder, restore)
        if neutral:
            large = large.mean(dim=1, keepdim=True)
        if large.shape[-2:] != goal[::-1]:
            large = channel_by_channel(partial(bicubic, height=goal[1], width=goal[0]), large, folder)
        pixels = np.broadcast_to(_pixels(large, colour.dtype), (*goal[::-1], 3))
        return pixels, list(final.levels), int(final.evaluations[0])

    def _chained(self, colour: np.ndarray, folder: Path | None, restore: bool) -> tuple[Tensor, Final]:
        """Return the chain's picture of (h, w, 3), float (1, 3, H, W) in [-1, 1], and its ``Final``."""
        deep = colour.dtype == np.uint16
        seen = np.rint(colour / 257).astype(np.uint8) if deep else np.array(colour)
        enlarge = partial(bicubic_condition, scale=self.model.scale)
        lr = to_planes(seen).to(self.model.device)
        condition = channel_by_channel(enlarge, self.model.restored(lr) if restore else lr, folder)
        final = self.chain(self.tiled, condition, [NoiseKey(image_key(seen), self.seed)])
        self._report_saved(seen, int(final.evaluations[0]))
        x0 = final.x0
        if deep:  # The model sees 8 bits. What rounding removed is enlarged separately and added back.
            lost = to_planes((colour / 32767.5 - seen / 127.5).astype(np.float32))
            height, width = x0.shape[-2:]
            resize = partial(bicubic, height=height, width=width)
            x0 = x0 + channel_by_channel(resize, lost.to(x0.device), folder)
        return self._given_back(x0, colour), final

    def _given_back(self, x0: Tensor, colour: np.ndarray) -> Tensor:
        """Restore in ``x0``, in place, what ``clean`` and ``colour_fix`` keep of ``colour``, (h, w, 3)."""
        if self.clean < 1 or self.colour_fix:
            white = float(np.iinfo(colour.dtype).max)
            for channel in range(x0.shape[1]):
                lr = to_planes((colour[..., channel, None] / (white / 2) - 1).astype(np.float32))
                lr, plane = lr.to(x0.device), x0[:, channel : channel + 1]
                plane = fix_colours(plane, lr) if self.colour_fix else plane
                x0[:, channel : channel + 1] = back_project(plane, lr, 1 - self.clean)
                release(x0)
        return x0

    def _report_saved(self, seen: np.ndarray, evaluations: int) -> None:
        report = self.tiles.on_tile
        if report:
            for _ in range(self.most_evaluations - evaluations):
                for pixels in self._tiles((seen.shape[1], seen.shape[0])):
                    report(pixels)


def _refined_in_tiles(chain: Chain, tile: int, batch: int) -> Chain:
    """Return the chain, with its refiner applied tile by tile if it is a network."""
    if isinstance(chain, Detailed):
        return replace(chain, chain=_refined_in_tiles(chain.chain, tile, batch))
    if isinstance(chain, Refined) and isinstance(chain.refine, Refiner):
        return replace(chain, refine=_in_tiles(chain.refine, tile, batch))
    return chain


def _in_tiles(refiner: Refiner, tile: int, batch: int) -> Refine:
    """Make a refiner of whole images that works tile by tile."""
    tiles = Tiled(refiner, refiner.network.unet.config.multiple, tile, batch)
    return lambda x0, condition: tiles((x0, condition))


def _pixels(x: Tensor, dtype: np.dtype) -> np.ndarray:
    """Convert (1, C, H, W) to uint8 or uint16 (H, W, C), clamped to [-1, 1]."""
    white = float(np.iinfo(dtype).max)
    _, channels, height, width = x.shape
    made = np.empty((height, width, channels), dtype)
    for rows in strips(height, channels * width):
        made[rows] = to_arrays(x[..., rows, :].add(1).mul_(white / 2).round_().clamp_(0, white))[0]
        release(x)
    return made


def _resized(plane: np.ndarray, size: Size) -> np.ndarray:
    """Enlarge an alpha plane bicubically at its own depth."""
    x = torch.from_numpy(plane.astype(np.float32))[None, None]
    white = float(np.iinfo(plane.dtype).max)
    return bicubic(x, size[1], size[0]).round_().clamp_(0, white)[0, 0].numpy().astype(plane.dtype)


def _bleed(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Fill fully transparent pixels with the nearest visible colour.

    Their hidden colour, often black, would otherwise bleed into the edges. In a result it would be detail
    that nobody sees, but that can make up a third of the file.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colour
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    seen = np.zeros((labels.max() + 1, colour.shape[2]), colour.dtype)
    seen[labels[~hidden]] = colour[~hidden]
    return np.where(hidden[..., None], seen[labels], colour)
