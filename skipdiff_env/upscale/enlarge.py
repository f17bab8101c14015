"""One photograph → a larger one, at its own depth and with its transparency."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..diffusion import FrozenModel, SkipState, bicubic
from ..diffusion.process import refined
from ..errors import SkipDiffError
from ..images.photo import Photo
from ..images.tiling import TiledModel
from ..sampler import SkipDiffSampler, Trace
from .method import MethodSpec, few_steps, resolve_method
from .refine import TiledRefiner

MIN_SIDE = 4
"""A photograph's least side in pixels; below, there is nothing to go by."""

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Scaling:
    """How large a photograph is to become: by a factor, or the largest that fits a width and a height."""

    factor: float | None = None
    width: int | None = None
    height: int | None = None

    def target(self, size: Size, model_scale: int) -> Size:
        """The size to make of ``size``; the model's own scale if nothing was asked.

        Raises:
            SkipDiffError: if it is not larger than the photograph, or the photograph is too small.
        """
        width, height = size
        if min(size) < MIN_SIDE:
            raise SkipDiffError(
                f"{width}x{height} is too small to enlarge: at least {MIN_SIDE} pixels a side"
            )
        if self.width or self.height:
            factor = min(
                asked / side for asked, side in ((self.width, width), (self.height, height)) if asked
            )
        else:
            factor = self.factor or model_scale
        found = max(1, round(width * factor)), max(1, round(height * factor))
        if factor <= 1:
            raise SkipDiffError(
                f"{width}x{height} would become {found[0]}x{found[1]}, which is no enlargement: ask for more"
            )
        return found


def passes(size: Size, target: Size, scale: int) -> list[Size]:
    """What goes into each run of a model that enlarges by ``scale``: the photograph, then results.

    A result that goes in again is first shrunk so that the last run ends just at the target, with
    detail of the target's own size.
    """
    count = 1
    while any(side * scale**count < goal for side, goal in zip(size, target, strict=True)):
        count += 1
    later = [scale ** (count - n) for n in range(1, count)]
    return [size, *((-(-target[0] // rest), -(-target[1] // rest)) for rest in later)]


class Work(NamedTuple):
    """What enlarging a photograph takes."""

    runs: int
    """Runs of the model."""
    tiles: int
    """Tiles through the network, over all runs and evaluations."""
    pixels: int
    """Pixels of those tiles, to which time is proportional."""

    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(self.runs + other.runs, self.tiles + other.tiles, self.pixels + other.pixels)


@dataclass(frozen=True)
class Enlargement:
    """What came of a photograph."""

    photo: Photo
    levels: list[list[int]]
    """Levels visited in each run of the model."""
    evaluations: int
    """Network evaluations of the whole image."""


class Enlarger:
    """Enlarges photographs by CSA and FSR, or by a chain of a few steps.

    Args:
        model: the frozen model.
        coarse_steps: S; 1 with ``policy`` = T is the full chain.
        policy: the level at which FSR begins, or the file of an exported agent; None asks the model.
            ``ccsr`` and ``addsr``, also with a number of steps as in ``ccsr:4``, stand for their chains, for
            which coarse steps do not count.
        seed: noise seed.
        tile: side of a tile in output pixels.
        batch: tiles a network call.
        on_tile: called after each tile of each evaluation with its number of pixels. Evaluations that an
            agent saves are reported too, when their run ends.
        step_cost: price of an evaluation, for an agent that was trained with prices: the higher, the faster.
        refiner: name or folder of a model whose refiner gives results their last touch.

    Raises:
        SkipDiffError: if the model does not enlarge, or policy or refiner cannot be had, or there is a price
            and the policy knows none.
    """

    def __init__(
        self, model: FrozenModel, coarse_steps: int, policy: MethodSpec,
        seed: int, tile: int, batch: int = 1, on_tile: Callable[[int], None] | None = None,
        step_cost: float = 0.0, refiner: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        if model.scale < 2:
            raise SkipDiffError(
                f"model {model.name!r} does not enlarge (its scale is {model.scale}): use another"
            )
        self.model, self.seed = model, seed
        self.coarse_steps = None if few_steps(policy) else coarse_steps
        self.tiled = TiledModel(model, tile, batch, on_tile)
        self.sampler = SkipDiffSampler(self.tiled, self.coarse_steps or 1)
        method = resolve_method(policy, self.sampler.process, model.config.start, step_cost)
        self.policy, self.decides, self.most_evaluations = method
        self.refine = TiledRefiner(refiner, model, tile, batch) if refiner else None

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what becomes of a photograph, JSON-plain."""
        coarse = {"coarse_steps": self.coarse_steps} if self.coarse_steps else {}
        refiner = self.refine.settings if self.refine else {}
        return {
            "model": self.model.name, "model_hash": self.model.hash, **coarse, **self.decides, **refiner,
            "seed": self.seed, "tile": self.tiled.tile,
            "precision": str(self.model.dtype).removeprefix("torch."),
        }  # fmt: skip

    def work(self, size: Size, target: Size) -> Work:
        """What it takes at most to make ``target`` out of a photograph of ``size``."""
        steps = passes(size, target, self.model.scale)
        tiles = [pixels for step in steps for pixels in self._tiles(step)]
        return Work(len(steps), len(tiles) * self.most_evaluations, sum(tiles) * self.most_evaluations)

    def _tiles(self, size: Size) -> list[int]:
        """Pixels of each tile of one evaluation, for an image of ``size``."""
        width, height = (side * self.model.scale for side in size)
        grid = self.tiled.grid(height, width)
        return [(row.stop - row.start) * (column.stop - column.start) for row, column in grid]

    @torch.no_grad()
    def __call__(self, photo: Photo, target: Size) -> Enlargement:
        """Enlarge to ``target``. Grey photographs, and colour ones without colour, stay neutral."""
        if photo.alpha is not None:
            photo = replace(photo, colour=_bleed(photo.colour, photo.alpha))
        neutral = photo.colour.shape[2] == 1 or bool((photo.colour == photo.colour[..., :1]).all())
        colour = np.broadcast_to(photo.colour, (*photo.colour.shape[:2], 3))
        levels, evaluations = [], 0
        steps = passes(photo.size, target, self.model.scale)
        for goal in [*steps[1:], target]:
            large, trace = self._run(colour)
            if neutral:
                large = large.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
            if large.shape[-2:] != goal[::-1]:
                large = bicubic(large, goal[1], goal[0])
            colour = _pixels(large, colour.dtype)
            levels.append(trace.levels)
            evaluations += trace.evaluations
        colour = np.ascontiguousarray(colour[..., : photo.colour.shape[2]])
        alpha = None
        if photo.alpha is not None:
            alpha = _resized(photo.alpha, target)
            colour = _bleed(colour, alpha)
        return Enlargement(replace(photo, colour=colour, alpha=alpha), levels, evaluations)

    def _run(self, colour: np.ndarray) -> tuple[Tensor, Trace]:
        """One run of the model on (h, w, 3) → float (1, 3, H, W) in [-1, 1], and its trace."""
        deep = colour.dtype == np.uint16
        seen = np.rint(colour / 257).astype(np.uint8) if deep else np.array(colour)
        found: list[Tensor] = []

        def keep(state: SkipState) -> None:
            if not state.level.any():  # the result; of the levels before, nothing may outlive its step
                found.append(refined(state, self.tiled, self.refine).x0)

        trace = self.sampler(seen, self.policy, self.seed, keep).trace[0]
        self._report_saved(seen, trace)
        x0 = found.pop()
        if deep:  # The model sees 8 bits. What rounding took is enlarged on its own and given back.
            lost = torch.from_numpy((colour / 32767.5 - seen / 127.5).astype(np.float32))
            x0 = x0 + bicubic(lost.permute(2, 0, 1)[None].to(x0.device), *x0.shape[-2:])
        return x0, trace

    def _report_saved(self, seen: np.ndarray, trace: Trace) -> None:
        if self.tiled.on_tile:
            for _ in range(self.most_evaluations - trace.evaluations):
                for pixels in self._tiles((seen.shape[1], seen.shape[0])):
                    self.tiled.on_tile(pixels)


def _pixels(x: Tensor, dtype: np.dtype) -> np.ndarray:
    """(1, 3, H, W) in [-1, 1], clamped → uint8 or uint16 (H, W, 3)."""
    white = float(np.iinfo(dtype).max)
    scaled = x[0].add(1).mul_(white / 2).round_().clamp_(0, white)
    return np.ascontiguousarray(scaled.permute(1, 2, 0).cpu().numpy().astype(dtype))


def _resized(plane: np.ndarray, size: Size) -> np.ndarray:
    """An alpha plane, bicubically enlarged at its own depth."""
    x = torch.from_numpy(plane.astype(np.float32))[None, None]
    white = float(np.iinfo(plane.dtype).max)
    return bicubic(x, size[1], size[0]).round_().clamp_(0, white)[0, 0].numpy().astype(plane.dtype)


def _bleed(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Fill what is fully transparent with the nearest colour that can be seen.

    What lies hidden there, often black, would otherwise bleed into the edges; and in a result it is
    detail that nobody sees, but that can make up a third of the file.
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
