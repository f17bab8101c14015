"""Mild changes of colour, for a whole batch at once on its device.

They are applied to HR before LR is made from it, so that each pair stays consistent.
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""BT.601 weights of red, green and blue."""


def draw_colour(batch: int, strength: float, generator: torch.Generator) -> Tensor:
    """Draw random colour changes, float32 (batch, 6), from a CPU generator.

    Contrast, brightness and saturation lie within 1 ± ``strength``, the gains of red, green and blue
    within 1 ± ``strength``/2.
    """
    spread = torch.tensor([1.0, 1.0, 1.0, 0.5, 0.5, 0.5]) * strength
    return 1 + spread * (2 * torch.rand(batch, 6, generator=generator) - 1)


def change_colour(images: Tensor, change: Tensor) -> Tensor:
    """Apply changes (B, 6) from :func:`draw_colour` to uint8 (B, 3, H, W); return uint8.

    Contrast acts around the mean luma of each picture.
    """
    change = change.to(images.device)[..., None, None]
    contrast, brightness, saturation, gains = change[:, :1], change[:, 1:2], change[:, 2:3], change[:, 3:]
    weights = torch.tensor(LUMA, device=images.device)[:, None, None]
    pixels = images.float()
    grey = (pixels * weights).sum(1, keepdim=True)
    pixels = (grey + saturation * (pixels - grey)) * gains
    mean = grey.mean(dim=(2, 3), keepdim=True)
    pixels = (mean + contrast * (pixels - mean)) * brightness
    return pixels.round_().clamp_(0, 255).to(torch.uint8)
