"""Scales the detail that a chain invents, from none (the posterior mean) to all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..diffusion.noise import NoiseKey
from ..diffusion.protocol import DiffusionModel
from ..diffusion.schedule import NoiseSchedule
from ..errors import SkipDiffError, fraction
from .addsr import AddSR
from .base import Around, Chain, Final
from .plan import Plan, through


def mean_plan(schedule: NoiseSchedule) -> Plan:
    """Return a plan of one call at level T. The latent there is pure noise, so x̂0 is the mean E[x0 | c]."""
    return through([schedule.steps, 0])


def with_detail(chain: Chain, detail: float, model: DiffusionModel) -> Chain:
    """Return a chain that keeps the share ``detail`` of the invented detail: at 1, ``chain`` itself; at 0,
    the single call that gives the mean.

    Raises:
        SkipDiffError: if ``detail`` is not from 0 to 1, or is below 1 where no mean can be computed: for
            AddSR's student, which was trained against a discriminator, and for a model that predicts the
            noise, whose x̂0 is a fraction with the denominator √ᾱ, which is almost 0 at level T.
    """
    fraction("detail", detail)
    if detail == 1:
        return chain
    prediction = getattr(getattr(model, "config", None), "prediction", None)
    if prediction == "noise":
        raise SkipDiffError(
            f"detail={detail:g}: {model.name} predicts the noise, from which no mean can be computed at "
            "level T; use detail 1"
        )
    if isinstance(chain, AddSR):
        raise SkipDiffError(
            f"detail={detail:g}: AddSR's student cannot make a picture without invented detail; use detail 1 "
            "or another model"
        )
    return Detailed(chain, detail) if detail else mean_plan(model.schedule)


@dataclass(frozen=True)
class Detailed(Around):
    """A chain that turns the pictures x of another into m + d (x - m), where the mean m takes one more
    evaluation."""

    detail: float
    """d, 0 … 1."""

    def then(self, final: Final, model: DiffusionModel, condition: Tensor, keys: Sequence[NoiseKey]) -> Final:
        """Compute the mean, and mix it with the pictures."""
        mean = mean_plan(model.schedule)(model, condition, keys)
        x0 = (final.x0 - mean.x0).mul_(self.detail).add_(mean.x0)
        return replace(final, x0=x0, evaluations=final.evaluations + mean.evaluations)

    def most_evaluations(self, schedule: NoiseSchedule) -> int:
        """Return the maximum number of network calls of the inner chain, plus one."""
        return super().most_evaluations(schedule) + 1

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the inner chain, and d."""
        return {**self.chain.settings, "detail": self.detail}

    def __str__(self) -> str:
        return f"{self.chain} with {self.detail:g} of its detail"
