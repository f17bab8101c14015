"""The observation spaces of the environments: that of SkipDiff-v0, and the parts that v1 shares."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from ..policies.file import LATENT_BOUND
from .options import SceneOptions


def observation_space(
    options: SceneOptions, side: int, fine_steps: int, lr_side: int | None = None
) -> spaces.Space[Any]:
    """Return the space of one row.

    Args:
        options: the arguments of the environment, which select the kind of space.
        side: side of the observed latent in pixels.
        fine_steps: F.
        lr_side: side of the LR image in pixels; None if the dictionary does not contain it.
    """
    latent = latent_space(side)
    if options.observation == "latent":
        return latent
    parts: dict[str, spaces.Space[Any]] = {"latent": latent}
    if lr_side is not None:
        parts["lr"] = lr_space(lr_side)
    parts["step"] = spaces.Discrete(fine_steps)
    if isinstance(options.step_cost, tuple):
        parts["step_cost"] = price_space(options.step_cost)
    return spaces.Dict(parts)


def latent_space(side: int) -> spaces.Box:
    """Return the space of latents (3, side, side)."""
    # The bound keeps the space finite, and changes nothing in practice. Latents are signal plus noise of at
    # most unit variance, and the signal is at most 1 (image targets) or 2k (residual targets, k about 5), so
    # only noise of ten standard deviations would be clipped.
    return spaces.Box(-LATENT_BOUND, LATENT_BOUND, (3, side, side), np.float32)


def lr_space(side: int) -> spaces.Box:
    """Return the space of LR images (3, side, side)."""
    return spaces.Box(0.0, 1.0, (3, side, side), np.float32)


def price_space(step_costs: tuple[float, float]) -> spaces.Box:
    """Return the space of prices, slightly wider than the range, since prices drawn in float64 may round to a
    float32 just outside it."""
    low, high = (np.float32(cost) for cost in step_costs)
    below, above = np.nextafter(low, np.float32(0)), np.nextafter(high, np.float32(np.inf))
    return spaces.Box(below, above, (1,), np.float32)
