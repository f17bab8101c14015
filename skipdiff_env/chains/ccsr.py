"""CCSR's sampler (Sun et al., arXiv 2401.00877) on a pixel-space diffusion model.

One evaluation at T gives x̂0, which is re-noised to t_max = 2T/3. Posterior jumps lead from there towards
t_min = T/3. The x̂0 of the last evaluation is the result; the rest of the chain is omitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..diffusion.model import diffuse
from ..diffusion.process import posterior_sample
from ..diffusion.protocol import DiffusionModel
from ..diffusion.schedule import Float64, NoiseSchedule, jump
from ..errors import SkipDiffError, fraction, whole_number
from .few_steps import FewSteps

T_MAX, T_MIN = 2 / 3, 1 / 3
"""t_max and t_min as fractions of T, in training and by default."""


@dataclass(frozen=True)
class CCSR(FewSteps):
    """``steps`` evaluations: one at T, and the others at levels from t_max towards t_min.

    The 45 nominal steps of the paper on CCSR, each T/45 long, correspond to ``CCSR(16)``, since 15 of them
    lie between t_max and t_min.

    Args:
        steps: number of evaluations, at least 1.
        t_max: level to which the first x̂0 is re-noised, as a fraction of T.
        t_min: level towards which the other evaluations go, as a fraction of T; below t_max.

    Raises:
        SkipDiffError: if an argument is out of range.
    """

    steps: int = 2
    t_max: float = T_MAX
    t_min: float = T_MIN

    name = "CCSR"
    word = "ccsr"

    def __post_init__(self) -> None:
        whole_number("CCSR: steps", self.steps, 1)
        if fraction("CCSR: t_max", self.t_max) <= fraction("CCSR: t_min", self.t_min):
            raise SkipDiffError(f"CCSR: t_max={self.t_max} must be above t_min={self.t_min}")

    def levels(self, schedule: NoiseSchedule) -> Float64:
        """Return T, then ``steps - 1`` levels t_max - i (t_max - t_min)/(steps - 1), i = 0, 1, …"""
        shares = np.linspace(self.t_max, self.t_min, self.steps - 1, endpoint=False)
        return schedule.steps * np.r_[1.0, shares]

    def advance(
        self,
        model: DiffusionModel,
        index: int,
        latent: Tensor,
        used: Tensor,
        x0: Tensor,
        condition: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Re-noise x̂0 to t_max after the first evaluation; after the others, make a posterior jump."""
        signals, clean = self.signals(model.schedule), model.to_latent(x0, condition)
        if index == 0:
            return diffuse(clean, torch.tensor(signals[1], device=latent.device), noise), condition
        coefficients = jump(signals[index, None] ** 2, signals[index + 1, None] ** 2)
        return posterior_sample(coefficients, latent, clean, noise), condition
