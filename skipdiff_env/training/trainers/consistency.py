"""CCSR's first stage: training the evaluation at T, and the one after it, to be good enough for large jumps.

Training alternates the usual loss on levels up to t_max (Eq. 7) with the consistency loss, which runs two
evaluations as the sampler does: x_T → x̂0, noised again to t_max → x̂0 and ε̂.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...chains.ccsr import T_MAX
from ...diffusion.model import ModelConfig, diffuse, noise_scale, x0_from_output
from ...diffusion.schedule import NoiseSchedule


def consistency_loss(
    network: nn.Module,
    config: ModelConfig,
    target: Tensor,
    condition: Tensor,
    noise: Tensor,
    noise_again: Tensor,
) -> Tensor:
    """Return ‖x̂0(x_T) - x_0‖² + ‖x̂0(x_tmax) - x_0‖² + ‖ε̂(x_tmax) - ε'‖²; ‖·‖² is the mean square.

    x_tmax is x̂0(x_T) noised again with ε'; gradients go through both evaluations. x_0 is the chain's own
    target, so that residuals and noise have about the same size.

    Args:
        target, condition: x_0 of the chain and c, (B, 3, H, W).
        noise, noise_again: ε of x_T, and ε', (B, 3, H, W).
    """
    schedule = NoiseSchedule.from_config(config.schedule)
    top, lower = torch.as_tensor(schedule.alpha_bar_at([schedule.steps, T_MAX * schedule.steps])).sqrt()

    def evaluate(latent: Tensor, signal: Tensor) -> tuple[Tensor, Tensor]:
        level = signal.to(latent.device, latent.dtype).expand(len(latent))
        output = network(torch.cat([condition, latent], dim=1), level).float()
        return x0_from_output(output, latent, level[:, None, None, None], config.prediction), output

    def square(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean()

    first, _ = evaluate(diffuse(target, top, noise), top)
    latent = diffuse(first, lower, noise_again)
    second, output = evaluate(latent, lower)
    # v̂ = √ᾱ ε̂ - √(1 - ᾱ) x̂0 and x_t = √ᾱ x̂0 + √(1 - ᾱ) ε̂
    sigma, signal = (x.to(latent.dtype) for x in (noise_scale(lower), lower))
    predicted = output if config.prediction == "noise" else sigma * latent + signal * output
    return square(first, target) + square(second, target) + square(predicted, noise_again)
