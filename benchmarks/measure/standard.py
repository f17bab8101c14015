"""Runs the standard samplers of diffusers on one of our models (extra ``bench``).

All of them start at level T (DPM-Solver++ one level below, see :func:`dpm_solver`) from the same x_T as our
own chain. They visit levels of the model's own table, spread as evenly as whole levels allow, and end on x̂0.
The model clamps x̂0 in image space, as it does for all samplers.
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
"""DPM-Solver++ leaves out levels whose λ = ln(√ᾱ/√(1-ᾱ)) is below this, as diffusers advises for cosine
schedules: from level 99 to 100, λ falls from -4.2 to -7.6, which is too long a step for a solver in λ."""


def thinned(kind: Any, schedule: NoiseSchedule, steps: int) -> tuple[Any, list[int]]:
    """Make a diffusers scheduler whose whole table is ``steps`` uniform levels; also return these, T first.

    With a table of only the levels to visit, a scheduler cannot apply a spacing of its own: diffusers' DDIM
    takes equal strides only, and 16 of 100 levels have unequal ones.
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
    """Make DDIM (Song et al. 2021); η = 0 is the default of its ``step``."""
    from diffusers import DDIMScheduler

    return thinned(DDIMScheduler, schedule, steps)


def ancestral(schedule: NoiseSchedule, steps: int) -> tuple[Any, list[int]]:
    """Make DDPM's own chain (Ho et al. 2020) over ``steps`` levels: Eq. 10 for uneven strides."""
    from diffusers import DDPMScheduler

    return thinned(DDPMScheduler, schedule, steps)


def dpm_solver(schedule: NoiseSchedule, steps: int) -> tuple[Any, list[int]]:
    """Make DPM-Solver++(2M) (Lu et al. 2022): multistep, of second order; the last step is of first order."""
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
    """Run a diffusers scheduler; return its images, (B, 3, H, W) in [-1, 1].

    Args:
        model: the frozen model.
        scheduler: scheduler that predicts ``sample``, with its timesteps set.
        levels: the model's level at each timestep.
        condition: c, (B, 3, H, W).
        keys: noise key of each image, from which x_T and all other noise are drawn.
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
