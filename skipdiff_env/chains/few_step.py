"""Two neighbouring systems that need a handful of evaluations, on the same frozen model as SkipDiff.

- :class:`CCSR` (Sun et al., arXiv 2401.00877): one evaluation at T gives x̂0, which is noised again to
  t_max = 2T/3; posterior jumps lead from there towards t_min = T/3; the x̂0 of the last evaluation is the
  result, without the rest of the chain.
- :class:`AddSR` (Xie et al., arXiv 2404.01717): a student at the levels T, ¾T, ½T, ¼T whose condition,
  from the second step on, is partly its own last x̂0.

Both are chains without decisions. ``SkipDiffSampler(model)(lr, policy=CCSR(16))`` runs one in the place of
CSA and FSR.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..diffusion.model import DiffusionModel, diffuse
from ..diffusion.noise import NoiseKey, keyed_normal
from ..diffusion.process import Callback, SkipState, posterior_sample
from ..diffusion.schedule import Float64, NoiseSchedule, jump
from ..errors import SkipDiffError

T_MAX, T_MIN = 2 / 3, 1 / 3
"""CCSR's t_max and t_min, as shares of T."""
ADDSR_STEPS = 4
"""AddSR's student knows this many levels, evenly spaced."""


class FewSteps(ABC):
    """A chain of a few evaluations, at levels that may lie between those of the table."""

    steps: int
    """Evaluations."""

    @abstractmethod
    def levels(self, schedule: NoiseSchedule) -> Float64:
        """The levels t that are evaluated, falling from T, float64 (steps,)."""

    @abstractmethod
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
        """From evaluation ``index`` (0 is the first) to what the next one sees; all (B, 3, H, W).

        Args:
            model: whose schedule and target the chain follows.
            index: the evaluation that gave ``x0``.
            latent, used: what that evaluation saw: the latent, and the condition.
            x0: its x̂0, in image space.
            condition: c, of the LR image.
            noise: standard normal, free to be overwritten.

        Returns:
            The next latent, and the condition to evaluate it under.
        """

    def signals(self, schedule: NoiseSchedule) -> Float64:
        """√ᾱ at :meth:`levels`, float64 (steps,)."""
        return np.sqrt(schedule.alpha_bar_at(self.levels(schedule)))

    def evaluate(self, model: DiffusionModel, index: int, latent: Tensor, used: Tensor) -> Tensor:
        """x̂0 of evaluation ``index``, (B, 3, H, W) in image space."""
        signal = float(self.signals(model.schedule)[index])
        level = torch.full((len(latent),), signal, dtype=latent.dtype, device=latent.device)
        return model.predict(latent, used, level)

    def approach(
        self,
        model: DiffusionModel,
        index: int,
        condition: Tensor,
        latent: Tensor,
        noise: Callable[[int], Tensor],
        visited: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the chain as far as evaluation ``index``, and return what that one will see.

        Args:
            model: the model.
            index: 0 … steps - 1.
            condition: c, (B, 3, H, W).
            latent: x_T, alike.
            noise: standard normal numbers for the way to evaluation 1, 2, …
            visited: called with the number of evaluations made, their last x̂0 and the new latent.

        Returns:
            The latent and the condition of evaluation ``index``.
        """
        used = condition
        for i in range(index):
            x0 = self.evaluate(model, i, latent, used)
            latent, used = self.advance(model, i, latent, used, x0, condition, noise(i + 1))
            if visited:
                visited(i + 1, x0, latent)
        return latent, used

    def __call__(
        self,
        model: DiffusionModel,
        condition: Tensor,
        keys: Sequence[NoiseKey],
        callback: Callback | None = None,
    ) -> SkipState:
        """Run the chain; the result is ``x0`` of the state, which is at level 0.

        Args:
            model: the frozen model.
            condition: c, (B, 3, H, W).
            keys: B noise keys. x_T is that of CSA.
            callback: called with the state after each evaluation; its level is then the one reached,
                rounded.
        """
        top, batch, last = model.schedule.steps, len(condition), self.steps - 1
        levels = [*self.levels(model.schedule), 0.0]

        def drawn(number: int) -> Tensor:
            return keyed_normal(keys, [number] * batch, condition.shape[1:], condition.device)

        x_top, none = drawn(top), np.zeros(batch, np.int64)
        state = SkipState(
            condition, x_top, x_top, condition, condition, none + top, none, tuple(keys), ((),) * batch
        )

        def noise(index: int) -> Tensor:
            return drawn(2 * top + index)  # numbers of no level: the chain's lie between those of the table

        def visited(count: int, x0: Tensor, latent: Tensor) -> None:
            nonlocal state
            level, spent = (np.full(batch, round(n)) for n in (levels[count], count))
            state = replace(state, latent=latent, x0=x0, level=level, evaluations=spent)
            if callback:
                callback(state)

        latent, used = self.approach(model, last, condition, x_top, noise, visited)
        x0 = self.evaluate(model, last, latent, used)
        visited(self.steps, x0, model.to_latent(x0, condition))
        return state


@dataclass(frozen=True)
class CCSR(FewSteps):
    """CCSR's sampler: ``steps`` evaluations, 1 at T and the others from t_max towards t_min.

    The paper's 45 nominal steps are ``CCSR(16)``: of T/45 each, 15 lie between t_max and t_min.

    Raises:
        SkipDiffError: for less than one step.
    """

    steps: int = 2

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SkipDiffError(f"CCSR(steps={self.steps}) must have at least 1 step")

    def levels(self, schedule: NoiseSchedule) -> Float64:
        """T, then ``steps - 1`` levels t_max - i (t_max - t_min)/(steps - 1), i = 0, 1, …"""
        shares = np.linspace(T_MAX, T_MIN, self.steps - 1, endpoint=False)
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
        """x̂0 of level T noised again to t_max; a posterior jump after that."""
        signals, clean = self.signals(model.schedule), model.to_latent(x0, condition)
        if index == 0:
            return diffuse(clean, torch.tensor(signals[1], device=latent.device), noise), condition
        coefficients = jump(signals[index, None] ** 2, signals[index + 1, None] ** 2)
        return posterior_sample(coefficients, latent, clean, noise), condition


@dataclass(frozen=True)
class AddSR(FewSteps):
    """The chain of AddSR's student, with prediction-based self-refinement.

    Args:
        steps: 1 … 4 evaluations, at T, at T and ½T, at T, ¾T and ¼T, or at all four levels.
        self_refinement: w. From the second step on, the condition is w x̂0 + (1 - w) c, where x̂0 is the
            last prediction; 0 keeps c.

    Raises:
        SkipDiffError: if one of them is out of range.
    """

    steps: int = ADDSR_STEPS
    self_refinement: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= ADDSR_STEPS:
            raise SkipDiffError(f"AddSR(steps={self.steps}) must have 1 … {ADDSR_STEPS} steps")
        if not 0 <= self.self_refinement <= 1:
            raise SkipDiffError(f"AddSR(self_refinement={self.self_refinement}) must lie in 0 … 1")

    def levels(self, schedule: NoiseSchedule) -> Float64:
        """Levels iT/4, evenly spread as far as ``steps`` allows."""
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
        """A posterior jump, and the refined condition."""
        signals = self.signals(model.schedule)
        refined = torch.lerp(condition, x0, self.self_refinement)
        # A residual latent is relative to its condition: √ᾱ k (x - used) becomes √ᾱ k (x - refined).
        clean = model.to_latent(x0, refined)
        moved = latent + float(signals[index]) * (clean - model.to_latent(x0, used))
        coefficients = jump(signals[index, None] ** 2, signals[index + 1, None] ** 2)
        return posterior_sample(coefficients, moved, clean, noise), refined


NAMED: dict[str, type[CCSR] | type[AddSR]] = {"ccsr": CCSR, "addsr": AddSR}
"""What users may type for the chains with their usual number of steps."""
