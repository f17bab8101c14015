"""SkipDiff's process: coarse skip approximation (CSA) and fine skip refinement (FSR).

The environments of SkipDiff-v0, the sampler, the oracle and the benchmarks all drive this batched state
machine::

    state = process.start(condition, keys)        # CSA: S - 1 network calls, x_S1 at level N
    for _ in range(process.decisions):            # F - 1 decisions
        state = process.step(state, actions)      # 0 = denoise, 1 = skip (Eqs. 13 and 14)
    state = process.finish(state)                 # always denoise 1 → 0; the result is state.x0

Network evaluations: (S - 1) + (number of denoise actions) + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import SkipDiffError, whole_number
from .noise import NoiseKey, first_latent, keyed_normal
from .protocol import DiffusionModel, as_model
from .resize import to_signed, to_uint8
from .rows import Rows
from .schedule import CoarseRule, Jump, jump

DENOISE, SKIP = 0, 1
SkipRule = Literal["reset", "hold"]
SKIP_RULES: tuple[SkipRule, ...] = get_args(SkipRule)
"""All skip rules; the paper's (Eq. 14) comes first."""
History = tuple[int, ...]
Callback = Callable[["SkipState"], None]
Refine = Callable[[Tensor, Tensor], Tensor]
"""Function from x̂0 and condition, both (B, 3, H, W) in [-1, 1], to the refined image, in the same form."""
CHANGED = ("latent", "x0", "level", "evaluations", "history")
"""Fields of a :class:`SkipState` that a denoising step changes; the others, which take most of the memory,
are shared."""


@dataclass(frozen=True)
class SkipState(Rows):
    """A batch in mid-chain. States are never changed in place, and each row has its own level."""

    condition: Tensor
    """c, (B, 3, H, W) in [-1, 1]."""
    latent: Tensor
    """u_t, (B, 3, H, W): what the agent sees."""
    coarse: Tensor
    """x_S1, the latent at the end of CSA, (B, 3, H, W)."""
    x0: Tensor
    """The newest x̂0 behind ``latent``, (B, 3, H, W) in image space (c itself before any call)."""
    coarse_x0: Tensor
    """The x̂0 behind ``coarse``."""
    level: np.ndarray
    """t, int64 (B,); 0 = finished."""
    evaluations: np.ndarray
    """Network calls spent on each row, int64 (B,)."""
    keys: tuple[NoiseKey, ...]
    """The noise key of each row."""
    history: tuple[History, ...]
    """For each row, the levels at which ``latent`` was denoised since ``coarse``. Under one noise key, they
    determine the latent: schedules that share them share the latent."""


class SkipProcess:
    """CSA and FSR around a frozen model.

    Args:
        model: a model; see :func:`.protocol.as_model`.
        coarse_steps: number of coarse steps S, a divisor of T. S - 1 jumps of N = T/S levels are made.
        fine_steps: number of fine levels F, 1 … T; None: N. x_S1 is treated as a latent of level F whatever F
            is, as in the paper's ablations with (S, F) = (10, 100) and (1, 100). 0: CSA alone, whose last
            jump goes from N to 0, with S evaluations in total; with S = T, this is the full chain, SR3's
            sampler.
        skip_rule: rule for the latent after a skip: x_S1 under ``reset`` (Eq. 14), u_t under ``hold``.
        coarse_levels: rule for the coarse levels (see :meth:`NoiseSchedule.coarse`); None: the model's own.
        refine: function that :meth:`finish` applies to the result (see :mod:`.refiner`), or None.

    Attributes:
        coarse_alpha_bar: ᾱ at the coarse levels, float64 (S + 1,).
    """

    def __init__(
        self,
        model: DiffusionModel,
        coarse_steps: int = 10,
        fine_steps: int | None = None,
        skip_rule: SkipRule = "reset",
        coarse_levels: CoarseRule | None = None,
        refine: Refine | None = None,
    ) -> None:
        model = as_model(model)
        schedule = model.schedule
        self.model, self.schedule, self.coarse_steps = model, schedule, coarse_steps
        self.stride = schedule.stride(coarse_steps)
        self.fine_steps = (
            self.stride if fine_steps is None else whole_number("fine_steps", fine_steps, 0, schedule.steps)
        )
        if skip_rule not in SKIP_RULES:
            raise SkipDiffError(f"unknown skip_rule {skip_rule!r}: use 'reset' or 'hold'")
        self.skip_rule, self.refine = skip_rule, refine
        self.coarse_alpha_bar = schedule.coarse(coarse_steps, coarse_levels or model.coarse_levels)

    @property
    def decisions(self) -> int:
        """F - 1, the number of decisions in an episode; 0 for F = 0."""
        return max(self.fine_steps - 1, 0)

    def start(
        self, condition: Tensor, keys: Sequence[NoiseKey], callback: Callback | None = None
    ) -> SkipState:
        """Run CSA: from x_T ~ N(0, I) through S - 1 jumps to x_S1, the latent at level N.

        Args:
            condition: the condition c, (B, 3, H, W) in [-1, 1].
            keys: B noise keys. The noise of level t is used when level t is *reached*.
            callback: function that is called after each jump with the state, whose ``level`` is the level
                reached.
        """
        batch, top = len(condition), self.schedule.steps
        latent = first_latent(condition, keys, top)
        level, count = np.full(batch, top), np.zeros(batch, np.int64)
        past: tuple[tuple[int, ...], ...] = ((),) * batch
        state = SkipState(condition, latent, latent, condition, condition, level, count, tuple(keys), past)
        table, full = self.coarse_alpha_bar, np.ones(batch)
        for s in range(self.coarse_steps, 1, -1):
            level = np.full(batch, (s - 1) * self.stride)
            state = self._jump(state, table[s] * full, table[s - 1] * full, level, level)
            if callback:
                callback(state)
        level = np.full(batch, self.fine_steps or self.stride)
        return replace(state, coarse=state.latent, coarse_x0=state.x0, level=level)

    def step(self, state: SkipState, actions: Sequence[int] | np.ndarray | Tensor) -> SkipState:
        """Take one decision per row: 0 denoises t → t - 1, 1 skips (Eqs. 13 and 14). Every row must have
        t > 1.

        Only the rows that denoise go through the network.
        """
        chosen = np.asarray(actions.cpu() if isinstance(actions, Tensor) else actions)
        if chosen.shape != (len(state),) or not ((chosen == DENOISE) | (chosen == SKIP)).all():
            raise SkipDiffError(
                f"give one action, 0 (denoise) or 1 (skip), for each row: rows {len(state)}, actions {chosen}"
            )
        if self.decisions == 0 or (state.level <= 1).any():
            raise SkipDiffError("no decision is left: call finish()")
        skipped = self._skip(state)
        rows = np.flatnonzero(chosen == DENOISE)
        if len(rows) == len(state):
            return self.denoise(state)
        return self._denoise_some(state, rows, skipped) if len(rows) else skipped

    def finish(self, state: SkipState) -> SkipState:
        """Take the last denoising step, 1 → 0 (the last jump of CSA, N → 0, if F = 0), which is never
        skipped. The result is the new state's ``x0``."""
        last = 1 if self.fine_steps else self.stride
        if (state.level != last).any():
            raise SkipDiffError(
                f"finish() needs every row at level {last}, got levels {state.level.tolist()}"
            )
        return refined(self._refine(state, np.zeros_like(state.level)), self.model, self.refine)

    def denoise(self, state: SkipState) -> SkipState:
        """Make one posterior jump t → t - 1 for every row (Eq. 8 with N = 1)."""
        return self._refine(state, state.level - 1)

    def _denoise_some(self, state: SkipState, rows: np.ndarray, others: SkipState) -> SkipState:
        """Return ``others`` with ``rows`` replaced by those of ``state`` after one posterior jump."""
        return others.replace(rows, self.denoise(state.select(rows)), CHANGED)

    def _refine(self, state: SkipState, to: np.ndarray) -> SkipState:
        """Make one jump after :meth:`start`, each row to its level ``to``."""
        table = self.schedule.alpha_bar
        leaving = table[state.level] if self.fine_steps else self.coarse_alpha_bar[[1] * len(state)]
        history = self._histories(state, DENOISE)
        # With F > N, the fine chain passes levels that CSA has already passed; their second noise must be
        # new.
        noise = np.where(to >= self.stride, to + self.schedule.steps, to)
        return replace(self._jump(state, leaving, table[to], to, noise), history=history)

    def _skip(self, state: SkipState) -> SkipState:
        state = replace(state, level=state.level - 1, history=self._histories(state, SKIP))
        if self.skip_rule == "hold":
            return state
        return replace(state, latent=state.coarse, x0=state.coarse_x0)

    def _histories(self, state: SkipState, action: int) -> tuple[History, ...]:
        both = zip(state.history, state.level.tolist(), strict=True)
        return tuple(history_after(past, t, action, self.skip_rule) for past, t in both)

    def _jump(
        self,
        state: SkipState,
        alpha_bar_t: np.ndarray,
        alpha_bar_u: np.ndarray,
        level: np.ndarray,
        noise: np.ndarray,
    ) -> SkipState:
        """Draw x_u ~ q(x_u | x_t, x̂0) for every row, at its level u, with the draw numbered ``noise``."""
        latent, condition = state.latent, state.condition
        coefficients = jump(alpha_bar_t, alpha_bar_u)
        signal = torch.from_numpy(np.sqrt(alpha_bar_t)).to(latent.device, latent.dtype)
        x0 = self.model.predict(latent, condition, signal)
        drawn = None
        if coefficients.std.any():
            drawn = keyed_normal(state.keys, noise.tolist(), latent.shape[1:], latent)
        reached = posterior_sample(coefficients, latent, self.model.to_latent(x0, condition), drawn)
        return replace(state, latent=reached, x0=x0, level=level, evaluations=state.evaluations + 1)


def refined(state: SkipState, model: DiffusionModel, refine: Refine | None) -> SkipState:
    """Refine x̂0 in the state of a finished chain."""
    if refine is None:
        return state
    x0 = apply_refiner(refine, state.x0, state.condition)
    return replace(state, x0=x0, latent=model.to_latent(x0, state.condition))


def apply_refiner(refine: Refine, x0: Tensor, condition: Tensor) -> Tensor:
    """Return the refined pictures, (B, 3, H, W) in [-1, 1].

    The refiner is given x̂0 rounded to 8 bits, as it would be saved, since latent caches store it in that
    form.

    Raises:
        SkipDiffError: if the refiner changes the shape.
    """
    made = refine(to_signed(to_uint8(x0)), condition)
    if made.shape != x0.shape:
        raise SkipDiffError(
            f"the refiner turned {tuple(x0.shape)} into {tuple(made.shape)}: it must keep the shape"
        )
    return made.clamp(-1, 1)


def posterior_sample(coefficients: Jump, latent: Tensor, x0: Tensor, noise: Tensor | None) -> Tensor:
    """Draw x_u ~ q(x_u | x_t, x_0), (B, 3, H, W).

    Args:
        coefficients: coefficients of the jump, each field (B,) or (1,).
        latent: x_t.
        x0: x_0 of the chain.
        noise: standard normal noise, which is overwritten; None if ``std`` is 0 in every row.
    """
    x0_coef, xt_coef, std = (
        _column(getattr(coefficients, name), latent) for name in ("x0_coef", "xt_coef", "std")
    )
    # One buffer, filled in place: a whole photograph's latents are large.
    out = latent * xt_coef if noise is None else noise.mul_(std).addcmul_(latent, xt_coef)
    return out.addcmul_(x0, x0_coef)


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, like.dtype)[:, None, None, None]


def history_after(history: History, level: int, action: int, rule: SkipRule) -> History:
    """Return the history (see :class:`SkipState`) of the latent that an action at a level leads to."""
    if action == DENOISE:
        return (*history, level)
    return () if rule == "reset" else history


def start_actions(start: int, fine_steps: int) -> list[int]:
    """Return the F - 1 actions of a fixed start k (Table 5): skip at levels F … k + 1, denoise at k … 2;
    level 1, at which there is no action, is always denoised."""
    whole_number("start", start, 1, fine_steps)
    return [SKIP if t > start else DENOISE for t in range(fine_steps, 1, -1)]
