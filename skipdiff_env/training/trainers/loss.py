"""The training objective (Eq. 7): denoise at continuous noise levels.

An interval t ∈ 1 … T is drawn, then the level uniformly between √ᾱ_{t-1} and √ᾱ_t (Chen et al. 2021,
as in SR3), so that the network learns every level, and not only those of one schedule.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ...diffusion.model import ModelConfig, bicubic_condition, chain_target, diffuse, noise_scale
from ...diffusion.resize import to_signed
from ...diffusion.schedule import NoiseSchedule


def draw_levels(
    schedule: NoiseSchedule, batch: int, generator: torch.Generator, highest: int | None = None
) -> Tensor:
    """Draw √ᾱ of continuous noise levels up to ``highest`` (default T), float32 (batch,) on the CPU."""
    uniform = torch.rand(2, batch, generator=generator, dtype=torch.float64).numpy()
    t = 1 + (uniform[0] * (highest or schedule.steps)).astype(np.int64)
    cleaner, noisier = schedule.noise_level(t - 1), schedule.noise_level(t)
    return torch.from_numpy(noisier + uniform[1] * (cleaner - noisier)).float()


def make_pairs(hr: Tensor, lr: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Make target x_0 of the chain and condition c, float32 (B, 3, H, W).

    Args:
        hr: the images, uint8 (B, 3, H, W).
        lr: what the model sees of them, uint8 (B, 3, h, w).
        config: the model's configuration.
    """
    condition = bicubic_condition(lr, config.scale)
    return chain_target(to_signed(hr), condition, config), condition


def diffusion_loss(
    network: nn.Module,
    config: ModelConfig,
    target: Tensor,
    condition: Tensor,
    level: Tensor,
    noise: Tensor,
    norm: str = "l2",
    min_snr: float | None = None,
) -> Tensor:
    """Compute the mean error of the predicted ε or v, a scalar.

    Args:
        target, condition, noise: (B, 3, H, W).
        level: √ᾱ, (B,).
        norm: ``l1`` (the paper's authors) or ``l2``.
        min_snr: γ of min-SNR-γ weights (Hang et al. 2023), None for uniform weights.
    """
    if norm not in ("l1", "l2"):
        raise ValueError(f"unknown norm {norm!r}: use 'l1' or 'l2'")
    signal = level[:, None, None, None]
    latent = diffuse(target, signal, noise)
    wanted = noise if config.prediction == "noise" else signal * noise - noise_scale(signal) * target
    output = network(torch.cat([condition, latent], dim=1), level).float()
    error = (output - wanted).abs() if norm == "l1" else (output - wanted).square()
    per_image = error.mean(dim=(1, 2, 3))
    if min_snr is not None:
        snr = (level.double().square() / (1 - level.double().square())).to(level.dtype)
        # Weights are min(SNR, γ) on the x0 error, divided by the weight that the prediction already implies.
        implied = snr if config.prediction == "noise" else snr + 1
        per_image = per_image * snr.clamp(max=min_snr) / implied
    return per_image.mean()
