"""What cameras and web sites do to photographs: blur, noise and JPEG, for a whole batch on its device.

JPEG is written out in tensor operations (colour transform, 4:2:0 chroma, blockwise DCT, quantisation by
the tables of Annex K of ITU-T T.81 scaled by quality as libjpeg does), because a round trip of every crop
through a CPU encoder would cost more than the training step on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_BLUR = 1.5
"""Largest σ of blur in LR pixels: the kernel holds no wider Gaussian."""

BLUR_RADIUS = 4
"""Half-width of the blur kernel in pixels; holds a Gaussian of σ up to about :data:`MAX_BLUR`."""

# ITU-T T.81, tables K.1 and K.2
LUMINANCE = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip
CHROMINANCE = torch.tensor([
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
])  # fmt: skip

# JFIF: RGB → Y, Cb - 128, Cr - 128
TO_YCC = torch.tensor([
    [0.299, 0.587, 0.114],
    [-0.168735892, -0.331264108, 0.5],
    [0.5, -0.418687589, -0.081312411],
])  # fmt: skip
TO_RGB = torch.linalg.inv(TO_YCC.double()).float()


@dataclass(frozen=True)
class Effect:
    """One fault of real pictures: in a ``share`` of them, with a strength drawn uniformly."""

    share: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share = {self.share} must lie in 0 … 1")
        if not 0 <= self.low <= self.high < math.inf:
            raise ValueError(f"low = {self.low} must lie between 0 and high = {self.high}")


@dataclass(frozen=True)
class DegradationRecipe:
    """What happens to LR after shrinking, in this order, as in a camera; only in training."""

    blur: Effect = Effect()
    """Gaussian, σ in LR pixels, at most 1.5."""
    noise: Effect = Effect()
    """Gaussian, independent for each channel, σ in 8-bit units."""
    jpeg: Effect = Effect()
    """JPEG with 4:2:0 chroma, quality 1 … 100."""

    def __post_init__(self) -> None:
        for name, effect, least, most in (("blur", self.blur, 0, MAX_BLUR), ("jpeg", self.jpeg, 1, 100)):
            if effect.share and not least <= effect.low <= effect.high <= most:
                raise ValueError(f"{name} must lie in {least} … {most}, not {effect.low} … {effect.high}")


def dct_matrix() -> Tensor:
    """The orthonormal DCT-II of 8 samples, (8, 8): coefficients = D @ samples."""
    k, n = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix.float()


DCT = dct_matrix()


@dataclass(frozen=True)
class Degradation:
    """The faults of one batch of LR images, all (B,) on the CPU; what is off has strength 0."""

    blur: Tensor
    noise: Tensor
    quality: Tensor
    """JPEG quality, 0 for none."""
    corner: tuple[int, int]
    """How far, 0 … 7 pixels, the crops start below and right of a corner of JPEG's 8×8 blocks."""

    def rows(self, rows: slice) -> Degradation:
        """The faults of some images."""
        return Degradation(self.blur[rows], self.noise[rows], self.quality[rows], self.corner)

    def apply(self, lr: Tensor, normal: Tensor) -> Tensor:
        """Blur, then noise, then JPEG: uint8 (B, 3, h, w) → uint8 (B, 3, h, w).

        Args:
            lr: clean LR images.
            normal: standard normal numbers of their shape and on their device.
        """
        pixels = gaussian_blur(lr.float(), self.blur)
        pixels = pixels + normal * self.noise.to(lr.device)[:, None, None, None]
        clean = pixels.round_().clamp_(0, 255)
        coded = jpeg(clean, self.quality.clamp(min=1), self.corner)
        keep = (self.quality == 0).to(lr.device)[:, None, None, None]
        return torch.where(keep, clean, coded).to(torch.uint8)


def draw_degradation(recipe: DegradationRecipe, batch: int, generator: torch.Generator) -> Degradation:
    """Draw each fault for each image, from a CPU generator."""

    def strength(effect: Effect) -> Tensor:
        chance, where = torch.rand(2, batch, generator=generator)
        return (effect.low + (effect.high - effect.low) * where) * (chance < effect.share)

    blur, noise, quality = (strength(e) for e in (recipe.blur, recipe.noise, recipe.jpeg))
    top, left = torch.randint(8, (2,), generator=generator).tolist()
    return Degradation(blur, noise, quality.round(), (top, left))


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur float (B, 3, h, w) by Gaussians of σ (B,) pixels, edges continued; σ = 0 changes nothing."""
    if not sigma.any():
        return images
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offset / sigma.clamp(min=0.05)[:, None]).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(images.device)
    batch, channels, height, width = images.shape
    # One group a colour plane; the two directions one after the other
    planes = F.pad(images, (BLUR_RADIUS,) * 4, mode="replicate").reshape(1, batch * channels, *[
        side + 2 * BLUR_RADIUS for side in (height, width)
    ])  # fmt: skip
    kernel = kernel.repeat_interleave(channels, 0)[:, None, None, :]
    planes = F.conv2d(planes, kernel, groups=batch * channels)
    planes = F.conv2d(planes, kernel.transpose(2, 3), groups=batch * channels)
    return planes.reshape(images.shape)


def quantisation(base: Tensor, quality: Tensor) -> Tensor:
    """Quantisation tables of libjpeg, (B, 8, 8), for qualities (B,) of 1 … 100."""
    quality = quality.float()
    factor = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((base * factor[:, None, None] + 50) / 100).floor().clamp(1, 255)


def jpeg(images: Tensor, quality: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """JPEG there and back: whole numbers 0 … 255, float (B, 3, h, w) → the same.

    Args:
        images: RGB pictures.
        quality: libjpeg's quality of each, 1 … 100, (B,).
        corner: rows and columns by which the pictures start after a corner of the block grid.
    """
    height, width = images.shape[-2:]
    top, left = corner
    bottom, right = -(top + height) % 16, -(left + width) % 16
    padded = F.pad(images, (left, right, top, bottom), mode="replicate")
    y, chroma = _to_ycc(padded).split([1, 2], dim=1)
    y = _code(y, quantisation(LUMINANCE, quality))
    chroma = _code(F.avg_pool2d(chroma, 2).round_(), quantisation(CHROMINANCE, quality))
    # Decoders drop the padding first. Bilinear at even factors weighs neighbours 3 : 1, which is libjpeg's
    # "fancy upsampling".
    chroma = chroma[..., : -(-(top + height) // 2), : -(-(left + width) // 2)]
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    y = y[..., : chroma.shape[-2], : chroma.shape[-1]]
    rgb = torch.einsum("oc,bchw->bohw", TO_RGB.to(images.device), torch.cat([y + 128, chroma], dim=1))
    return rgb[..., top : top + height, left : left + width].round().clamp(0, 255)


def _to_ycc(rgb: Tensor) -> Tensor:
    """Y - 128, Cb - 128, Cr - 128, in whole numbers."""
    ycc = torch.einsum("oc,bchw->bohw", TO_YCC.to(rgb.device), rgb).round_()
    ycc[:, 0] -= 128
    return ycc


def _code(planes: Tensor, table: Tensor) -> Tensor:
    """Quantise the DCT of every 8×8 block of (B, C, H, W) by tables (B, 8, 8), and decode again."""
    batch, channels, height, width = planes.shape
    dct, table = DCT.to(planes.device), table.to(planes.device)[:, None, None, None]
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = dct @ blocks @ dct.T
    coefficients = (coefficients / table).round_() * table
    decoded = (dct.T @ coefficients @ dct).round_().clamp_(-128, 127)
    return decoded.transpose(3, 4).reshape(planes.shape)
