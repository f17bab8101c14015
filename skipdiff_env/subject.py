"""The picture whose best schedule or plan is sought, prepared for the start of a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .diffusion import NoiseKey, image_key
from .diffusion.protocol import DiffusionModel
from .diffusion.resize import to_planes
from .errors import SkipDiffError
from .images import RGB8, cut_to_multiple, shrink, to_rgb8
from .metrics import Metric, Results, load_metric
from .metrics.base import Scores


@dataclass(frozen=True)
class Subject:
    """A picture under one noise seed, and the metric that scores its results."""

    condition: Tensor
    """c, (1, 3, H, W)."""
    keys: list[NoiseKey]
    """The noise key of the picture, in a list of one."""
    metric: Metric
    hr: RGB8 | None
    """The HR image, uint8 (H, W, 3), if there is one."""

    @classmethod
    def open(
        cls,
        model: DiffusionModel,
        image: Any,
        noise_seed: int,
        metric: Any,
        low_resolution: bool,
        lr: RGB8 | None = None,
    ) -> Subject:
        """Prepare an image, which is the LR input itself with ``low_resolution``, and otherwise the HR image.

        Raises:
            SkipDiffError: if the metric needs an HR image and there is none.
        """
        image, judge = to_rgb8(image, "the image"), load_metric(metric, model.device)
        if judge.reference and low_resolution:
            raise SkipDiffError(
                f"metric {judge.name!r} needs an HR image: use a no-reference metric such as 'niqe'"
            )
        hr = None if low_resolution else cut_to_multiple(image, model.scale)
        if lr is None:
            lr = image if hr is None else shrink(hr, model.scale)
        return cls(model.condition(to_planes(lr)), [NoiseKey(image_key(lr), noise_seed)], judge, hr)

    def scores(self, x0: Tensor) -> Scores:
        """Compute M of each estimate x̂0, (B, 3, H, W): float64 (B,); NaN where it cannot be computed."""
        return Results.of(x0).scores(self.metric, None if self.hr is None else np.stack([self.hr] * len(x0)))
