"""Bicubic resizing and the making of low-resolution inputs, the same for training and evaluation.

The kernel is that of Pillow: a = -0.5, widened for shrinking (antialiased), with weights renormalised at the
borders.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def bicubic(x: Tensor, height: int, width: int) -> Tensor:
    """Resize float (B, C, h, w) to (B, C, height, width). Overshoots are not clamped."""
    if width == 1 < height:  # torch 2.15 miscomputes the height of images that are one pixel wide
        return bicubic(x.mT, width, height).mT
    return F.interpolate(x, (height, width), mode="bicubic", antialias=True, align_corners=False)


def degrade(hr: Tensor, scale: int) -> Tensor:
    """Shrink images, uint8 (B, 3, H, W), by ``scale`` to uint8 (B, 3, H/scale, W/scale), as Pillow's BICUBIC
    does.

    Raises:
        ValueError: if a side is not a multiple of ``scale``.
    """
    height, width = hr.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(
            f"a {width}x{height} image cannot be shrunk by {scale}: crop it to a multiple of {scale} first"
        )
    # As Pillow does: rows first, then columns, each rounded half up to 8 bits. Transposed, because
    # torch 2.15 miscomputes the height of images that are one pixel wide.
    wide = (bicubic(hr.float(), height, width // scale) + 0.5).floor_().clamp_(0, 255)
    small = (bicubic(wide.mT, width // scale, height // scale).mT + 0.5).floor_()
    return small.clamp_(0, 255).to(torch.uint8)


AGREEMENT = 12
"""Number of rounds of back-projection. For white noise, which converges slowest, they leave 0.5 % of the
deviation."""


def back_project(x: Tensor, lr: Tensor, share: float) -> Tensor:
    """Make a picture agree with its input: x + share · ↑v, where ↓↑v = LR - ↓x.

    This is iterative back-projection (Irani and Peleg 1991), x⁽ⁿ⁺¹⁾ = x⁽ⁿ⁾ + ↑(LR - ↓x⁽ⁿ⁾), with bicubic ↑
    and antialiased bicubic ↓. As both are linear, its rounds need only the small picture: v⁽⁰⁾ = 0,
    v⁽ⁿ⁺¹⁾ = v⁽ⁿ⁾ + (LR - ↓x) - ↓↑v⁽ⁿ⁾. At ``share`` 1, the result shrinks to almost exactly the input,
    including its faults; at 0, it is x. Every channel is treated separately.

    Args:
        x: the picture made from the input, float (B, C, H, W).
        lr: the input, float (B, C, h, w), in the same units.
        share: share of the difference that is restored, 0 … 1.

    Returns:
        A tensor of the same shape as ``x``, not clamped.
    """
    if not share:
        return x
    lacking = lr - bicubic(x, *lr.shape[-2:])
    v = lacking
    for _ in range(AGREEMENT - 1):
        v = v + lacking - bicubic(bicubic(v, *x.shape[-2:]), *lr.shape[-2:])
    return x + share * bicubic(v, *x.shape[-2:])


COARSE = 32
"""Rough size in pixels of the finest detail that :func:`fix_colours` changes: 2⁵, for five wavelet levels."""


def fix_colours(x: Tensor, lr: Tensor) -> Tensor:
    """Give a picture the colours of its input in large areas: x + ↑B(LR - ↓x).

    This is the wavelet colour correction of StableSR's authors: in an à trous wavelet decomposition with the
    kernel (1, 2, 1) / 4, the picture's coarsest band is replaced by the input's. B extracts that band. As it
    passes nothing finer than :data:`COARSE` pixels, it is computed on the small picture. Every channel is
    treated separately.

    Args:
        x: the picture made from the input, float (B, C, H, W).
        lr: the input, float (B, C, h, w), in the same units.

    Returns:
        A tensor of the same shape as ``x``, not clamped.
    """
    lacking = lr - bicubic(x, *lr.shape[-2:])
    apart = 1
    while apart * x.shape[-1] < COARSE * lr.shape[-1]:
        lacking = _blurred(_blurred(lacking, apart).mT, apart).mT
        apart *= 2
    return x + bicubic(lacking, *x.shape[-2:])


def _blurred(x: Tensor, apart: int) -> Tensor:
    """Filter the rows of (B, C, h, w) with (1, 2, 1) / 4, taps ``apart`` pixels apart; edges are repeated."""
    wide, side = F.pad(x, (apart, apart, 0, 0), mode="replicate"), x.shape[-1]
    return (wide[..., :side] + 2 * x + wide[..., -side:]) / 4


def to_signed(x: Tensor) -> Tensor:
    """Convert uint8 0 … 255 to float32 -1 … 1."""
    return x.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Convert float -1 … 1 (clamped) to the uint8 image that is saved and scored."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_planes(images: np.ndarray) -> Tensor:
    """Convert arrays (B, H, W, C) or (H, W, C) to a tensor (B, C, H, W) of the same numbers; a single
    image becomes a batch of one."""
    batch = images if images.ndim == 4 else images[None]
    return torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2)


def to_arrays(images: Tensor) -> np.ndarray:
    """Convert a tensor (B, C, H, W) to contiguous arrays (B, H, W, C) of the same numbers."""
    return np.ascontiguousarray(images.detach().permute(0, 2, 3, 1).cpu().numpy())
