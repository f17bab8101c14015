"""What is wrong with a photograph, by its pixels: noise, blur, and JPEG coding that its file hides.

Simple estimators of the field, each of one idea, on a few windows of large pictures:

- noise: Immerkær's operator (1996), which sees no straight edges and no shading, in blocks of 8×8 pixels; the
  flat ones are found by iteration, as Liu et al. (2013) find theirs
- blur: the ratio of gradients before and after blurring again (Zhuo and Sim 2011), at the strongest edges
- JPEG: the DCT coefficients of pictures that were JPEGs lie on a lattice (Fan and de Queiroz 2003)

Where nothing is flat, as on a page of type a few pixels high, texture is taken for noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

from .coding import Coding, luminance_table
from .raster import Photo, eight_bits

WINDOW, WINDOWS = 256, 3
"""Pictures of more pixels are measured in 3×3 windows of this side, spread evenly."""
BLOCK = 8
"""Side of JPEG's blocks, and of those that noise is measured in."""
MIN_SIDE = 24
"""Smaller pictures are not measured."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_LAPLACIANS = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
"""Immerkær's operator, the difference of two Laplacians; white noise of σ becomes noise of 6 σ."""
_FREEDOM = BLOCK**2 / (70 / 36) ** 2
"""Degrees of freedom of the operator's power in a block: neighbours correlate by (1, -4, 6, -4, 1)/6 along
either axis, whose squares add up to 70/36."""
_KEPT, _FLATTEST = 0.8, 0.05
"""Shares of the blocks: of flat ones that are kept in each round, and that the first round takes for flat."""
_EDGES, _SHARPEST, _REBLUR = 0.05, 0.25, 1.0
"""Shares of pixels that are taken for edges, and of these that are sharper than the picture's blur (things
lie out of focus in sharp pictures, too); σ of the second blur."""
_FAINT = 4.0
"""Grey levels a pixel below which a gradient is no edge."""
_GRID_WINDOW, _COEFFICIENTS = 192, 20_000
"""Side of the part of a window that a lattice is looked for in, and how many coefficients are looked at."""
MAX_BLUR = 5.0
"""Largest blur that is told, in pixels."""
_ZERO, _NONZERO, _ROUNDING = 0.6, 2.0, 0.35
"""DCT coefficients taken for quantised to 0, those that are looked at for a lattice, and their deviation
from it, all in grey levels; rounding to 8 bits in RGB and once before is what spoils the lattice."""
_STRAY = 0.2
"""Share of the coefficients that may lie off the lattice, such as those of clipped blocks."""
_EVIDENCE, _PROOF = 0.35, 30.0
"""Mean log likelihood of a coefficient, above that of no lattice, from which on a picture was a JPEG,
and the least sum."""
_QUALITIES = range(10, 97)
"""Of which a trace can be left."""
_RESAVED = 5
"""By how much a former quality must lie below the file's to be another one."""


@dataclass(frozen=True)
class Measured:
    """What is wrong with a photograph."""

    noise: float
    """Standard deviation in 8-bit units, in flat areas."""
    blur: float
    """σ in pixels; 0 where there is no edge to tell by. Sharp pictures have about 0.4 of it."""
    coding: Coding | None = None
    """How the file was compressed, or a former one, if that was compressed more strongly."""
    former: bool = False
    """Whether it is a former one's, which was seen in the pixels."""


def measure(photo: Photo) -> Measured:
    """Measure a photograph. It takes milliseconds to tenths of a second, whatever its size."""
    windows = _windows(photo.colour, photo.alpha)
    if not windows:
        return Measured(0.0, 0.0, photo.coding)
    noise = noise_level(windows)
    blur = blur_level([luma(window) for window in windows], noise)
    coding, former = photo.coding, former_coding(windows)
    # Of a JPEG's own pixels the lattice is the file's, give or take a step.
    if former and coding and former.quality > coding.quality - _RESAVED:
        former = None
    return Measured(noise, blur, former or coding, former is not None)


def luma(pixels: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 1 or 3) → float32 (h, w), JPEG's Y."""
    values = pixels.astype(np.float32)
    return values[..., 0] if values.shape[2] == 1 else values @ _LUMA


def _windows(colour: np.ndarray, alpha: np.ndarray | None) -> list[np.ndarray]:
    """The picture, or windows of it, from the same place in a block on, as uint8; none if it is too small.

    What is transparent all over counts for nothing.
    """
    height, width = colour.shape[:2]
    if min(height, width) < MIN_SIDE:
        return []
    if height * width <= (WINDOWS * WINDOW) ** 2:
        parts = [(slice(0, height), slice(0, width))]
    else:
        starts = [
            np.linspace(0, max(side - WINDOW, 0), WINDOWS).astype(int) // BLOCK * BLOCK
            for side in (height, width)
        ]
        parts = [(slice(y, y + WINDOW), slice(x, x + WINDOW)) for y in starts[0] for x in starts[1]]
    return [eight_bits(colour[part]) for part in parts if alpha is None or alpha[part].any()]


# -- noise


def noise_level(windows: list[np.ndarray]) -> float:
    """Standard deviation of noise in flat areas, the mean over the channels.

    The power of Immerkær's operator in a block of pure noise follows χ² of ``_FREEDOM`` degrees. From the
    flattest blocks on, σ² is the mean of those blocks whose power lies below the 80 % quantile of what σ²
    lets expect, over the mean of a χ² that is cut off there, until it stays.

    Args:
        windows: uint8 (h, w, C) each, at least 10 pixels a side.

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
    """Of each channel, the operator's mean power in every block without black or white, in σ²."""
    values = pixels.astype(np.float32)
    high = cv2.filter2D(values, cv2.CV_32F, _LAPLACIANS).reshape(values.shape)[1:-1, 1:-1]
    power = _blocks(np.square(high) / 36).mean(axis=(1, 3))
    inner = _blocks(values[1:-1, 1:-1])
    inside = np.all((inner > 0) & (inner < 255), axis=(1, 3))
    return [power[..., c][inside[..., c]] for c in range(power.shape[2])]


def _blocks(values: np.ndarray) -> np.ndarray:
    """(h, w, C) → (rows, 8, columns, 8, C) of whole blocks."""
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
    """The 80 % quantile of χ²/ν, and the mean of χ²/ν below it."""
    half = torch.tensor(_FREEDOM / 2, dtype=torch.float64)
    grid = torch.linspace(0.5, 3, 25001, dtype=torch.float64)
    below = torch.special.gammainc(half, grid * half)
    top = grid[int(torch.searchsorted(below, _KEPT))]
    mean = torch.special.gammainc(half + 1, top * half) / torch.special.gammainc(half, top * half)
    return float(top), float(mean)


# -- blur


def blur_level(planes: list[np.ndarray], noise: float = 0.0) -> float:
    """σ of the Gaussian that would have blurred steps to the picture's sharper edges, in pixels.

    A step that was blurred by σ and then again by σ₀ has R = √(σ² + σ₀²)/σ times the gradient before the
    second time, at its middle, so that σ = σ₀/√(R² - 1).

    Args:
        planes: float32 (h, w) each, in grey levels.
        noise: its standard deviation, above which a gradient has to stand out.
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
    """Magnitude of central differences inside, in grey levels a pixel."""
    return np.hypot(plane[1:-1, 2:] - plane[1:-1, :-2], plane[2:, 1:-1] - plane[:-2, 1:-1]) / 2


# -- JPEG


def former_coding(windows: list[np.ndarray]) -> Coding | None:
    """The coding of a picture that was a JPEG and has kept its pixels since; it may have been cropped.

    The block grid is where most DCT coefficients are 0. The quality is the one of libjpeg's tables under
    which the others are likeliest: a table's step q for a frequency puts them at multiples of q, with the
    density q N(r; 0, 0.35) at a distance r, relative to that of no lattice.

    Args:
        windows: uint8 (h, w, C) each, whose first pixels lie at the same place in a block.
    """
    windows = [window[:_GRID_WINDOW, :_GRID_WINDOW] for window in windows]
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
    found[:, 0] = 0  # the mean: it says little, as it is seldom 0 and its step is small
    block, frequency = np.nonzero(found > _NONZERO)
    every = max(1, -(-len(block) // _COEFFICIENTS))
    block, frequency = block[::every], frequency[::every]
    # Drawings repeat themselves exactly, which is no evidence; decoded coefficients are never quite the same.
    values, frequency = np.unique([found[block, frequency].round(3), frequency], axis=1)
    frequency = frequency.astype(int)
    best, gain = 0, 0.0
    for quality in _QUALITIES:
        step = luminance_table(quality).ravel()[frequency]
        off = values - step * np.rint(values / step)
        density = step * np.exp(-0.5 * np.square(off / _ROUNDING)) / (_ROUNDING * math.sqrt(2 * math.pi))
        mean = float(np.log(_STRAY + (1 - _STRAY) * density).sum()) / max(len(values), 1)
        if mean > gain:
            best, gain = quality, mean
    return Coding("JPEG", best, "") if gain > max(_EVIDENCE, _PROOF / max(len(values), 1)) else None


def _transform(plane: np.ndarray) -> np.ndarray:
    """The orthonormal DCT of all whole blocks, float32 (n, 8, 8)."""
    blocks = _blocks(plane[..., None])[..., 0].transpose(0, 2, 1, 3).reshape(-1, BLOCK, BLOCK) - 128
    cosines = _cosines()
    return cosines @ blocks @ cosines.T


@lru_cache
def _cosines() -> np.ndarray:
    """The orthonormal DCT-II of 8 values, float32 (8, 8)."""
    n = np.arange(BLOCK)
    matrix = np.cos(np.pi * (n + 0.5) * n[:, None] / BLOCK) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix.astype(np.float32)
