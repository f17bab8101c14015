"""The interface of every metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skipdiff_env.errors import SkipDiffError

Images = NDArray[np.uint8]
"""8-bit RGB pictures (B, H, W, 3): exactly the pixels that would be saved."""
Scores = NDArray[np.float64]
"""One score per picture, (B,); NaN where it cannot be computed."""


class Metric(ABC):
    """A quality score for 8-bit pictures, made by :func:`skipdiff_env.metrics.load_metric`.

    Attributes:
        name: name of the metric in tables.
        lower_better: whether a smaller score means a better picture.
        reference: whether the metric needs the undistorted pictures.
        min_size: minimum height and width in pixels of a picture (1 if unknown).
        device: device on which the metric's network computes, if it has one.

    Unless the metric is a user's function, a score depends only on the picture (and its reference): random
    numbers inside the metric are seeded for each picture, and the caller's generators are left as they were.
    Pickles and copies carry only the arguments of ``load_metric``, never weights.
    """

    restore: tuple[Callable[..., Metric], tuple[Any, str]] | None = None
    """The function and the arguments that recreate this metric; ``load_metric`` sets them."""

    def __init__(
        self,
        device: torch.device,
        *,
        name: str,
        lower_better: bool,
        reference: bool,
        min_size: int = 1,
    ) -> None:
        self.name, self.device = name, device
        self.lower_better, self.reference, self.min_size = lower_better, reference, min_size

    def __call__(self, images: Images, references: Images | None = None) -> Scores:
        """Score a batch.

        Args:
            images: uint8 (B, H, W, 3), RGB.
            references: the undistorted pictures, of the same shape; read only if the metric needs them.

        Returns:
            The scores, float64 (B,); NaN where a picture has no score (NIQE of a flat picture, for
            example). The PSNR of a perfect copy is infinite.

        Raises:
            SkipDiffError: if the pictures are of the wrong kind or too small, the references are missing or
                of another shape, or the metric cannot be loaded.
        """
        check_images(images, "images")
        self.check_size(*images.shape[1:3])
        if references is None:
            if self.reference:
                raise SkipDiffError(f"metric {self.name!r} needs references: pass the HR pictures")
        else:
            check_images(references, "references")
            if references.shape != images.shape:
                raise SkipDiffError(
                    f"images are {images.shape}, references {references.shape}: the shapes must be equal"
                )
        return self._score(images, references) if len(images) else np.empty(0)

    def rewards(self, scores: Scores) -> Scores:
        """Compute the rewards of scores M (Eq. 15), float64 of the same shape: 1/M if a lower M is better,
        else M. They are NaN where there is no reward (M ≤ 0 has no meaningful inverse)."""
        if not self.lower_better:
            return np.where(np.isfinite(scores), scores, np.nan)
        return np.divide(1.0, scores, where=scores > 0, out=np.full(scores.shape, np.nan))

    def worth(self, scores: Scores) -> Scores:
        """Compute the logarithms of the rewards of scores M, float64 of the same shape: -ln M if a lower M is
        better, else ln M. They are NaN where the reward has no finite logarithm."""
        rewards = self.rewards(scores)
        return np.log(np.where((rewards > 0) & np.isfinite(rewards), rewards, np.nan))

    def check_size(self, height: int, width: int) -> None:
        """Raise a SkipDiffError if pictures of this size are too small for the metric."""
        if min(height, width) < self.min_size:
            raise SkipDiffError(
                f"metric {self.name!r} needs pictures of at least {self.min_size}x{self.min_size} pixels, "
                f"got {width}x{height}: use larger pictures or another metric"
            )

    @abstractmethod
    def _score(self, images: Images, references: Images | None) -> Scores:
        """Score a batch that has been checked and is not empty."""

    def __reduce__(self) -> Any:
        return self.restore or super().__reduce__()

    def __repr__(self) -> str:
        better = "lower" if self.lower_better else "higher"
        return f"<metric {self.name!r}: {better} is better, {self.device}>"


def check_images(images: Images, what: str) -> None:
    """Raise a SkipDiffError unless ``images`` is a uint8 array (B, H, W, 3); ``what`` names it."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = getattr(images, "dtype", type(images).__name__)
        raise SkipDiffError(f"{what} must be a uint8 NumPy array, got {kind}")
    if images.ndim != 4 or images.shape[3] != 3:
        raise SkipDiffError(f"{what} must have the shape (batch, height, width, 3), got {images.shape}")
