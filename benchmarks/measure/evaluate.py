"""Computes the missing rows of images and samplers; the number of network calls is known beforehand."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion import FrozenModel, image_key
from skipdiff_env.images import ImageSource, Pair, make_pair

from .metrics import METRICS, Metric, score
from .sampler import Picture, Sampler
from .store import Row, Store

SECONDS = "seconds"
"""The column of the time that a result took, if that was measured."""
SCORED_AT_ONCE = 8
"""Number of results of an image and a noise seed that are scored and kept together."""
DIGITS = 7
"""Number of significant digits of scores in rows; float32 has no more."""
BATCH = 8
"""Number of images that are enlarged together."""


class Episode(NamedTuple):
    """An image, given by its number in the source and its name, and a noise seed."""

    number: int
    image: str
    seed: int


@dataclass(frozen=True)
class Job:
    """Images of one size, each with a noise seed, and the samplers whose rows are missing for all of them."""

    episodes: tuple[Episode, ...]
    missing: tuple[Sampler, ...]

    @property
    def rows(self) -> int:
        """The number of rows that it makes."""
        return len(self.episodes) * len(self.missing)

    @property
    def calls(self) -> int:
        """The maximum number of network calls that it takes; a call for several images counts for each."""
        return len(self.episodes) * len(frozenset().union(*(sampler.calls for sampler in self.missing)))


class Evaluation:
    """Evaluates every sampler on every image and seed.

    Args:
        model: the model, which gives the scale of the LR images and the hash in the rows.
        source: HR images, which are not cropped.
        samplers: the samplers to compare.
        store: the store that rows are read from and added to.
        seeds: noise seeds of every image.
        limit: number of images to use, from the first on; None: all.
        metrics: the metrics to measure.
        complete: whether rows that lack one of the metrics are made again.

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
        count = min(len(source), limit or len(source))
        pairs = (make_pair(source, index, scale=model.scale) for index in range(count))
        about = [(image_name(pair), pair.lr.shape) for pair in pairs]
        self.images = [image for image, _ in about]
        self.keys = [
            (model.hash, self.dtype, image, seed, sampler.key)
            for image in self.images
            for seed in seeds
            for sampler in samplers
        ]
        alike: dict[tuple[object, ...], tuple[list[Episode], tuple[Sampler, ...]]] = {}
        for index, (image, shape) in enumerate(about):
            for seed in seeds:
                start = (model.hash, self.dtype, image, seed)
                found = {s: store.find((*start, s.key)) for s in samplers}
                missing = tuple(s for s, row in found.items() if not row or (complete and self._lacks(row)))
                if missing:
                    kind = (shape, *(s.key for s in missing))
                    alike.setdefault(kind, ([], missing))[0].append(Episode(index, image, seed))
        self.jobs = [
            Job(tuple(episodes[first : first + BATCH]), missing)
            for episodes, missing in alike.values()
            for first in range(0, len(episodes), BATCH)
        ]

    @property
    def calls(self) -> int:
        """The maximum number of network calls that are still to be made."""
        return sum(job.calls for job in self.jobs)

    def run(self, progress: bool = False) -> list[Row]:
        """Compute the missing rows, and return all rows in order, first by image.

        Args:
            progress: whether to show a bar that counts network calls.
        """
        every = 0.5 if sys.stderr.isatty() else 60.0
        with tqdm(total=self.calls, unit="call", mininterval=every, disable=not progress) as bar:
            for number, job in enumerate(self.jobs, 1):
                bar.set_postfix_str(f"batch {number}/{len(self.jobs)}", refresh=False)
                self._work(job, bar)
        self.jobs = []
        found = [self.store.find(key) for key in self.keys]
        return [row for row in found if row]

    def _lacks(self, row: Row) -> bool:
        """Return whether a row lacks one of the metrics."""
        return any(metric.name not in row.scores for metric in self.metrics)

    def _work(self, job: Job, bar: tqdm) -> None:
        pairs = [make_pair(self.source, episode.number, scale=self.model.scale) for episode in job.episodes]
        seeds = [episode.seed for episode in job.episodes]
        made: set[tuple[object, ...]] = set()
        for first in range(0, len(job.missing), SCORED_AT_ONCE):
            some = job.missing[first : first + SCORED_AT_ONCE]
            pictures = []
            for sampler in some:
                pictures.append(sampler.of(pairs, seeds))
                bar.update(len(pairs) * len(sampler.calls - made))
                made |= sampler.calls
            for episode, pair, own in zip(job.episodes, pairs, zip(*pictures, strict=True), strict=True):
                self._keep(episode, pair, some, own)

    def _keep(
        self, episode: Episode, pair: Pair, samplers: Sequence[Sampler], pictures: Sequence[Picture]
    ) -> None:
        assert pair.hr is not None  # the source has originals
        scores = score([p.image for p in pictures], pair.hr, pair.lr, self.model.scale, self.metrics)
        for sampler, picture, found in zip(samplers, pictures, scores, strict=True):
            if math.isfinite(picture.seconds):
                found = {**found, SECONDS: picture.seconds}
            found = {name: float(f"{value:.{DIGITS}g}") for name, value in found.items()}
            about = (self.model.hash, self.dtype, episode.image, episode.seed, sampler.key)
            self.store.add(Row(*about, found, picture.evaluations, picture.start))


def image_name(pair: Pair) -> str:
    """Return a name of an image that changes with the content of its LR input."""
    return f"{Path(pair.name).stem}-{image_key(pair.lr):016x}"
