"""Training crops: decoded uint8 images in memory, cropped, flipped and turned by index arithmetic.

All images lie in one flat (pixels, 3) tensor, on the training device if it fits there. A batch of crops is
then one gather (with zoom, one for each size of window), whatever the images' sizes, and the eight flips and
quarter turns cost nothing, since they only permute the indices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ...diffusion.resize import bicubic
from ...errors import SkipDiffError
from .drawings import drawing
from .files import decode, members
from .held_out import stem

TURNS = {"dihedral": range(8), "mirror": (0, 2), "none": (0,)}
"""Values of ``turn`` by name: bit 0 flips rows, bit 1 columns, bit 2 swaps the two."""

ZOOM_GROUP = 8
"""Number of consecutive rows of a batch that share one zoom, so that they can be shrunk together."""


@dataclass
class LoadReport:
    """How many images were loaded, and which were left out."""

    loaded: int = 0
    corrupt: list[str] = field(default_factory=list)
    too_small: int = 0
    held_out: int = 0
    drawings: int = 0

    def __str__(self) -> str:
        text = f"{self.loaded} image{'s' * (self.loaded != 1)}"
        if self.too_small:
            text += f", {self.too_small} too small"
        if self.held_out:
            text += f", {self.held_out} held out"
        if self.drawings:
            text += f", {self.drawings} drawing{'s' * (self.drawings != 1)}"
        if self.corrupt:
            text += f", {len(self.corrupt)} corrupt and left out: {', '.join(self.corrupt)}"
        return text


class CropDraw(NamedTuple):
    """Random numbers behind one batch of crops, each (batch,) on the CPU."""

    image: Tensor
    top: Tensor
    left: Tensor
    turn: Tensor
    zoom: Tensor


def draw_crops(
    batch: int, generator: torch.Generator, orientations: str = "dihedral", zoom: float = 1.0
) -> CropDraw:
    """Draw uniform numbers in [0, 1) for image, top and left, a turn, and a zoom in [1, ``zoom``]."""
    uniform = torch.rand(4, batch, generator=generator, dtype=torch.float64)
    turns = torch.tensor(TURNS[orientations])
    zooms = torch.ones(batch, dtype=torch.float64)
    if zoom > 1:
        groups = torch.rand(-(-batch // ZOOM_GROUP), generator=generator, dtype=torch.float64)
        zooms += (zoom - 1) * groups.repeat_interleave(ZOOM_GROUP)[:batch]
    return CropDraw(uniform[0], uniform[1], uniform[2], turns[(uniform[3] * len(turns)).long()], zooms)


def windows(draw: CropDraw, size: int, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return side, top and left, int64 (batch,), of the windows to cut from images of these sizes."""
    side = torch.minimum((draw.zoom * size).round().long(), torch.minimum(height, width)).clamp(min=size)
    top = (draw.top * (height - side + 1)).long()
    left = (draw.left * (width - side + 1)).long()
    return side, top, left


def shrink(window: Tensor, size: int) -> Tensor:
    """Shrink uint8 (B, 3, w, w) to uint8 (B, 3, size, size), antialiased."""
    if window.shape[-1] == size:
        return window
    return bicubic(window.float(), size, size).round_().clamp_(0, 255).to(torch.uint8)


class ImageBank:
    """Decoded training images in one flat tensor.

    Args:
        images: uint8 (H, W, 3) RGB arrays.
        device: device on which the pixels are kept and crops are made.
        weights: how often each image is drawn, relative to the others; None: all equally often.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        device: torch.device | str = "cpu",
        weights: Sequence[float] | None = None,
    ) -> None:
        if not images:
            raise SkipDiffError("no training images: give folders, tar files or lists that contain some")
        self.device = torch.device(device)
        sides = np.array([image.shape[:2] for image in images], np.int64)
        self.heights, self.widths = (torch.from_numpy(sides[:, i].copy()) for i in (0, 1))
        ends = (self.heights * self.widths).cumsum(0)
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), ends[:-1]])
        flat = np.empty((int(ends[-1]), 3), np.uint8)
        for image, first, last in zip(images, self.offsets.tolist(), ends.tolist(), strict=True):
            flat[first:last] = image.reshape(-1, 3)
        self.pixels = torch.from_numpy(flat).to(self.device)
        self.weights = np.ones(len(images)) if weights is None else np.asarray(weights, np.float64)
        self._cumulative = torch.from_numpy(self.weights.cumsum())
        self._held = ""

    def __len__(self) -> int:
        return len(self.heights)

    @property
    def nbytes(self) -> int:
        """Size of the pixels in bytes."""
        return self.pixels.numel()

    @property
    def fingerprint(self) -> str:
        """Description by which a resumed run recognises its data."""
        return f"{len(self)} images, {len(self.pixels)} pixels{self._held}"

    def to(self, device: torch.device | str) -> ImageBank:
        """Move the pixels; return the same bank."""
        self.device = torch.device(device)
        self.pixels = self.pixels.to(self.device)
        return self

    def image(self, index: int) -> np.ndarray:
        """Return one whole image, uint8 (H, W, 3)."""
        first, height, width = (int(x[index]) for x in (self.offsets, self.heights, self.widths))
        return self.pixels[first : first + height * width].reshape(height, width, 3).cpu().numpy()

    def hold_out(self, count: int) -> list[np.ndarray]:
        """Exclude ``count`` images, evenly spaced, from the crops, and return them."""
        chosen = exclude(self.weights, count)
        self._held = f", {len(chosen)} of them held out"
        self._cumulative = torch.from_numpy(self.weights.cumsum())
        return [self.image(i) for i in chosen]

    def crops(
        self,
        size: int,
        batch: int,
        generator: torch.Generator,
        rows: slice = slice(None),
        orientations: str = "dihedral",
        zoom: float = 1.0,
    ) -> Tensor:
        """Cut random crops with random flips and quarter turns, uint8 (batch, 3, size, size).

        Images, positions, orientations and zooms are drawn from ``generator`` (on the CPU) alone, always for
        the whole batch, of which ``rows`` are returned.
        """
        smallest = int(torch.minimum(self.heights, self.widths).min())
        if size > smallest:
            raise SkipDiffError(f"crops of {size} pixels do not fit into images with a side of {smallest}")
        draw = CropDraw(*(x[rows] for x in draw_crops(batch, generator, orientations, zoom)))
        target = draw.image * self._cumulative[-1]
        image = torch.searchsorted(self._cumulative, target, right=True).clamp_(max=len(self) - 1)
        height, width = self.heights[image], self.widths[image]
        side, top, left = windows(draw, size, height, width)
        first = self.offsets[image] + top * width + left
        sides = side.unique().tolist()
        if len(sides) == 1:
            return shrink(self._gather(first, width, draw.turn, sides[0]), size)
        out = torch.empty(len(side), 3, size, size, dtype=torch.uint8, device=self.device)
        for s in sides:
            where = (side == s).nonzero()[:, 0]
            window = self._gather(first[where], width[where], draw.turn[where], s)
            out[where.to(self.device)] = shrink(window, size)
        return out

    def _gather(self, first: Tensor, width: Tensor, turn: Tensor, size: int) -> Tensor:
        first, width, turn = (x.to(self.device)[:, None, None] for x in (first, width, turn))
        ramp = torch.arange(size, device=self.device)
        row, column = ramp[None, :, None], ramp[None, None, :]
        row = torch.where(turn & 1 > 0, size - 1 - row, row)
        column = torch.where(turn & 2 > 0, size - 1 - column, column)
        swapped = turn & 4 > 0
        y, x = torch.where(swapped, column, row), torch.where(swapped, row, column)
        return self.pixels[first + y * width + x].permute(0, 3, 1, 2)


def load_bank(
    paths: Sequence[str | Path],
    min_size: int,
    device: torch.device | str = "cpu",
    resize_short: int | None = None,
    weights: Mapping[str, float] | None = None,
    held_out: Collection[str] = (),
    drawings: int = 0,
) -> tuple[ImageBank, LoadReport]:
    """Decode every image of folders (recursively), tar files, lists (.txt) and image files.

    Images that cannot be decoded are named in the report and skipped; those with a side below
    ``min_size`` pixels are counted and skipped.

    Args:
        paths: folders, tar files, lists and image files.
        min_size: minimum side of images that can be used, in pixels.
        device: device on which the pixels are kept.
        resize_short: shrink larger images until their shorter side has this length.
        weights: how often images are drawn, by the beginning of their file names; 1 for all others.
        held_out: names of images to leave out, see :mod:`.held_out`.
        drawings: number of drawings to add, see :mod:`.drawings`.

    Raises:
        SkipDiffError: for a path that does not exist or is none of these, or if no image is left.
    """
    report, images, drawn = LoadReport(), [], []

    def wanted() -> Iterator[tuple[str, bytes]]:
        for name, data in members(paths):
            if stem(name) in held_out:
                report.held_out += 1
            else:
                yield name, data

    for name, image in _decoded(wanted(), resize_short):
        if image is None:
            report.corrupt.append(name)
        elif min(image.shape[:2]) < min_size:
            report.too_small += 1
        else:
            images.append(image)
            drawn.append(draw_weight(name, weights or {}))
    report.loaded = len(images)
    if not images:
        raise SkipDiffError(
            f"none of the images in {', '.join(map(str, paths))} can be used "
            f"({len(report.corrupt)} corrupt, {report.too_small} with a side below {min_size} pixels)"
        )
    images += [drawing(seed) for seed in range(drawings)]
    report.drawings = drawings
    return ImageBank(images, device, [*drawn, *[1.0] * drawings]), report


def exclude(weights: np.ndarray, count: int) -> list[int]:
    """Set ``count`` of the weights, evenly spaced, to zero; return their indices."""
    chosen = np.linspace(0, len(weights), min(count, len(weights)), endpoint=False).astype(np.int64)
    weights[chosen] = 0
    return chosen.tolist()


def draw_weight(name: str, weights: Mapping[str, float]) -> float:
    """Return how often the image of this name (of a file, or ``tar:member``) is drawn."""
    return next((weight for start, weight in weights.items() if stem(name).startswith(start)), 1.0)


def shrink_short(image: np.ndarray, short: int | None) -> np.ndarray:
    """Shrink uint8 (H, W, 3) until its shorter side is ``short``; smaller ones stay as they are."""
    height, width = image.shape[:2]
    if short is None or min(height, width) <= short:
        return image
    factor = short / min(height, width)
    size = max(short, round(width * factor)), max(short, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _decoded(
    files: Iterable[tuple[str, bytes]], resize_short: int | None
) -> Iterator[tuple[str, np.ndarray | None]]:
    """Decode on all cores, in order, a bounded number at a time."""

    def work(item: tuple[str, bytes]) -> tuple[str, np.ndarray | None]:
        image = decode(item[1])
        return item[0], None if image is None else shrink_short(image, resize_short)

    files = iter(files)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(files, 128)):
            yield from pool.map(work, chunk)
