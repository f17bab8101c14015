"""The chain of AddSR's student (Xie et al., arXiv 2404.01717) on a pixel-space diffusion model.

The student was trained at the levels T, ¾T, ½T and ¼T. After the first step, its condition is partly its
own last x̂0 (prediction-based self-refinement).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..diffusion.process import posterior_sample
from ..diffusion.protocol import DiffusionModel
from ..diffusion.schedule import Float64, NoiseSchedule, jump
from ..errors import fraction, whole_number
from .few_steps import FewSteps

ADDSR_STEPS = 4
"""Number of evenly spaced levels that the student was trained for."""
SELF_REFINEMENT = 0.5
"""w in the paper on AddSR."""


@dataclass(frozen=True)
class AddSR(FewSteps):
    """The student's chain.

    Args:
        steps: number of evaluations, 1 … 4, at the levels T; T and ½T; T, ¾T and ¼T; or all four.
        self_refinement: w. After the first step, the condition is w x̂0 + (1 - w) c, where x̂0 is the last
            estimate; 0 keeps c.

    Raises:
        SkipDiffError: if an argument is out of range.
    """

    steps: int = ADDSR_STEPS
    self_refinement: float = SELF_REFINEMENT

    name = "AddSR"
    word = "addsr"
    most = ADDSR_STEPS

    def __post_init__(self) -> None:
        whole_number("AddSR: steps", self.steps, 1, ADDSR_STEPS)
        fraction("AddSR: self_refinement", self.self_refinement)

    def levels(self, schedule: NoiseSchedule) -> Float64:
        """Return the levels of the evaluations: multiples of T/4, spaced as evenly as possible."""
        quarters = np.rint(ADDSR_STEPS * (1 - np.arange(self.steps) / self.steps))
        return schedule.steps * quarters / ADDSR_STEPS

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
        """Make a posterior jump, and refine the condition."""
        signals = self.signals(model.schedule)
        refined = torch.lerp(condition, x0, self.self_refinement)
        # A residual latent is relative to its condition: √ᾱ k (x - used) becomes √ᾱ k (x - refined).
        clean = model.to_latent(x0, refined)
        moved = latent + float(signals[index]) * (clean - model.to_latent(x0, used))
        coefficients = jump(signals[index, None] ** 2, signals[index + 1, None] ** 2)
        return posterior_sample(coefficients, moved, clean, noise), refined
