"""A chain of network calls, each with a told level (given to the network) and a level that it leads to.

This state machine does not distinguish coarse steps from fine steps::

    state = process.start(condition, keys)             # x_T at level T
    state = process.call(state, told, to, eta)         # one network call per row, r → u
    ...                                                # until u = 0, where state.x0 is the result

In a call, the network is told a level r. If r is below the level reached, the network treats the
latent as one of level r, and thus the excess noise as detail. This is a *skip* (under the rule ``hold`` of
:mod:`.process`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..errors import SkipDiffError
from .noise import NoiseKey, first_latent, keyed_normal
from .process import posterior_sample
from .protocol import DiffusionModel, as_model
from .rows import Rows
from .schedule import Jump, jump

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.24, 0.19, 0.15, 0.11, 0.09, 0.07, 0.05, 0.04, 0.03, 0.02, 0.01)
"""The usual levels, as shares of T: evenly spaced down to 0.3, a range in which calls change the latent most,
then spaced about evenly in log-SNR."""
TOLD = (1.0, 0.75, 0.5)
"""Told levels under ``actions="full"``, as shares of the level reached."""
ETAS = (0.0, 0.5, 1.0)
"""Values of η that a call may have under ``actions="full"``."""


def usual_levels(top: int) -> list[float]:
    """Return the usual levels that calls may lead to: whole numbers below T, in descending order to 0."""
    return [*sorted({max(1, round(share * top)) for share in SHARES} - {top}, reverse=True), 0]


def checked_levels(levels: Sequence[float] | None, top: int) -> list[float]:
    """Check the levels that calls may lead to, sort them in descending order, and add 0 if it is missing.

    Raises:
        SkipDiffError: if ``levels`` is not a list of numbers, or a level is below 0 or not below T.
    """
    if levels is None:
        return usual_levels(top)
    try:
        given = np.array(levels, np.float64)
    except (TypeError, ValueError):
        given = np.array(np.nan)
    if given.ndim != 1:
        raise SkipDiffError(f"levels={levels!r} must be a list of numbers, such as [50, 20, 5]")
    found = sorted({0.0, *given.tolist()}, reverse=True)
    if not all(0 <= level < top for level in found):
        raise SkipDiffError(f"levels={given.tolist()} must be at least 0 and below T = {top}")
    return found


@dataclass(frozen=True)
class Call:
    """The arguments of a network call; see :meth:`CallProcess.call`."""

    told: float
    """r, the told level."""
    to: float
    """u, the level that the call leads to; 0 ends the chain with x̂0."""
    eta: float = 0.0
    """η, 0 … 1; without effect if ``to`` is 0 or with ``fresh``, since x_r then contributes no noise."""
    fresh: bool = False
    """Whether all noise is drawn afresh and added to x̂0."""
    number: int | None = None
    """Number of the noise draw; None: derived from ``to``."""


@dataclass(frozen=True)
class CallState(Rows):
    """A batch in mid-chain. States are never changed in place, and each row has its own level."""

    condition: Tensor
    """c, (B, 3, H, W) in [-1, 1]."""
    latent: Tensor
    """x at ``level``, (B, 3, H, W)."""
    x0: Tensor
    """The newest x̂0, (B, 3, H, W) in image space (c itself before any call)."""
    level: np.ndarray
    """The level reached, float64 (B,); 0 = finished."""
    evaluations: np.ndarray
    """Network calls spent on each row, int64 (B,)."""
    keys: tuple[NoiseKey, ...]
    """The noise key of each row."""
    drawn: tuple[tuple[int, ...], ...]
    """The numbers of the draws of each row so far, beginning with that of x_T."""


class CallProcess:
    """Makes single network calls with a frozen model.

    Args:
        model: a model, which needs ``schedule`` and ``predict``.
    """

    def __init__(self, model: DiffusionModel) -> None:
        self.model = as_model(model)
        self.schedule = self.model.schedule

    def start(self, condition: Tensor, keys: Sequence[NoiseKey]) -> CallState:
        """Draw x_T ~ N(0, I), the same as in :meth:`.process.SkipProcess.start`.

        Args:
            condition: the condition c, (B, 3, H, W) in [-1, 1].
            keys: B noise keys.
        """
        batch, top = len(condition), self.schedule.steps
        latent = first_latent(condition, keys, top)
        level, count = np.full(batch, float(top)), np.zeros(batch, np.int64)
        return CallState(condition, latent, condition, level, count, tuple(keys), ((top,),) * batch)

    def call(
        self,
        state: CallState,
        told: ArrayLike,
        to: ArrayLike,
        eta: ArrayLike = 0.0,
        fresh: ArrayLike = False,
        number: Sequence[int | None] | None = None,
        x0: Tensor | None = None,
    ) -> CallState:
        """Make one network call for every row. ``told``, ``to``, ``eta`` and ``fresh`` are one value per row,
        (B,), or one for all.

        Args:
            state: the state reached; no row may be finished.
            told: the told level r, above 0 and at most the level reached.
            to: the level u that the call leads to, below r; 0 ends the chain with x̂0.
            eta: η of the jump from r to u, 0 … 1; see :func:`.schedule.jump`.
            fresh: whether x_u is x̂0 with fresh noise, √ᾱ_u x̂0 + √(1 - ᾱ_u) z, which forgets x_r.
            number: for each row, the number of the draw under its noise key. None, for one row or for all:
                the level u, rounded, plus the smallest multiple of T that gives a number not yet drawn in
                that row.
            x0: the result of :meth:`predict` for ``state`` and ``told``, if it is already known.

        Raises:
            ValueError: if a level or η is out of range.
        """
        rows = len(state)
        r, u, eta = (np.broadcast_to(np.asarray(value, np.float64), rows) for value in (told, to, eta))
        if not np.all((u >= 0) & (u < r) & (r <= state.level)):
            raise ValueError(
                f"the told level must be at most the level reached, {state.level}, and the next level must "
                f"be at least 0 and below the told level: told {r}, next {u}"
            )
        coefficients = self._coefficients(r, u, eta, np.broadcast_to(fresh, rows))
        latent = state.latent
        x0 = self.predict(state, r) if x0 is None else x0
        noise, drawn = None, state.drawn
        if coefficients.std.any():
            numbers = self._numbers(state, u, number)
            noise = keyed_normal(state.keys, numbers, latent.shape[1:], latent)
            drawn = tuple(
                (*past, n) if std else past
                for past, n, std in zip(drawn, numbers, coefficients.std, strict=True)
            )
        reached = posterior_sample(coefficients, latent, self.model.to_latent(x0, state.condition), noise)
        spent = state.evaluations + 1
        return CallState(state.condition, reached, x0, u.copy(), spent, state.keys, drawn)

    def predict(self, state: CallState, told: ArrayLike) -> Tensor:
        """Estimate x̂0 of every row, (B, 3, H, W) in image space, at these told levels."""
        levels = np.broadcast_to(np.asarray(told, np.float64), len(state))
        signal = torch.from_numpy(np.sqrt(self.schedule.alpha_bar_at(levels)))
        latent = state.latent
        return self.model.predict(latent, state.condition, signal.to(latent.device, latent.dtype))

    def _coefficients(self, r: np.ndarray, u: np.ndarray, eta: np.ndarray, fresh: np.ndarray) -> Jump:
        """Compute the coefficients of x_u in x̂0, x_r and noise, each field (B,)."""
        reached = self.schedule.alpha_bar_at(u)
        usual = jump(self.schedule.alpha_bar_at(r), reached, eta)
        return Jump(
            beta=usual.beta,
            x0_coef=np.where(fresh, np.sqrt(reached), usual.x0_coef),
            xt_coef=np.where(fresh, 0.0, usual.xt_coef),
            std=np.where(fresh, np.sqrt(1 - reached), usual.std),
        )

    def _numbers(self, state: CallState, u: np.ndarray, given: Sequence[int | None] | None) -> list[int]:
        """Return the number of each row's draw."""
        asked = [None] * len(state) if given is None else given
        numbers = []
        for past, level, number in zip(state.drawn, np.rint(u).astype(int).tolist(), asked, strict=True):
            while number is None and level in past:
                level += self.schedule.steps
            numbers.append(level if number is None else number)
        return numbers
