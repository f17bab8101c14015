"""What cameras and websites do to photographs: blur, resizing, noise, JPEG and WebP, once or twice over.

As in Real-ESRGAN (Wang et al. 2021), each fault is of a random kind, with a strength drawn from a range. The
faults are applied in random order, and to some pictures a second time. All of them act on the 8-bit sRGB
values of files, not on linear light. Pictures are arrays (h, w, 3). The codecs are real: on LR crops, they
take less time than an emulation would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from .resize import to_arrays, to_planes

Pixels = np.ndarray
"""float32 (h, w, 3), about 0 … 255."""

MAX_BLUR = 2.5
"""Maximum σ of blur, in pixels of the picture; a wider blur does not fit into the kernels."""
RADIUS = 8
"""Half-width of the blur kernels in pixels."""
GRID = 16
"""Side of a coding block in pixels; a picture cut from a larger one starts anywhere within a block."""
RESAMPLING = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
GREY_SHARE, POISSON_SHARE, FULL_CHROMA_SHARE = 0.4, 0.4, 0.3
"""Shares of noise that is the same in all channels, of noise that is Poisson noise, and of JPEGs with 4:4:4
chroma."""


@dataclass(frozen=True)
class Effect:
    """One fault, given to a ``share`` of the pictures, with a strength distributed uniformly from ``low`` to
    ``high``."""

    share: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share = {self.share} must be from 0 to 1")
        if not 0 <= self.low <= self.high < math.inf:
            raise ValueError(f"low = {self.low} must be from 0 to high = {self.high}, which must be finite")

    def draw(self, rng: np.random.Generator) -> float | None:
        """Draw a strength, or return None for a picture without this fault."""
        return rng.uniform(self.low, self.high) if rng.random() < self.share else None


@dataclass(frozen=True)
class DegradationRecipe:
    """The faults that LR is given after shrinking, in random order, in training and validation."""

    blur: Effect = Effect()
    """σ along the wider axis in LR pixels, at most 2.5; see :func:`draw_kernel` for the kinds."""
    resize: Effect = Effect()
    """Factor of resizing, 0.25 … 4. Later faults act at the new size; at the end, the picture is resized
    back."""
    noise: Effect = Effect()
    """σ in grey levels; for Poisson noise, σ at mid-grey."""
    jpeg: Effect = Effect()
    """Quality 1 … 100, chroma 4:2:0 or 4:4:4."""
    webp: Effect = Effect()
    """Quality 1 … 100."""
    again: float = 0.0
    """Share of the pictures that go through all of this a second time, with other strengths."""

    def __post_init__(self) -> None:
        for name, effect, least, most in (
            ("blur", self.blur, 0, MAX_BLUR),
            ("resize", self.resize, 0.25, 4),
            ("jpeg", self.jpeg, 1, 100),
            ("webp", self.webp, 1, 100),
        ):
            if effect.share and not least <= effect.low <= effect.high <= most:
                raise ValueError(f"{name} must be from {least} to {most}, not {effect.low} … {effect.high}")
        if not 0 <= self.again <= 1:
            raise ValueError(f"again = {self.again} must be from 0 to 1")

    @property
    def ranges(self) -> dict[str, list[float]]:
        """Minimum and maximum strength of each fault that is used."""
        effects = {name: effect for name, effect in vars(self).items() if isinstance(effect, Effect)}
        return {name: [effect.low, effect.high] for name, effect in effects.items() if effect.share}


def degrade_batch(lr: Tensor, recipe: DegradationRecipe, seeds: Tensor) -> Tensor:
    """Degrade LR images, uint8 (B, 3, h, w); the faults of each image depend only on its own seed, one of
    ``seeds``, int64 (B,)."""
    arrays = to_arrays(lr)
    made = [
        degraded(array, recipe, np.random.default_rng(seed))
        for array, seed in zip(arrays, seeds.tolist(), strict=True)
    ]
    return to_planes(np.stack(made)).to(lr.device).contiguous()


def draw_seeds(batch: int, generator: torch.Generator) -> Tensor:
    """Draw seeds for :func:`degrade_batch`, int64 (batch,)."""
    return torch.randint(2**63 - 1, (batch,), generator=generator)


def degraded(image: np.ndarray, recipe: DegradationRecipe, rng: np.random.Generator) -> np.ndarray:
    """Degrade one picture, uint8 (h, w, 3), with faults drawn from ``rng``."""
    pixels = image.astype(np.float32)
    for _ in range(1 + (rng.random() < recipe.again)):
        pixels = _once(pixels, recipe, rng)
    return to_bytes(pixels)


def _once(pixels: Pixels, recipe: DegradationRecipe, rng: np.random.Generator) -> Pixels:
    """Apply the faults that are drawn for this picture, in random order."""
    height, width = pixels.shape[:2]
    faults: tuple[tuple[Effect, Callable[[Pixels, float, np.random.Generator], Pixels]], ...] = (
        (recipe.blur, _some_blur),
        (recipe.resize, _some_resize),
        (recipe.noise, _some_noise),
        (recipe.jpeg, _some_jpeg),
        (recipe.webp, _some_webp),
    )
    for index in rng.permutation(len(faults)):
        effect, apply = faults[index]
        strength = effect.draw(rng)
        if strength is not None:
            if effect is recipe.blur:
                strength *= pixels.shape[0] / height  # in pixels of its present size
            pixels = apply(pixels, strength, rng)
    if pixels.shape[:2] != (height, width):
        pixels = resized(pixels, height, width, RESAMPLING[rng.integers(len(RESAMPLING))])
    return pixels


def _some_blur(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    return blurred(pixels, draw_kernel(sigma, rng))


def _some_resize(pixels: Pixels, factor: float, rng: np.random.Generator) -> Pixels:
    height, width = (max(4, round(side * factor)) for side in pixels.shape[:2])
    return resized(pixels, height, width, RESAMPLING[rng.integers(len(RESAMPLING))])


def _some_noise(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    grey, poisson = rng.random() < GREY_SHARE, rng.random() < POISSON_SHARE
    return noisy(pixels, sigma, rng, grey=grey, poisson=poisson)


def _some_jpeg(pixels: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    full, corner = rng.random() < FULL_CHROMA_SHARE, rng.integers(GRID, size=2)
    return jpeg(pixels, round(quality), full_chroma=full, corner=(corner[0], corner[1]))


def _some_webp(pixels: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    corner = rng.integers(GRID, size=2)
    return webp(pixels, round(quality), corner=(corner[0], corner[1]))


# -- single faults


def to_bytes(pixels: Pixels) -> np.ndarray:
    """Round pixels to uint8."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def gaussian_kernel(sigma: float, ratio: float = 1.0, angle: float = 0.0, shape: float = 2.0) -> np.ndarray:
    """Compute the kernel exp(-½ (kr)ˢ) with sum 1, 2 RADIUS + 1 pixels wide.

    r is the distance in units of σ, and k is chosen such that σ is the standard deviation.

    Args:
        sigma: σ along the wider axis, in pixels.
        ratio: ratio of the narrower axis to the wider, 0 … 1.
        angle: angle of the wider axis, in radians.
        shape: s; 2 gives a Gaussian, larger values give a flat top, and smaller values a peak with long
            tails.
    """
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].astype(np.float64)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    sigma = max(sigma, 0.05)  # far below a pixel there is nothing to blur
    distance = np.hypot(along / sigma, across / max(sigma * ratio, 0.05))
    # ½ E[r²] of exp(-½ rˢ) in the plane, the variance along an axis; 1 for a Gaussian
    variance = 2 ** (2 / shape) * math.gamma(4 / shape) / (2 * math.gamma(2 / shape))
    kernel = np.exp(-0.5 * (math.sqrt(variance) * distance) ** shape)
    return (kernel / kernel.sum()).astype(np.float32)


def disc_kernel(sigma: float) -> np.ndarray:
    """Compute the blur kernel of a lens that is out of focus: a soft-edged disc with this standard deviation
    along each axis."""
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].astype(np.float64)
    kernel = np.clip(2 * sigma + 0.5 - np.hypot(x, y), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def sinc_kernel(cutoff: float) -> np.ndarray:
    """Compute the circular low-pass filter that cuts off at ``cutoff`` radians per pixel; it rings, as sharp
    resizing does."""
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].astype(np.float64)
    r = np.hypot(x, y)
    kernel = np.full(r.shape, cutoff**2 / (4 * np.pi))
    outside = r > 0
    bessel = torch.special.bessel_j1(torch.from_numpy(cutoff * r[outside])).numpy()
    kernel[outside] = cutoff * bessel / (2 * np.pi * r[outside])
    return (kernel / kernel.sum()).astype(np.float32)


def draw_kernel(sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a blur kernel of strength σ: a Gaussian, a generalised Gaussian, a disc or, rarely, a sinc."""
    kind = rng.random()
    ratio, angle = (1.0, 0.0) if rng.random() < 0.6 else (rng.uniform(0.3, 1), rng.uniform(0, np.pi))
    if kind < 0.6:
        return gaussian_kernel(sigma, ratio, angle)
    if kind < 0.8:
        return gaussian_kernel(sigma, ratio, angle, shape=rng.uniform(1, 6))
    if kind < 0.92:
        return disc_kernel(sigma)
    return sinc_kernel(np.pi / max(sigma, 1))


def blurred(pixels: Pixels, kernel: np.ndarray) -> Pixels:
    """Filter a picture with a kernel; edge pixels are repeated."""
    return cv2.filter2D(pixels, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)


def resized(pixels: Pixels, height: int, width: int, how: int) -> Pixels:
    """Resize a picture with one of OpenCV's interpolations, most of which do not antialias."""
    return cv2.resize(pixels, (width, height), interpolation=how)


def noisy(
    pixels: Pixels, sigma: float, rng: np.random.Generator, grey: bool = False, poisson: bool = False
) -> Pixels:
    """Add noise of standard deviation σ.

    Args:
        pixels: the picture.
        sigma: σ in grey levels; for Poisson noise, whose variance grows with the light, σ at the value 128.
        rng: source of the noise.
        grey: whether all channels get the same noise.
        poisson: whether the noise is Poisson noise instead of Gaussian noise.
    """
    light = pixels.mean(axis=2, keepdims=True) if grey else pixels
    if poisson:
        gain = max(sigma, 1e-3) ** 2 / 128  # grey levels per photon
        light = np.clip(light, 0, 255)
        noise = rng.poisson(light / gain) * gain - light
    else:
        noise = rng.standard_normal(light.shape, np.float32) * sigma
    return (pixels + noise).astype(np.float32)


def jpeg(pixels: Pixels, quality: int, full_chroma: bool = False, corner: tuple[int, int] = (0, 0)) -> Pixels:
    """Encode a picture as JPEG, and decode it.

    Args:
        pixels: the picture, which is rounded first.
        quality: libjpeg's quality, 1 … 100.
        full_chroma: whether chroma is 4:4:4 instead of 4:2:0.
        corner: offset (rows, columns) of the picture from a corner of the block grid.
    """
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if full_chroma else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return _coded(pixels, ".jpg", options, corner)


def webp(pixels: Pixels, quality: int, corner: tuple[int, int] = (0, 0)) -> Pixels:
    """Encode a picture as lossy WebP, and decode it; see :func:`jpeg`."""
    return _coded(pixels, ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality], corner)


def _coded(pixels: Pixels, suffix: str, options: list[int], corner: tuple[int, int]) -> Pixels:
    top, left = corner
    image = cv2.cvtColor(to_bytes(pixels), cv2.COLOR_RGB2BGR)
    padded = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REPLICATE)
    _, data = cv2.imencode(suffix, padded, options)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # it has just been encoded
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)[top:, left:].astype(np.float32)
