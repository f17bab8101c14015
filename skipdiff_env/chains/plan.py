"""Plans: chains whose calls are fixed beforehand, written as readable text.

An example of a plan is ``100>57>27>14|11>5>2>0 eta 0|1``. ``>`` is a network call that leads to the next
level. ``|`` is a skip: the network is told the level after the ``|`` instead of the level reached. ``eta``
gives the η of the calls (see :func:`.schedule.jump`): one number for all of them, or, for each part between
skips, one number or a list such as ``0.5,1,1``, separated by ``|``. Two rare marks are ``>~67``, which adds
fresh noise to x̂0, and ``>90#190``, which gives the number of the noise draw.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from ..diffusion.calls import Call, CallProcess
from ..diffusion.noise import NoiseKey
from ..diffusion.process import SkipRule, history_after
from ..diffusion.protocol import DiffusionModel
from ..diffusion.schedule import NoiseSchedule
from ..errors import SkipDiffError
from .base import Chain, Final, OnState, no_actions

_STEP = re.compile(r"([>|])(~?)(\d{1,9}(?:\.\d+)?)(?:#(\d{1,18}))?", re.ASCII)
_TEXT = re.compile(rf"\s*(\d{{1,9}})((?:{_STEP.pattern})+)(?:\s+eta\s+(\S+))?\s*", re.ASCII)


@dataclass(frozen=True)
class Plan(Chain):
    """A chain of fixed calls.

    Args:
        top: T of the models that the plan is for.
        calls: the network calls, from T down to 0.

    Raises:
        SkipDiffError: if a told level is above the level reached, a call does not lead below its told level,
            the last call does not lead to 0, or an η is not from 0 to 1.
    """

    top: int
    calls: tuple[Call, ...]

    name = "plan"

    def __post_init__(self) -> None:
        reached = float(self.top)
        calls = []
        for call in self.calls:
            if not 0 <= call.to < call.told <= reached:
                raise SkipDiffError(
                    f"a plan's call from {call.told:g} to {call.to:g} must start at {reached:g} or below, "
                    "and end at 0 or above, but below its start"
                )
            if not 0 <= call.eta <= 1:
                raise SkipDiffError(f"a plan's eta must be from 0 to 1, not {call.eta:g}")
            calls.append(replace(call, eta=0.0) if call.fresh or call.to == 0 else call)
            reached = call.to
        if not calls or reached:
            raise SkipDiffError("a plan's last call must lead to 0")
        object.__setattr__(self, "calls", tuple(calls))

    def __call__(
        self,
        model: DiffusionModel,
        condition: Tensor,
        keys: Sequence[NoiseKey],
        on_state: OnState | None = None,
    ) -> Final:
        """Make the calls.

        Raises:
            SkipDiffError: if the model has another T.
        """
        process = CallProcess(model)
        if process.schedule.steps != self.top:
            raise SkipDiffError(
                f"the plan is for models of {self.top} levels, but this one has {process.schedule.steps}: "
                f"give a plan that begins with {process.schedule.steps}"
            )
        state, rows = process.start(condition, keys), len(keys)
        for call in self.calls:
            state = process.call(state, call.told, call.to, call.eta, call.fresh, [call.number] * rows)
            if on_state:
                on_state(replace(state, level=np.rint(state.level).astype(np.int64)))
        levels = (self.top, *(round(call.to) for call in self.calls))
        return Final(state.x0, state.evaluations, levels, no_actions(rows), self.calls)

    def most_evaluations(self, schedule: NoiseSchedule) -> int:
        """Return the number of calls."""
        return len(self.calls)

    @property
    def settings(self) -> dict[str, Any]:
        """The plan as users write it."""
        return {"policy": str(self)}

    def __str__(self) -> str:
        reached, text, etas = float(self.top), f"{self.top}", [[]]  # type: ignore[var-annotated]
        for call in self.calls:
            if call.told != reached:
                text += f"|{_number(call.told)}"
                etas.append([])
            text += f">{'~' * call.fresh}{_number(call.to)}"
            text += "" if call.number is None else f"#{call.number}"
            if call.to and not call.fresh:
                etas[-1].append(_number(call.eta))
            reached = call.to
        shown = [",".join(part if len(set(part)) > 1 else part[:1]) for part in etas]
        same = {eta for part in etas for eta in part}
        if len(same) > 1:
            return f"{text} eta {'|'.join(part or '0' for part in shown)}"
        return text if same <= {"0"} else f"{text} eta {same.pop()}"

    @classmethod
    def read(cls, text: str) -> Plan:
        """Read a plan from a text in the form shown at the top of this module.

        Raises:
            SkipDiffError: if the text does not describe a plan.
        """
        whole = _TEXT.fullmatch(text)
        if not whole:
            raise SkipDiffError(f"{text!r} is not a plan: write one like '100>57>27>14|11>5>2>0 eta 0|1'")
        parts: list[list[Call]] = [[]]
        top = told = float(whole[1])
        for sign, fresh, level, number in _STEP.findall(whole[2]):
            if sign == "|":
                told = float(level)
                parts.append([])
                continue
            parts[-1].append(
                Call(told, float(level), fresh=bool(fresh), number=int(number) if number else None)
            )
            told = float(level)
        etas = _etas(whole[_TEXT.groups] or "0", [sum(map(_has_eta, part)) for part in parts], text)
        calls = [call for part in parts for call in part]
        given = iter(etas)
        return cls(
            int(top), tuple(replace(call, eta=next(given)) if _has_eta(call) else call for call in calls)
        )


def _has_eta(call: Call) -> bool:
    return call.to > 0 and not call.fresh


def _etas(text: str, counts: Sequence[int], whole: str) -> list[float]:
    """Return the η of every call that has one; ``counts`` is the number of such calls in each part."""
    groups = text.split("|")
    if len(groups) == 1 and "," not in text:
        groups *= len(counts)
    found: list[float] = []
    try:
        for group, count in zip(groups, counts, strict=True):
            numbers = [float(number) for number in group.split(",")]
            found += numbers * count if len(numbers) == 1 else numbers
            if len(numbers) not in (1, count):
                raise ValueError
    except ValueError:
        raise SkipDiffError(
            f"'eta {text}' does not fit the plan {whole!r}: give one number for all calls, or one entry "
            f"for each part of the plan (here {len(counts)}), separated by |; an entry is one number, or one "
            "for each of the part's calls, separated by commas"
        ) from None
    return found


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def through(levels: Sequence[float], eta: float = 0.0) -> Plan:
    """Return a plan without skips through the given levels T … 0; with η = 1, it is DDPM's chain over
    them."""
    pairs = zip(levels, levels[1:], strict=False)
    return Plan(int(levels[0]), tuple(Call(told, to, eta) for told, to in pairs))


def uniform_levels(top: int, steps: int) -> list[int]:
    """Return ``steps`` whole levels from ``top`` down, spaced as evenly as possible, and the 0 that
    follows."""
    return np.rint(np.linspace(top, 0, steps + 1)).astype(int).tolist()


def uniform(top: int, steps: int, eta: float = 0.0) -> Plan:
    """Return DDIM's plan of ``steps`` calls at whole levels, spaced as evenly as possible; with η = 1,
    DDPM's."""
    return through([float(level) for level in uniform_levels(top, steps)], eta)


def skipdiff_plan(
    schedule: NoiseSchedule,
    coarse_steps: int,
    actions: Sequence[int] = (),
    fine_steps: int | None = None,
    skip_rule: SkipRule = "reset",
) -> Plan:
    """Return the plan that is equivalent to CSA followed by a schedule of decisions.

    Calls whose latents are discarded are omitted. If the model's ``coarse_levels`` is ``rebuilt``, the
    topmost level of CSA differs from that of the plan.

    Args:
        schedule: noise schedule of the model.
        coarse_steps: number of coarse steps S.
        actions: the F - 1 decisions, 0 = denoise, 1 = skip.
        fine_steps: number of fine levels F; 0: CSA alone.
        skip_rule: what a skip does, ``reset`` or ``hold``.

    Raises:
        SkipDiffError: if a level above N = T/S is denoised, since the levels of a plan cannot rise.
    """
    top, stride = schedule.steps, schedule.stride(coarse_steps)
    fine = stride if fine_steps is None else fine_steps
    coarse = [Call(level, level - stride, 1.0) for level in range(top, stride, -stride)]
    if not fine:
        return Plan(top, (*coarse, Call(stride, 0)))
    history: tuple[int, ...] = ()
    for level, action in zip(range(fine, 1, -1), actions, strict=True):
        history = history_after(history, level, action, skip_rule)
    # The process gives draws at N and above new numbers, since CSA may have used the usual ones.
    refined = [Call(t, t - 1, 1.0, number=t - 1 + top if t > stride else None) for t in (*history, 1)]
    return Plan(top, (*coarse, *refined))
