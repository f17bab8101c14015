"""From the final estimates of chains to their scores, and from rewards to what is paid.

Environments, oracles and recordings score their estimates here, so that they agree on which results have no
score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skipdiff_env.diffusion.resize import to_arrays, to_uint8
from skipdiff_env.metrics.base import Images, Metric, Scores


class Results(NamedTuple):
    """Estimates x̂0 as the 8-bit images that are saved and scored."""

    images: Images
    """uint8 (B, H, W, 3)."""
    finite: NDArray[np.bool_]
    """Whether every number of each x̂0 is finite, (B,). Where one is not, the image is meaningless."""

    @classmethod
    def of(cls, x0: Tensor) -> Results:
        """Return the results of x̂0, (B, 3, H, W) in [-1, 1]."""
        return cls(to_arrays(to_uint8(x0)), torch.isfinite(x0).flatten(1).all(dim=1).cpu().numpy())

    def select(self, rows: NDArray[np.bool_]) -> Results:
        """Return the results of some rows."""
        return Results(self.images[rows], self.finite[rows])

    def valid(self, scores: ArrayLike) -> Scores:
        """Return scores of the images, float64 (B, ...), with NaN where x̂0 is not finite."""
        found = np.array(scores, np.float64)
        found[~self.finite] = np.nan
        return found

    def scores(self, metric: Metric, references: Images | None) -> Scores:
        """Compute the score of each x̂0, float64 (B,); NaN where x̂0 is not finite or has no score.
        ``references`` are the HR images, uint8 (B, H, W, 3)."""
        return self.valid(metric(self.images, references))


def or_zero(values: Scores) -> Scores:
    """Return what is paid for a result: its reward or its worth (:meth:`.Metric.rewards`,
    :meth:`.Metric.worth`), or 0 where that is not finite."""
    return np.where(np.isfinite(values), values, 0.0)
