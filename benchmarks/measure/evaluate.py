"""From images and samplers to rows: only what is missing, with the number of network calls known before."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion import FrozenModel, image_key
from skipdiff_env.images import ImageSource, Pair, make_pair

from .metrics import METRICS, Metric, score
from .sampler import Picture, Sampler
from .store import Row, Store

SECONDS = "seconds"
"""Where rows keep the time that a result took, if that was measured."""
SHOWN_AT_ONCE = 8
"""Results that are scored and kept together, within one image and seed."""


@dataclass(frozen=True)
class Job:
    """An image and a noise seed, and what is missing of them."""

    index: int
    image: str
    seed: int
    missing: tuple[Sampler, ...]

    @property
    def calls(self) -> int:
        """Network calls that it takes, at most."""
        return len(frozenset().union(*(sampler.calls for sampler in self.missing)))


class Evaluation:
    """The rows of every image, seed and sampler.

    Args:
        model: where LR images get their scale and rows their hash.
        source: HR images, taken whole.
        samplers: what to compare.
        store: where rows come from and go to.
        seeds: noise seeds of every image.
        limit: take the first so many images alone.
        metrics: what to measure.
        complete: whether rows from before one of the metrics was measured are made again.

    Raises:
        SkipDiffError: if the images have no originals.
    """

    def __init__(
        self,
        model: FrozenModel,
        source: ImageSource,
        samplers: Sequence[Sampler],
        store: Store,
        seeds: Sequence[int] = (0,),
        limit: int | None = None,
        metrics: Sequence[Metric] = METRICS,
        complete: bool = False,
    ) -> None:
        if source.low_resolution:
            raise SkipDiffError("tables need HR images, which are shrunk to make the input")
        self.model, self.source, self.store, self.metrics = model, source, store, metrics
        self.dtype = f"{str(model.dtype).removeprefix('torch.')} {model.device.type}"
        self.images = [
            image_name(make_pair(source, index, scale=model.scale))
            for index in range(min(len(source), limit or len(source)))
        ]
        self.keys = [
            (model.hash, self.dtype, image, seed, sampler.key)
            for image in self.images
            for seed in seeds
            for sampler in samplers
        ]
        self.jobs = []
        for index, image in enumerate(self.images):
            for seed in seeds:
                start = (model.hash, self.dtype, image, seed)
                found = {s: store.find((*start, s.key)) for s in samplers}
                missing = tuple(s for s, row in found.items() if not row or (complete and self._lacks(row)))
                if missing:
                    self.jobs.append(Job(index, image, seed, missing))

    @property
    def calls(self) -> int:
        """Network calls that are still to be made, at most."""
        return sum(job.calls for job in self.jobs)

    def run(self, progress: bool = False) -> list[Row]:
        """Compute what is missing, and return all rows, images first, in order.

        Args:
            progress: show a bar that counts network calls.
        """
        every = 0.5 if sys.stderr.isatty() else 60.0
        with tqdm(total=self.calls, unit="call", mininterval=every, disable=not progress) as bar:
            for number, job in enumerate(self.jobs, 1):
                bar.set_postfix_str(f"image {number}/{len(self.jobs)}: {job.image}", refresh=False)
                self._work(job, bar)
        self.jobs = []
        found = [self.store.find(key) for key in self.keys]
        return [row for row in found if row]

    def _lacks(self, row: Row) -> bool:
        """Whether a row is from before a metric was measured."""
        return any(metric.name not in row.scores for metric in self.metrics)

    def _work(self, job: Job, bar: tqdm) -> None:
        pair = make_pair(self.source, job.index, scale=self.model.scale)
        made: set[tuple[object, ...]] = set()
        for first in range(0, len(job.missing), SHOWN_AT_ONCE):
            some = job.missing[first : first + SHOWN_AT_ONCE]
            pictures = []
            for sampler in some:
                pictures.append(sampler.of(pair, job.seed))
                bar.update(len(sampler.calls - made))
                made |= sampler.calls
            self._keep(job, pair, some, pictures)

    def _keep(self, job: Job, pair: Pair, samplers: Sequence[Sampler], pictures: Sequence[Picture]) -> None:
        assert pair.hr is not None  # the source has originals
        scores = score([p.image for p in pictures], pair.hr, pair.lr, self.model.scale, self.metrics)
        for sampler, picture, found in zip(samplers, pictures, scores, strict=True):
            if math.isfinite(picture.seconds):
                found = {**found, SECONDS: picture.seconds}
            about = (self.model.hash, self.dtype, job.image, job.seed, sampler.key)
            self.store.add(Row(*about, found, picture.evaluations, picture.start))


def image_name(pair: Pair) -> str:
    """Name of an image that changes with the content of its LR input."""
    return f"{Path(pair.name).stem}-{image_key(pair.lr):016x}"
