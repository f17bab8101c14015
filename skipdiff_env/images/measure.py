"""Measures faults of a photograph in its pixels: noise, blur, and coding that its file does not mention.

The estimators are simple and established; in large pictures, they examine only a few windows:

- noise: Immerkær's operator (1996), which ignores horizontal and vertical edges and shading, in blocks of 8×8
  pixels; flat blocks are found by iteration, as in Liu et al. (2013)
- blur: the ratio of gradients before and after blurring again (Zhuo and Sim 2011), at the strongest edges
- JPEG: the DCT coefficients of pictures that were JPEGs lie on a lattice (Fan and de Queiroz 2003)
- WebP: its decoder makes every colour from integers of limited range

The noise measured is that of single pixels: noise that a camera's interpolation or denoising has spread over
neighbours gives lower values. If nothing is flat, as on a page of letters a few pixels high, texture is
mistaken for noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

from .formats.coding import Coding, luminance_table
from .raster import Photo, eight_bits

WINDOW, WINDOWS = 256, 3
"""Side of the windows in which noise and blur are measured, and their number per axis. Pictures that have no
more pixels than all windows together are measured whole."""
BLOCK = 8
"""Side of JPEG's blocks, and of the blocks in which noise is measured."""
MIN_SIDE = 24
"""Minimum side in pixels; smaller pictures are not measured."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_YUV = np.array([[65.738, 129.057, 25.064], [-37.945, -74.494, 112.439], [112.439, -94.154, -18.285]]) / 256
"""ITU-R BT.601's Y, U and V of limited range, without their offsets 16, 128 and 128."""
_LAPLACIANS = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
"""Immerkær's operator, the difference of two Laplacians; white noise of σ becomes noise of 6 σ."""
_FREEDOM = BLOCK**2 / (70 / 36) ** 2
"""Degrees of freedom of the operator's power in a block: along either axis, neighbours have the
correlations (1, -4, 6, -4, 1)/6, whose squares add up to 70/36."""
_KEPT, _FLATTEST = 0.8, 0.05
"""Share of the flat blocks that each round keeps, and share of all blocks that the first round treats as
flat."""
_EDGES, _SHARPEST, _REBLUR = 0.05, 0.25, 1.0
"""Share of pixels that are treated as edges; share of these whose blur is below the one reported
(since sharp pictures, too, have parts out of focus); σ of the second blur."""
_FAINT = 4.0
"""Gradient in grey levels per pixel below which there is no edge."""
_GRID_WINDOW, _COEFFICIENTS = 192, 20_000
"""Side of the windows that are searched for a lattice, and number of coefficients that are used."""
MAX_BLUR = 5.0
"""Maximum blur that is reported, in pixels."""
_ZERO, _NONZERO, _ROUNDING = 0.6, 2.0, 0.35
"""Limit below which a DCT coefficient counts as quantised to 0; limit above which it is used to find a
lattice; standard deviation from the lattice, due to rounding to 8 bits twice, in YCbCr and in RGB. All are in
grey levels."""
_STRAY = 0.2
"""Share of the coefficients that may lie off the lattice, such as those of clipped blocks."""
_EVIDENCE, _PROOF = 0.35, 30.0
"""Minimum mean and minimum sum, over the coefficients, of the log likelihood ratio of a lattice to none, at
which a picture counts as a former JPEG."""
_QUALITIES = range(10, 97)
"""JPEG qualities that can leave a trace."""
_RESAVED = 5
"""Minimum amount by which a former quality must be below that of the file to count as another one."""
_COLOURS, _FEWEST, _COLOURED, _HITS = 20_000, 256, 3, 0.98
"""Maximum number of colours that are tried for WebP, and minimum number for a verdict; minimum difference of
the channels of a coloured pixel (most greys fit in any picture); share of the colours that must fit. About
0.15 fit in clean pictures and JPEGs, up to 0.965 in pictures of limited range from other decoders, and all in
WebPs."""


@dataclass(frozen=True)
class Measured:
    """The faults of a photograph."""

    noise: float | None
    """Standard deviation in grey levels, in flat areas; None if too little is visible to measure it."""
    blur: float | None
    """σ in pixels; 0 if there is no edge on which to measure it, and None if too little is visible. Sharp
    pictures have about 0.4."""
    coding: Coding | None = None
    """The coding of the file, or that of a former file if that was stronger."""
    former: bool = False
    """Whether ``coding`` is that of a former file, found in the pixels."""


def measure(photo: Photo) -> Measured:
    """Measure a photograph. This takes milliseconds to tenths of a second, whatever the picture's size."""
    windows = _windows(photo.colour, photo.alpha)
    if not windows:
        return Measured(None, None, photo.coding)
    noise = noise_level(windows)
    blur = blur_level([luma(window) for window in windows], noise)
    coding, former = photo.coding, former_coding(_windows(photo.colour, photo.alpha, _GRID_WINDOW))
    # In a JPEG's own pixels, the lattice is that of the file, within a small error.
    if former and coding and coding.quality and not former.below(coding.quality - _RESAVED + 1):
        former = None
    if not (former or coding) and was_webp(windows):
        former = Coding("WebP", None, "")
    return Measured(noise, blur, former or coding, former is not None)


def luma(pixels: np.ndarray) -> np.ndarray:
    """Convert uint8 (h, w, 1 or 3) to JPEG's Y, float32 (h, w)."""
    values = pixels.astype(np.float32)
    return values[..., 0] if values.shape[2] == 1 else values @ _LUMA


def _windows(colour: np.ndarray, alpha: np.ndarray | None, side: int = WINDOW) -> list[np.ndarray]:
    """Cut windows that begin at the same place in a block, or take the whole picture; none if too small.

    Fully transparent pixels become black, as if clipped; windows that hold nothing else are left out.
    """
    height, width = colour.shape[:2]
    if min(height, width) < MIN_SIDE:
        return []
    if height * width <= (WINDOWS * side) ** 2:
        parts = [(slice(0, height), slice(0, width))]
    else:
        starts = [
            np.linspace(0, max(length - side, 0), WINDOWS).astype(int) // BLOCK * BLOCK
            for length in (height, width)
        ]
        parts = [(slice(y, y + side), slice(x, x + side)) for y in starts[0] for x in starts[1]]
    if alpha is None:
        return [eight_bits(colour[part]) for part in parts]
    seen = [(eight_bits(colour[part]), alpha[part][..., None] > 0) for part in parts]
    return [pixels * visible for pixels, visible in seen if visible.any()]


# -- noise


def noise_level(windows: list[np.ndarray]) -> float:
    """Return the standard deviation of noise in flat areas, averaged over the channels.

    In a block of pure noise, the power of Immerkær's operator is σ² χ²/ν, with ν = ``_FREEDOM`` degrees of
    freedom. Starting from the flattest blocks, σ² is repeatedly replaced by the mean power of the blocks
    below the 80 % quantile expected for σ², divided by the mean of χ²/ν below that quantile, until it
    converges.

    Args:
        windows: uint8 (h, w, C) each, at least 10 pixels per side.

    Returns:
        σ in grey levels; 0 if every block holds black or white, which may be clipped.
    """
    powers = [_block_powers(window) for window in windows]
    found = []
    for channel in range(windows[0].shape[2]):
        power = np.concatenate([p[channel] for p in powers])
        if len(power):
            found.append(math.sqrt(_flat_power(power)))
    return float(np.mean(found)) if found else 0.0


def _block_powers(pixels: np.ndarray) -> list[np.ndarray]:
    """Return the operator's mean power in every block without black or white, in units of σ², by channel."""
    values = pixels.astype(np.float32)
    high = cv2.filter2D(values, cv2.CV_32F, _LAPLACIANS).reshape(values.shape)[1:-1, 1:-1]
    power = _blocks(np.square(high) / 36).mean(axis=(1, 3))
    inner = _blocks(values[1:-1, 1:-1])
    inside = np.all((inner > 0) & (inner < 255), axis=(1, 3))
    return [power[..., c][inside[..., c]] for c in range(power.shape[2])]


def _blocks(values: np.ndarray) -> np.ndarray:
    """Divide (h, w, C) into whole blocks, (rows, 8, columns, 8, C)."""
    rows, columns = (side // BLOCK for side in values.shape[:2])
    return values[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK, -1)


def _flat_power(power: np.ndarray) -> float:
    top, mean = _cut_off()
    power = np.sort(power)
    total = np.cumsum(power, dtype=np.float64)
    variance = float(np.quantile(power, _FLATTEST))
    for _ in range(50):
        count = int(np.searchsorted(power, variance * top, side="right"))
        following = float(total[count - 1]) / count / mean if count else variance
        if abs(following - variance) <= 1e-4 * variance:
            break
        variance = following
    return variance


@lru_cache
def _cut_off() -> tuple[float, float]:
    """Return the 80 % quantile of χ²/ν, and the mean of χ²/ν below it."""
    half = torch.tensor(_FREEDOM / 2, dtype=torch.float64)
    grid = torch.linspace(0.5, 3, 25001, dtype=torch.float64)
    below = torch.special.gammainc(half, grid * half)
    top = grid[int(torch.searchsorted(below, _KEPT))]
    mean = torch.special.gammainc(half + 1, top * half) / torch.special.gammainc(half, top * half)
    return float(top), float(mean)


# -- blur


def blur_level(planes: list[np.ndarray], noise: float = 0.0) -> float:
    """Return σ, in pixels, of the Gaussian that would turn sharp steps into the picture's sharper edges.

    If a step is blurred by σ and then again by σ₀, the gradient at its middle before the second
    blur is R = √(σ² + σ₀²)/σ times that after it, so σ = σ₀/√(R² - 1).

    Args:
        planes: float32 (h, w) each, in grey levels.
        noise: standard deviation of the noise, from which a gradient must stand out.
    """
    before, after = [], []
    for plane in planes:
        again = cv2.GaussianBlur(plane, (0, 0), _REBLUR, borderType=cv2.BORDER_REPLICATE)
        before.append(_gradient(plane).ravel())
        after.append(_gradient(again).ravel())
    gradient, blurred = np.concatenate(before), np.concatenate(after)
    count = max(1, round(_EDGES * gradient.size))
    least = max(float(np.partition(gradient, -count)[-count]), _FAINT + 3 * noise)
    edges = gradient >= least
    if edges.sum() < BLOCK**2:
        return 0.0
    ratio = gradient[edges] / np.maximum(blurred[edges], 1e-3)
    excess = np.maximum(np.square(ratio) - 1, (_REBLUR / MAX_BLUR) ** 2) * (ratio > 1)
    sigma = np.where(excess > 0, _REBLUR / np.sqrt(np.maximum(excess, 1e-9)), MAX_BLUR)
    return float(np.quantile(sigma, _SHARPEST))


def _gradient(plane: np.ndarray) -> np.ndarray:
    """Return the magnitude of the central differences at inner pixels, in grey levels per pixel."""
    return np.hypot(plane[1:-1, 2:] - plane[1:-1, :-2], plane[2:, 1:-1] - plane[:-2, 1:-1]) / 2


# -- JPEG


def former_coding(windows: list[np.ndarray]) -> Coding | None:
    """Return the coding of a picture that was a JPEG with the same pixels, perhaps cropped since; else None.

    The block grid is where most DCT coefficients are 0. The quality is that of the libjpeg table under which
    the other coefficients are most likely: a table's step q for a frequency puts them at multiples of q, with
    the density q N(r; 0, 0.35) at a distance r, relative to that without a lattice. If a picture has been
    turned by 90° since, the table is transposed.

    Args:
        windows: uint8 (h, w, C) each, whose first pixels have the same position in a block.
    """
    planes = [luma(window) for window in windows]
    shares = np.zeros((BLOCK, BLOCK))
    for y, x in np.ndindex(shares.shape):
        shares[y, x] = np.mean([(np.abs(_transform(plane[y:, x:])) < _ZERO).mean() for plane in planes])
    y, x = np.unravel_index(int(shares.argmax()), shares.shape)
    transforms = np.concatenate([_transform(plane[y:, x:]) for plane in planes])
    inside = [_blocks(((w > 0) & (w < 255))[y:, x:]).all(axis=(1, 3, 4)).ravel() for w in windows]
    whole = transforms[np.concatenate(inside)]  # clipping moves coefficients off the lattice
    return _likeliest(whole if len(whole) >= BLOCK else transforms)


def _likeliest(coefficients: np.ndarray) -> Coding | None:
    found = np.abs(coefficients.reshape(-1, BLOCK**2))
    found[:, 0] = 0  # the mean is of little use: it is seldom 0, and its step is small
    block, frequency = np.nonzero(found > _NONZERO)
    every = max(1, -(-len(block) // _COEFFICIENTS))
    block, frequency = block[::every], frequency[::every]
    # Drawings repeat themselves exactly, which is no evidence; decoded coefficients are never quite the same.
    values, frequency = np.unique([found[block, frequency].round(3), frequency], axis=1)
    frequency = frequency.astype(int)
    best, gain = 0, 0.0
    tables = {quality: luminance_table(quality) for quality in _QUALITIES}
    for quality, table in (*tables.items(), *((quality, table.T) for quality, table in tables.items())):
        step = table.ravel()[frequency]
        off = values - step * np.rint(values / step)
        density = step * np.exp(-0.5 * np.square(off / _ROUNDING)) / (_ROUNDING * math.sqrt(2 * math.pi))
        mean = float(np.log(_STRAY + (1 - _STRAY) * density).sum()) / max(len(values), 1)
        if mean > gain:
            best, gain = quality, mean
    return Coding("JPEG", best, "") if gain > max(_EVIDENCE, _PROOF / max(len(values), 1)) else None


def _transform(plane: np.ndarray) -> np.ndarray:
    """Compute the orthonormal DCT of all whole blocks, float32 (n, 8, 8)."""
    blocks = _blocks(plane[..., None])[..., 0].transpose(0, 2, 1, 3).reshape(-1, BLOCK, BLOCK) - 128
    cosines = _cosines()
    return cosines @ blocks @ cosines.T


@lru_cache
def _cosines() -> np.ndarray:
    """Return the orthonormal DCT-II of 8 values, float32 (8, 8)."""
    n = np.arange(BLOCK)
    matrix = np.cos(np.pi * (n + 0.5) * n[:, None] / BLOCK) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix.astype(np.float32)


# -- WebP


def was_webp(windows: list[np.ndarray]) -> bool:
    """Return whether a picture was a lossy WebP with the same pixels, perhaps cropped or turned since.

    Colours that libwebp's decoder made from integer Y, U and V are restored exactly from their rounded Y, U
    and V; few others are. Greys are no evidence.

    Args:
        windows: uint8 (h, w, C) each.
    """
    if windows[0].shape[2] == 1:
        return False
    rgb = np.concatenate([window.reshape(-1, 3) for window in windows]).astype(int)
    low, high = rgb.min(axis=1), rgb.max(axis=1)
    rgb = rgb[(low > 0) & (high < 255) & (high - low >= _COLOURED)]
    rgb = rgb[:: max(1, -(-len(rgb) // _COLOURS))]
    if len(rgb) < _FEWEST:
        return False
    y, u, v = np.rint(rgb @ _YUV.T + (16, 128, 128)).astype(int).T
    bright = y * 19077 >> 8  # the decoder's integers, 14 bits of fraction
    red = bright + (v * 26149 >> 8) - 14234
    green = bright - (u * 6419 >> 8) - (v * 13320 >> 8) + 8708
    blue = bright + (u * 33050 >> 8) - 17685
    return bool((np.stack([red, green, blue], axis=1) >> 6 == rgb).all(axis=1).mean() >= _HITS)
