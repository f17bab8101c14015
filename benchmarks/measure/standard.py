"""The samplers that people use today, by diffusers, on one of our models (extra ``bench``).

All of them start at level T (DPM-Solver++ one below, see :func:`dpm_solver`) from the same x_T as our own
chain, visit levels of the model's own table, evenly spread as far as whole levels allow, and end on
x̂0. x̂0 is clamped in image space by the model, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skipdiff_env.chains.plan import uniform_levels
from skipdiff_env.diffusion import NoiseKey, NoiseSchedule
from skipdiff_env.diffusion.noise import first_latent
from skipdiff_env.diffusion.protocol import DiffusionModel

LAMBDA_MIN = -5.1
"""DPM-Solver++ leaves out levels whose λ = ln(√ᾱ/√(1-ᾱ)) lies below, as diffusers advises for cosine
schedules: from level 99 to 100 λ falls from -4.2 to -7.6, too long a step for a solver in λ."""


def thinned(kind: Any, schedule: NoiseSchedule, steps: int) -> tuple[Any, list[int]]:
    """A diffusers scheduler whose whole table is ``steps`` uniform levels, and those levels, T first.

    A table that holds just the levels to be visited leaves a scheduler no room for a spacing of its own:
    diffusers' DDIM takes equal strides only, which 16 of 100 levels are not.
    """
    levels = uniform_levels(schedule.steps, steps)
    alpha_bar = schedule.alpha_bar[levels[-2::-1]]
    betas = 1 - alpha_bar / np.r_[1.0, alpha_bar[:-1]]
    scheduler = kind(
        num_train_timesteps=steps,
        trained_betas=betas,
        clip_sample=False,
        prediction_type="sample",
        timestep_spacing="leading",
    )
    scheduler.alphas_cumprod = torch.from_numpy(alpha_bar.copy())  # diffusers' own is float32
    scheduler.set_timesteps(steps)
    return scheduler, levels[:-1]


def ddim(schedule: NoiseSchedule, steps: int) -> tuple[Any, list[int]]:
    """DDIM (Song et al. 2021); η = 0 is the default of its ``step``."""
    from diffusers import DDIMScheduler

    return thinned(DDIMScheduler, schedule, steps)


def ancestral(schedule: NoiseSchedule, steps: int) -> tuple[Any, list[int]]:
    """DDPM's own chain (Ho et al. 2020) over ``steps`` levels: Eq. 10 for uneven strides."""
    from diffusers import DDPMScheduler

    return thinned(DDPMScheduler, schedule, steps)


def dpm_solver(schedule: NoiseSchedule, steps: int) -> tuple[Any, list[int]]:
    """DPM-Solver++(2M) (Lu et al. 2022): multistep, second order, the last step of first order."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler: Any = DPMSolverMultistepScheduler(
        num_train_timesteps=schedule.steps,
        trained_betas=1 - schedule.alpha_bar[1:] / schedule.alpha_bar[:-1],
        prediction_type="sample",
        lambda_min_clipped=LAMBDA_MIN,
        timestep_spacing="linspace",
    )
    scheduler.alphas_cumprod = torch.from_numpy(schedule.alpha_bar[1:].copy())
    scheduler.set_timesteps(steps)
    return scheduler, [int(t) + 1 for t in scheduler.timesteps]


def sample(
    model: DiffusionModel, scheduler: Any, levels: list[int], condition: Tensor, keys: Sequence[NoiseKey]
) -> Tensor:
    """The images that a diffusers scheduler makes, (B, 3, H, W) in [-1, 1].

    Args:
        model: the frozen model.
        scheduler: with its timesteps set, predicting ``sample``.
        levels: the model's level at each of them.
        condition: c, (B, 3, H, W).
        keys: of each image; where x_T, and the noise of schedulers that draw some, come from.
    """
    latent = first_latent(condition, keys, model.schedule.steps).to(condition)
    generators = [torch.Generator().manual_seed((key.image ^ key.seed) % 2**63) for key in keys]
    image = condition
    for timestep, level in zip(scheduler.timesteps, levels, strict=True):
        signal = latent.new_full((len(latent),), float(model.schedule.noise_level(level)))
        image = model.predict(latent, condition, signal)
        x0 = model.to_latent(image, condition)
        latent = scheduler.step(x0, timestep, latent, generator=generators).prev_sample
    return image
