"""Runs images of any size through a network that sees one tile at a time.

:class:`Tiled` applies any function of images to overlapping tiles of them, and blends the results. The
model is wrapped, not the chain: :class:`TiledModel` is a drop-in replacement for the frozen model, with a
tiled ``predict``. Noise and latents are those of the whole image, and every step is blended. No seam can
therefore grow from one step to the next, and the result depends on the tiles only through what the network
sees around each pixel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor

from ..diffusion import FrozenModel, UNetConfig
from ..diffusion.unet import pad_to_multiple
from ..errors import SkipDiffError
from .mapped import release

CGROUP = Path("/sys/fs/cgroup")

TILES = (512, 384, 256, 192, 128)
"""Tile sides to choose from, in output pixels, the preferred one first."""

OVERLAP = 64
"""Minimum overlap of two neighbouring tiles, in output pixels."""

RAMP = 32
"""Width of the band in the middle of an overlap in which one tile fades into the next; results for the rest
of the overlap are dropped, because the network pads its input with zeros."""


def check_tile(tile: int, multiple: int) -> int:
    """Return ``tile`` if a network that needs sides in multiples of ``multiple`` can take it.

    Raises:
        SkipDiffError: if it is not such a multiple, or less than twice the overlap.
    """
    if tile < 2 * OVERLAP or tile % multiple:
        raise SkipDiffError(
            f"a tile of {tile} pixels does not fit the model: use a multiple of {multiple}, "
            f"at least {2 * OVERLAP}"
        )
    return tile


def choose_tile(unet: UNetConfig, free: int, batch: int = 1) -> int:
    """Choose the largest of ``TILES`` that fits the model and takes at most half of ``free`` bytes per call;
    if there is none, the smallest tile possible."""
    fitting = [
        side for side in TILES if side % unet.multiple == 0 and call_bytes(unet, side, batch) <= free / 2
    ]
    return fitting[0] if fitting else max(2 * OVERLAP, unet.multiple)


def call_bytes(unet: UNetConfig, side: int, batch: int = 1) -> int:
    """Estimate the memory of one network call on square tiles, in bytes (float32).

    On the way up, the top level holds the features kept from the way down, their concatenation with the
    current ones, and what the convolutions work on; each lower level has a quarter of the pixels and more
    channels.
    """
    pixels = batch * (side // unet.patch_size) ** 2
    widths = sum(unet.channels * m / 4**level for level, m in enumerate(unet.multipliers))
    return int(4 * pixels * widths * (unet.res_blocks + 12))


def free_memory(device: torch.device) -> int:
    """Return the number of bytes that are available on the device, within the container's limit if there is
    one."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    try:
        limit = int((CGROUP / "memory.max").read_text())
        free = min(free, limit - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no control groups, or no limit ("max")
        pass
    return free


GRAIN = 64
"""Step between possible sides of tiles in pixels, so that tiles of different images often have the same
size."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis: pixels start … stop - 1 are seen, of which first … last - 1 are used."""

    start: int
    stop: int
    first: int
    last: int
    weights: Tensor
    """Weights of the pixels, float32 (last - first,); over all spans, those of a pixel sum to 1."""


def spans(length: int, tile: int, multiple: int = 1) -> list[Span]:
    """Cover ``length`` pixels with the fewest tiles that overlap by at least ``OVERLAP``.

    ``tile`` is the largest side: if the same number of smaller tiles suffices, these are used. All tiles have
    the same size, a multiple of ``GRAIN`` where possible, and start at multiples of ``multiple``, so that the
    network's grid is that of the whole image.
    """
    if length <= tile:
        return [Span(0, length, 0, length, torch.ones(length))]
    padded = length + -length % multiple
    steps = -(-(padded - tile) // (tile - OVERLAP))
    grain = GRAIN + -GRAIN % multiple
    share = -(-(padded + steps * OVERLAP) // (steps + 1))
    tile = min(tile, share + -share % grain)
    starts = [(padded - tile) * i // steps // multiple * multiple for i in range(steps + 1)]
    rise = 0.5 - 0.5 * torch.cos(torch.pi * (torch.arange(RAMP) + 0.5) / RAMP)
    fades = [(right + left + tile - RAMP) // 2 for left, right in zip(starts, starts[1:], strict=False)]
    found = []
    for i, start in enumerate(starts):
        first = fades[i - 1] if i > 0 else 0
        last = fades[i] + RAMP if i < steps else length
        weights = torch.ones(last - first)
        if i > 0:
            weights[:RAMP] = rise[: last - first]
        if i < steps:
            weights[-RAMP:] = 1 - rise
        found.append(Span(start, min(start + tile, length), first, last, weights))
    return found


@dataclass(eq=False)
class _Call:
    """One tile on its way through the function; its images are views of the whole ones."""

    images: list[Tensor]
    rows: list[Tensor]
    result: Tensor
    row: Span
    column: Span
    made: Tensor | None = None
    """The function's result, (3, height, width), until it is blended in."""
    error: BaseException | None = None
    done: bool = False

    @property
    def size(self) -> torch.Size:
        return self.images[0].shape[-2:]

    def blend(self) -> None:
        """Add the function's result for the tile to the whole result, weighted."""
        made, self.made = self.made, None
        assert made is not None
        row, column = self.row, self.column
        rows = slice(row.first - row.start, row.last - row.start)
        columns = slice(column.first - column.start, column.last - column.start)
        window = (row.weights[:, None] * column.weights).to(made.device)
        self.result[:, row.first : row.last, column.first : column.last] += window * made[:, rows, columns]


class Tiled:
    """A function of images, applied tile by tile.

    Threads may share an instance: their tiles of equal size then share batches.

    Args:
        function: ``(*images, *rows) → picture``: images (B, C, H, W), rows (B,), and a picture (B, 3, H, W),
            which is clamped to [-1, 1].
        multiple: number of which the sides of the function's inputs must be multiples.
        tile: side of a tile in pixels, a multiple of ``multiple``.
        batch: number of tiles per call. A call that is not full is filled up by repetition, and an image's
            tiles are blended in a fixed order, so that a result does not depend, even in its last bit, on
            what else is in its batches.
        on_tile: function that is called after each tile with its number of pixels, in the thread that ran it.

    Raises:
        SkipDiffError: for a tile that is not such a multiple, or less than twice the overlap.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        multiple: int,
        tile: int = TILES[0],
        batch: int = 1,
        on_tile: Callable[[int], None] | None = None,
    ) -> None:
        self._function, self.multiple = function, multiple
        self.tile, self.batch, self.on_tile = check_tile(tile, multiple), batch, on_tile
        self._waiting: list[_Call] = []
        self._list_lock, self._function_lock = threading.Lock(), threading.Lock()

    def grid(self, height: int, width: int) -> list[tuple[Span, Span]]:
        """Return the tiles of an image, row by row: (vertical, horizontal) spans."""
        rows, columns = (spans(side, self.tile, self.multiple) for side in (height, width))
        return [(row, column) for row in rows for column in columns]

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor], rows: Sequence[Tensor] = ()) -> Tensor:
        """Apply the function to images of equal size and to rows; the result, (B, 3, H, W), is blended."""
        grid = self.grid(*images[0].shape[-2:])
        result = torch.zeros_like(images[0])
        calls = []
        for i in range(len(result)):
            for row, column in grid:
                seen = (..., slice(row.start, row.stop), slice(column.start, column.stop))
                tiles, values = [image[i : i + 1][seen] for image in images], [x[i : i + 1] for x in rows]
                calls.append(_Call(tiles, values, result[i], row, column))
        for call in self._done(calls):  # in this order, which affects the last bit of sums
            call.blend()
            if call.column is grid[-1][1]:
                release(*images, result)
        return result.clamp_(-1, 1)

    def _done(self, calls: list[_Call]) -> Iterator[_Call]:
        """Run ``calls``, and those that other threads queued before them; yield each of ``calls``."""
        with self._list_lock:
            self._waiting += calls
        for call in calls:
            while not call.done:
                with self._function_lock:
                    if not call.done:
                        self._run_batch(self._next_batch())
            if call.error:
                with self._list_lock:
                    self._waiting = [other for other in self._waiting if other not in calls]
                raise call.error
            yield call

    def _next_batch(self) -> list[_Call]:
        """Take the oldest call in the queue, with others of its size, up to ``batch`` in all."""
        with self._list_lock:
            size = self._waiting[0].size
            taken = [call for call in self._waiting if call.size == size][: self.batch]
            self._waiting = [call for call in self._waiting if call not in taken]
        return taken

    def _run_batch(self, calls: list[_Call]) -> None:
        full = (calls * self.batch)[: self.batch]
        try:
            tiles = zip(*(call.images for call in full), strict=True)
            images = [pad_to_multiple(torch.cat(tile), self.multiple) for tile in tiles]
            rows = [torch.cat(values) for values in zip(*(call.rows for call in full), strict=True)]
            for call, made in zip(calls, self._function(*images, *rows), strict=False):
                call.made = made
                if self.on_tile:
                    self.on_tile(call.size.numel())
        except BaseException as error:
            for call in calls:
                call.error = error
        for call in calls:
            call.done = True


class TiledModel:
    """A frozen model that takes images of any size, tile by tile.

    It satisfies :class:`~skipdiff_env.diffusion.DiffusionModel`, and threads may share an instance.

    Args:
        model: the frozen model.
        tile: side of a tile in output pixels, a multiple of :attr:`.unet.UNetConfig.multiple`.
        batch, on_tile: see :class:`Tiled`.

    Raises:
        SkipDiffError: for a tile that is not such a multiple, or less than twice the overlap.
    """

    def __init__(
        self,
        model: FrozenModel,
        tile: int = TILES[0],
        batch: int = 1,
        on_tile: Callable[[int], None] | None = None,
    ) -> None:
        self.model, self.config = model, model.config
        self.schedule, self.scale, self.image_size = model.schedule, model.scale, model.image_size
        self.name, self.hash, self.folder = model.name, model.hash, model.folder
        self.device, self.dtype = model.device, model.dtype
        self.start, self.chain, self.coarse_levels = model.start, model.chain, model.coarse_levels
        self.condition, self.to_latent = model.condition, model.to_latent
        self.tiles = Tiled(
            lambda *tiles: self.model.predict(*tiles), model.config.unet.multiple, tile, batch, on_tile
        )

    def predict(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """Return x̂0 in image space, blended from tiles; shapes as in :meth:`DiffusionModel.predict`."""
        return self.tiles((latent, condition), (noise_level,))
