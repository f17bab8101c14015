"""Training crops for data that do not fit into memory: decoded for each step, one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...diffusion.resize import to_planes
from ...errors import SkipDiffError
from .bank import CropDraw, draw_crops, draw_weight, exclude, shrink, shrink_short, windows
from .files import decode, image_files
from .held_out import stem

T = TypeVar("T")
TRIES = 100
"""Number of consecutive unusable files at which all of the data, and not just a few files, count as bad."""


class StreamedBank:
    """Like :class:`~.data.ImageBank`, but images are read from their files each time.

    Args:
        paths: folders, .txt lists and image files.
        min_size: minimum side of images that can be used, in pixels.
        resize_short: shrink larger images until their shorter side has this length.
        weights: how often images are drawn, by the beginning of their file names; 1 for all others.
        say: function that is called once, with a message, for each file that cannot be used.
        held_out: names of images to leave out, see :mod:`.held_out`.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        paths: Sequence[str | Path],
        min_size: int,
        resize_short: int | None = None,
        weights: Mapping[str, float] | None = None,
        say: Callable[[str], None] = print,
        held_out: Collection[str] = (),
    ) -> None:
        found = [file for path in map(Path, paths) for file in image_files(path)]
        self.files = [file for file in found if stem(file.name) not in held_out]
        if not self.files:
            raise SkipDiffError(f"no training images in {', '.join(map(str, paths))}")
        self.min_size, self.resize_short, self._say = min_size, resize_short, say
        self.weights = np.array([draw_weight(file.name, weights or {}) for file in self.files])
        self._bad: set[int] = set()
        self._held = ""
        self._lock, self._pool = Lock(), ThreadPoolExecutor()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        """Description by which a resumed run recognises its data."""
        return f"{len(self)} files{self._held}"

    def hold_out(self, count: int) -> list[np.ndarray]:
        """Exclude ``count`` images, evenly spaced, from the crops, and return those that can be used."""
        chosen = exclude(self.weights, count)
        self._held = f", {len(chosen)} of them held out"
        return [image for image in map(self._read, chosen) if image is not None]

    def crops(
        self,
        size: int,
        batch: int,
        generator: torch.Generator,
        rows: slice = slice(None),
        orientations: str = "dihedral",
        zoom: float = 1.0,
    ) -> Tensor:
        """Do the same as :meth:`~.data.ImageBank.crops`; the next file replaces one that cannot be used."""
        draw = CropDraw(*(x[rows] for x in draw_crops(batch, generator, orientations, zoom)))
        cumulative = self.weights.cumsum()
        index = np.searchsorted(cumulative, draw.image.numpy() * cumulative[-1], side="right")
        images = list(self._pool.map(self._usable, index.tolist()))
        sides = [torch.tensor([image.shape[axis] for image in images]) for axis in (0, 1)]
        side, top, left = (x.tolist() for x in windows(draw, size, *sides))

        def cut(i: int) -> Tensor:
            window = images[i][top[i] : top[i] + side[i], left[i] : left[i] + side[i]]
            turn = int(draw.turn[i])
            window = window.swapaxes(0, 1) if turn & 4 else window
            window = window[:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1]
            return shrink(to_planes(window.copy()), size)

        return torch.cat(list(self._pool.map(cut, range(len(images)))))

    def _usable(self, index: int) -> np.ndarray:
        for i in range(index, index + min(TRIES, len(self))):
            image = self._read(i % len(self)) if self.weights[i % len(self)] > 0 else None
            if image is not None:
                return image
        raise SkipDiffError(
            f"files that are corrupt, too small or not drawn: {min(TRIES, len(self))} in a row, beginning "
            f"with {self.files[index]}: give other training data"
        )

    def _read(self, index: int) -> np.ndarray | None:
        if index in self._bad:
            return None
        image = decode(self.files[index].read_bytes())
        why = "corrupt"
        if image is not None:
            image = shrink_short(image, self.resize_short)
            if min(image.shape[:2]) >= self.min_size:
                return image
            why = f"too small ({image.shape[1]}x{image.shape[0]}, needs {self.min_size})"
        with self._lock:
            if index not in self._bad:
                self._bad.add(index)
                self._say(f"{self.files[index]} is {why} and left out")
        return None


class Ahead(Generic[T]):
    """Calls ``make(step)`` for the next step in a thread while the result of this one is in use."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._next: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        ready = self._next
        now = ready[1] if ready and ready[0] == step else self._pool.submit(self._make, step)
        result = now.result()
        self._next = step + 1, self._pool.submit(self._make, step + 1)
        return result

    def close(self) -> None:
        """Wait for the call under way, and end the thread."""
        self._pool.shutdown(cancel_futures=True)
