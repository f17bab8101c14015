"""PSNR and SSIM as the super-resolution papers report them: on the luma of BT.601.

Luma is not rounded and runs from 16 to 235, as in MATLAB's rgb2ycbcr without its rounding. The data range is
255, and no border is cut off. SSIM (Wang et al. 2004) has an 11x11 Gaussian window of sigma 1.5 and is
computed by scikit-image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from skipdiff_env.metrics.base import Images, Metric, Scores

_BT601 = np.array([65.481, 128.553, 24.966]) / 255
SSIM_WINDOW = 11
"""Side of SSIM's window in pixels, and therefore the minimum side of a picture."""


def studio_luma(images: Images) -> NDArray[np.float64]:
    """Compute the luma of uint8 RGB (…, 3) in BT.601 studio range: float64 (…) in [16, 235], not rounded."""
    return 16 + images @ _BT601


def psnr_y(a: Images, b: Images) -> Scores:
    """Compute the peak signal-to-noise ratio of luma in dB, float64 (B,), of two batches, uint8 (B, H, W, 3).

    The ratio is infinite where both pictures of a pair have the same luma.
    """
    error = np.square(studio_luma(a) - studio_luma(b)).mean(axis=(1, 2))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def ssim_y(a: Images, b: Images) -> Scores:
    """Compute the structural similarity of luma, at most 1, float64 (B,), of two batches, uint8 (B, H, W, 3).

    Raises:
        ValueError: if a side is shorter than 11 pixels.
    """
    from skimage.metrics import structural_similarity

    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(studio_luma(a), studio_luma(b), strict=True)
    return np.array([structural_similarity(x, y, **options) for x, y in pairs], np.float64)


class FidelityMetric(Metric):
    """``psnr_y``, ``ssim_y`` or a similar function as a metric, computed on the CPU whatever the device."""

    def __init__(
        self,
        name: str,
        device: torch.device,
        function: Callable[[Images, Images], Scores],
        min_size: int,
        lower_better: bool = False,
    ) -> None:
        super().__init__(device, name=name, lower_better=lower_better, reference=True, min_size=min_size)
        self._function = function

    def _score(self, images: Images, references: Images | None) -> Scores:
        assert references is not None  # __call__ has checked
        return self._function(images, references)
