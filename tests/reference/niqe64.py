"""NIQE in float64, written from the paper (Mittal, Soundararajan and Bovik 2013), NumPy and SciPy only.

What the paper leaves open follows the authors' MATLAB release as its users describe it: blocks of 96x96
from the top left, replicated borders, ``imresize`` (antialiased bicubic, mirrored borders) for the second
scale, products with neighbours that wrap around within a block.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d
from scipy.special import gammaln

SHAPES = np.arange(0.2, 10.001, 0.001)


def ratio(shape, a, b, c):
    """Γ(a/shape)² / (Γ(b/shape) Γ(c/shape))."""
    return np.exp(2 * gammaln(a / shape) - gammaln(b / shape) - gammaln(c / shape))


GENERALISED_GAUSSIAN = ratio(SHAPES, 2, 1, 3)


def separable(x, weights, origin, mode):
    for axis in (0, 1):
        x = correlate1d(x, weights, axis=axis, origin=origin, mode=mode)
    return x


def mscn(luma):
    """Mean-subtracted, contrast-normalised coefficients: 7x7 Gaussian window, sigma 7/6 (Eqs. 1 to 3)."""
    window = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    window /= window.sum()
    mean = separable(luma, window, 0, "nearest")
    variance = separable(luma**2, window, 0, "nearest") - mean**2
    return (luma - mean) / (np.sqrt(np.abs(variance)) + 1)


def half_size(luma):
    """Bicubic, a = -0.5, stretched to twice its width: 8 taps at odd multiples of a quarter."""
    t = np.abs(np.arange(-1.75, 2, 0.5))
    taps = np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)
    # An even window has no middle; with origin -1 the first four taps lie at and before pixel 2i, so the
    # window straddles 2i and 2i + 1.
    return separable(luma, taps / taps.sum(), -1, "reflect")[::2, ::2]


def asymmetric_fit(x):
    """Shape and both scales of an asymmetric generalised Gaussian by moment matching (Eq. 5)."""
    left, right = np.sqrt(np.mean(x[x < 0] ** 2)), np.sqrt(np.mean(x[x > 0] ** 2))
    g = left / right
    target = np.mean(np.abs(x)) ** 2 / np.mean(x**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = SHAPES[np.argmin(np.abs(GENERALISED_GAUSSIAN - target))]
    to_scale = np.exp(0.5 * (gammaln(1 / shape) - gammaln(3 / shape)))
    return shape, left * to_scale, right * to_scale


def block_features(block):
    """18 numbers: the coefficients' shape and scale, and four of each product of neighbours."""
    shape, left, right = asymmetric_fit(block)
    features = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = asymmetric_fit(block * np.roll(block, shift, (0, 1)))
        mean = (right - left) * np.exp(gammaln(2 / shape) - gammaln(1 / shape))
        features += [shape, mean, left, right]
    return features


def niqe64(luma, pristine_mean, pristine_covariance):
    """NIQE of a luma image (H, W) in whole grey levels 0 … 255 (Eq. 10)."""
    rows, columns = (side // 96 for side in luma.shape)
    luma = luma[: 96 * rows, : 96 * columns].astype(np.float64)
    scales = []
    for image, side in ((luma, 96), (half_size(luma), 48)):
        blocks = mscn(image).reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
        scales.append([block_features(block) for block in blocks])
    features = np.concatenate(scales, axis=1)
    difference = features.mean(0) - pristine_mean
    pooled = (pristine_covariance + np.cov(features, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))
