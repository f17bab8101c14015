"""Chains of a few evaluations at levels that may lie between those of the table."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..diffusion.noise import NoiseKey, keyed_normal
from ..diffusion.protocol import DiffusionModel, as_model
from ..diffusion.schedule import Float64, NoiseSchedule
from .base import Chain, Final, OnState, no_actions


@dataclass(frozen=True)
class Reached:
    """A :class:`.base.State`."""

    latent: Tensor
    x0: Tensor
    level: np.ndarray
    evaluations: np.ndarray


@dataclass(frozen=True)
class FewSteps(Chain):
    """A chain of a few evaluations. A subclass says at which levels, and how one leads to the next."""

    steps: int
    """Evaluations."""
    word: ClassVar[str]
    """What users write before the colon."""
    most: ClassVar[int | None] = None
    """Evaluations that the chain can have; None: any number."""

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
        on_state: OnState | None = None,
    ) -> Final:
        """Run the chain. x_T is that of CSA."""
        model = as_model(model)
        top, batch, last = model.schedule.steps, len(condition), self.steps - 1
        levels = [round(level) for level in (*self.levels(model.schedule), 0.0)]

        def drawn(number: int) -> Tensor:
            return keyed_normal(keys, [number] * batch, condition.shape[1:], condition)

        def noise(index: int) -> Tensor:
            return drawn(2 * top + index)  # numbers of no level: the chain's lie between those of the table

        def visited(count: int, x0: Tensor, latent: Tensor) -> None:
            if on_state:
                level, spent = (np.full(batch, n) for n in (levels[count], count))
                on_state(Reached(latent, x0, level, spent))

        latent, used = self.approach(model, last, condition, drawn(top), noise, visited)
        x0 = self.evaluate(model, last, latent, used)
        visited(self.steps, x0, model.to_latent(x0, condition))
        return Final(x0, np.full(batch, self.steps), tuple(levels), no_actions(batch))

    def most_evaluations(self, schedule: NoiseSchedule) -> int:
        """The number of steps."""
        return self.steps

    @property
    def settings(self) -> dict[str, Any]:
        """How users write the chain, with those of its other arguments that are not the usual ones."""
        others = ((f.name, getattr(self, f.name), f.default) for f in fields(self) if f.name != "steps")
        unusual = "".join(f",{name}={value!r}" for name, value, usual in others if value != usual)
        return {"policy": f"{self.word}:{self.steps}{unusual}"}

    def __str__(self) -> str:
        return str(self.settings["policy"])
