"""The pictures on which chains are measured, and statistics of the measurements."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..chains import Chain
from ..diffusion import NoiseKey, image_key, to_uint8
from ..diffusion.protocol import DiffusionModel
from ..diffusion.resize import to_arrays, to_planes
from ..errors import SkipDiffError
from ..images import ImageSource, make_pair
from ..metrics import Metric, load_metric

Figures = dict[str, NDArray[np.float64]]
"""For each metric, by name, the score of each picture."""


class Pictures:
    """HR pictures and their LR versions, on which chains of one model are measured.

    Args:
        model: the frozen model.
        source: HR pictures.
        metrics: names of the metrics.
        size: side in pixels of the crops from the pictures' centres; None: whole pictures, all of the same
            size.
        batch: number of pictures per network call.

    Raises:
        SkipDiffError: if there are no HR pictures, or if they differ in size.
    """

    def __init__(
        self, model: DiffusionModel, source: ImageSource, metrics: Iterable[str], size: int | None, batch: int
    ) -> None:
        if source.low_resolution or not len(source):
            raise SkipDiffError("plans are scored against originals: give HR pictures")
        pairs = [make_pair(source, i, scale=model.scale, image_size=size) for i in range(len(source))]
        if len({pair.lr.shape for pair in pairs}) > 1:
            raise SkipDiffError("the pictures differ in size: give image_size= to crop them to one size")
        self.model, self._batch = model, batch
        self._lr, self._hr = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("lr", "hr"))
        self.metrics: dict[str, Metric] = {name: load_metric(name, model.device) for name in metrics}

    def __len__(self) -> int:
        return len(self._lr)

    def identity(self, version: int) -> str:
        """Return a hash of the model, the pictures, the metrics and the ``version`` of what is done with
        them."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(self._hr.tobytes() + self._lr.tobytes())
        about = [version, self.model.hash, str(self.model.dtype), [*self.metrics]]
        digest.update(json.dumps(about).encode())
        return digest.hexdigest()

    def parts(self, chain: Chain, seed: int) -> Iterator[Figures]:
        """Yield the scores of a chain's results, one batch at a time."""
        for first in range(0, len(self), self._batch):
            rows = slice(first, first + self._batch)
            lr, hr = self._lr[rows], self._hr[rows]
            keys = [NoiseKey(image_key(image), seed) for image in lr]
            condition = self.model.condition(to_planes(lr).to(self.model.device))
            made = to_arrays(to_uint8(chain(self.model, condition, keys).x0))
            yield {name: metric(made, hr) for name, metric in self.metrics.items()}

    def measure(self, chain: Chain, seed: int) -> Figures:
        """Return the scores of a chain's results on all pictures."""
        return joined(list(self.parts(chain, seed)))


def joined(parts: Sequence[Figures]) -> Figures:
    """Concatenate the figures of several batches."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def mean(values: NDArray[np.float64]) -> float:
    """Return the mean of the finite values. NIQE, for example, is undefined for a flat picture."""
    return float(values[np.isfinite(values)].mean())


def means(*tables: Figures) -> dict[str, float]:
    """Return the mean of each metric over several tables."""
    return {name: mean(np.concatenate([table[name] for table in tables])) for name in tables[0]}
