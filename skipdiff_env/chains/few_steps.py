"""Chains of a few evaluations, at levels that need not be whole numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..diffusion.noise import NoiseKey, first_latent, keyed_normal
from ..diffusion.protocol import DiffusionModel, as_model
from ..diffusion.schedule import Float64, NoiseSchedule
from .base import Chain, Final, OnState, no_actions


@dataclass(frozen=True)
class Reached:
    """The :class:`.base.State` of these chains."""

    latent: Tensor
    x0: Tensor
    level: np.ndarray
    evaluations: np.ndarray


@dataclass(frozen=True)
class FewSteps(Chain):
    """A chain of a few evaluations. A subclass defines their levels and the step from one to the next."""

    steps: int
    """Number of evaluations."""
    word: ClassVar[str]
    """The word that users write before the colon."""
    most: ClassVar[int | None] = None
    """Maximum number of evaluations; None: no maximum."""

    @abstractmethod
    def levels(self, schedule: NoiseSchedule) -> Float64:
        """Return the levels t of the evaluations, descending from T, float64 (steps,)."""

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
        """Compute the inputs of the evaluation after ``index``. All tensors are (B, 3, H, W).

        Args:
            model: the model, whose schedule and target the chain follows.
            index: number of the evaluation that gave ``x0``; 0 is the first.
            latent, used: the latent and the condition that this evaluation saw.
            x0: its x̂0, in image space.
            condition: the original condition c.
            noise: standard normal noise, which may be overwritten.

        Returns:
            The next latent, and the condition for its evaluation.
        """

    def signals(self, schedule: NoiseSchedule) -> Float64:
        """Compute √ᾱ at the levels of :meth:`levels`, float64 (steps,)."""
        return np.sqrt(schedule.alpha_bar_at(self.levels(schedule)))

    def evaluate(self, model: DiffusionModel, index: int, latent: Tensor, used: Tensor) -> Tensor:
        """Compute x̂0 of evaluation ``index``, (B, 3, H, W) in image space."""
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
        """Run the chain up to, but not including, evaluation ``index``.

        Args:
            model: the model.
            index: number of the evaluation, 0 … steps - 1.
            condition: c, (B, 3, H, W).
            latent: x_T, (B, 3, H, W).
            noise: function from the number of an evaluation, 1, 2, …, to the standard normal noise that its
                latent needs.
            visited: function that is called after each evaluation with the number of evaluations so far, the
                last x̂0 and the new latent.

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
        on_state: OnState | None = None,
    ) -> Final:
        """Run the chain from the same x_T as CSA."""
        model = as_model(model)
        top, batch, last = model.schedule.steps, len(condition), self.steps - 1
        levels = [round(level) for level in (*self.levels(model.schedule), 0.0)]

        def noise(index: int) -> Tensor:
            number = 2 * top + index  # draws are not numbered by level, since levels may be fractional
            return keyed_normal(keys, [number] * batch, condition.shape[1:], condition)

        def visited(count: int, x0: Tensor, latent: Tensor) -> None:
            if on_state:
                level, spent = (np.full(batch, n) for n in (levels[count], count))
                on_state(Reached(latent, x0, level, spent))

        start = first_latent(condition, keys, top)
        latent, used = self.approach(model, last, condition, start, noise, visited)
        x0 = self.evaluate(model, last, latent, used)
        visited(self.steps, x0, model.to_latent(x0, condition))
        return Final(x0, np.full(batch, self.steps), tuple(levels), no_actions(batch))

    def most_evaluations(self, schedule: NoiseSchedule) -> int:
        """Return the number of steps."""
        return self.steps

    @property
    def settings(self) -> dict[str, Any]:
        """The chain as users write it, with those arguments that differ from their defaults."""
        others = ((f.name, getattr(self, f.name), f.default) for f in fields(self) if f.name != "steps")
        unusual = "".join(f",{name}={value!r}" for name, value, usual in others if value != usual)
        return {"policy": f"{self.word}:{self.steps}{unusual}"}

    def __str__(self) -> str:
        return str(self.settings["policy"])
