"""Statistics of rows: means over images, 95 % bootstrap intervals, and paired differences.

The noise seeds of an image are averaged first, since the bootstrap draws images. Differences are taken image
by image and seed by seed. Every interval draws the same images, among those with a value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipdiff_agents.evaluate import DRAWS, bootstrap, drawn_again, interval

from .metrics import column as column_of
from .store import Row

FEWEST = 5
"""Minimum number of images for calling a result better or worse."""


@dataclass(frozen=True)
class Estimate:
    """A mean over images, and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    images: int
    """Number of images with a value."""

    def __format__(self, form: str) -> str:
        """Format the mean and the interval: f"{gain:+.2f}" is ``+0.31 (+0.12 … +0.50)``."""
        return f"{self.mean:{form}} ({self.low:{form}} … {self.high:{form}})"

    @property
    def sign(self) -> int:
        """1 or -1 if the whole interval lies on one side of zero; 0 if it does not, or for too few images."""
        return int(self.low > 0) - int(self.high < 0) if self.images >= FEWEST else 0


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Estimate the mean of one number per image, NaN where there is none."""
    finite = values[np.isfinite(values)]
    return Estimate(*bootstrap(finite), len(finite))


class Results:
    """The rows of one model on one set of images, by sampler.

    Args:
        rows: rows of samplers on images and seeds; a sampler has no value where it lacks a row.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        pairs = list(dict.fromkeys((row.image, row.seed) for row in rows))
        self.images = list(dict.fromkeys(image for image, _ in pairs))
        self.seeds = sorted({seed for _, seed in pairs})
        self._image = np.array([self.images.index(image) for image, _ in pairs])
        by_key = {(row.sampler, row.image, row.seed): row for row in rows}
        self.samplers = list(dict.fromkeys(row.sampler for row in rows))
        self._rows = {s: [by_key.get((s, image, seed)) for image, seed in pairs] for s in self.samplers}

    @property
    def computed(self) -> Counter[str]:
        """The number of rows by precision and device: ``{"float32 cuda": 300}``."""
        return Counter(row.dtype for rows in self._rows.values() for row in rows if row)

    def __contains__(self, sampler: str) -> bool:
        return sampler in self._rows

    def values(self, sampler: str, column: str) -> NDArray[np.float64]:
        """Return a column of a sampler's rows, float64, with a value for each image and seed."""
        rows = self._rows[sampler]
        return np.array([row.value(column) if row else math.nan for row in rows], np.float64)

    def estimate(self, sampler: str, column: str) -> Estimate:
        """Estimate the mean of a column; images for which it cannot be computed are left out."""
        return estimate(self._by_image(self.values(sampler, column)))

    def mean(self, sampler: str, column: str) -> float:
        """Return the mean of a column without its interval."""
        return self.estimate(sampler, column).mean

    def difference(self, sampler: str, other: str, column: str) -> Estimate:
        """Estimate the mean of ``sampler`` minus ``other``, paired by image and noise seed."""
        return estimate(self._by_image(self.values(sampler, column) - self.values(other, column)))

    def gain(self, sampler: str, other: str, column: str) -> Estimate:
        """Estimate the :meth:`difference`, with its sign changed if lower values are better."""
        found = self.difference(sampler, other, column)
        if column_of(column).lower_better:
            return Estimate(0 - found.mean, 0 - found.high, 0 - found.low, found.images)
        return found

    def ratio(self, sampler: str, other: str, column: str) -> Estimate:
        """Estimate the mean of ``sampler`` over that of ``other``, on images for which both have a value."""
        ours, theirs = (self._by_image(self.values(s, column)) for s in (sampler, other))
        both = np.isfinite(ours) & np.isfinite(theirs)
        return Estimate(*bootstrap(ours[both], theirs[both]), int(both.sum()))

    def spearman(self, samplers: Sequence[str], sizes: Sequence[float], column: str) -> Estimate:
        """Estimate Spearman's rank correlation of a column's means with ``sizes``, one per sampler."""
        table = np.stack([self._by_image(self.values(sampler, column)) for sampler in samplers], axis=1)
        table = table[np.isfinite(table).all(axis=1)]
        if not len(table):
            return Estimate(math.nan, math.nan, math.nan, 0)
        again = drawn_again(len(table), DRAWS, np.random.default_rng(0))
        drawn = _rank_correlation(table[again].mean(axis=1), sizes)
        rho = _rank_correlation(table.mean(axis=0)[None], sizes)[0]
        return Estimate(float(rho), *interval(drawn), len(table))

    def _by_image(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Average over the noise seeds of each image; NaN where none has a value."""
        finite = np.isfinite(values)
        images = self._image[finite]
        count = np.bincount(images, minlength=len(self.images))
        means = np.full(len(self.images), math.nan)
        np.divide(np.bincount(images, values[finite], len(self.images)), count, out=means, where=count > 0)
        return means


def _rank_correlation(rows: NDArray[np.float64], sizes: Sequence[float]) -> NDArray[np.float64]:
    """Return Spearman's ρ of each row with ``sizes``; 0 for constant rows (scipy, extra ``bench``)."""
    from scipy.stats import rankdata

    x, y = rankdata(sizes), rankdata(rows, axis=1)
    x, y = x - x.mean(), y - y.mean(axis=1, keepdims=True)
    norm = np.sqrt((x**2).sum() * (y**2).sum(axis=1))
    return np.divide(y @ x, norm, out=np.zeros(len(rows)), where=norm > 0)
