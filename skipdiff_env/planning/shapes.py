"""The family of plans that the search covers."""

from __future__ import annotations

import numpy as np

from ..chains.plan import Plan
from ..diffusion import Call


def shaped_plan(
    top: int,
    evaluations: int,
    jumps: int,
    reached: float,
    told: float,
    etas: tuple[float, float],
    powers: tuple[float, float],
) -> Plan:
    """Return the plan that goes from T to ``reached`` in ``jumps`` calls, skips to ``told``, and goes on to
    0.

    The levels of a part of m calls from a down to b are b + (a - b)((m - i)/m)^power, i = 0 … m, rounded to
    whole numbers, and then shifted as far as needed to be strictly decreasing.

    Args:
        top: T.
        evaluations: number of network calls in total.
        jumps: number of calls before the skip, below ``evaluations``; 0: the plan has only one part.
        reached: level reached before the skip.
        told: told level at the skip, as a share of ``reached``, 0 … 1; 1 means no skip.
        etas: η of the two parts.
        powers: exponents of the spacing in the two parts; below 1 the levels lie higher, above 1 lower.
    """
    after = evaluations - jumps
    low = int(np.clip(round(reached), after, top - jumps)) if jumps else top
    first = _falling(top, low, jumps, powers[0]) if jumps else [top]
    second = _falling(int(np.clip(round(told * low), after, low)) if jumps else top, 0, after, powers[1])
    calls = [
        Call(t, u, eta if u else 0.0)
        for levels, eta in ((first, etas[0]), (second, etas[1]))
        for t, u in zip(levels, levels[1:], strict=False)
    ]
    return Plan(top, tuple(calls))


def _falling(a: int, b: int, steps: int, power: float) -> list[int]:
    """Return ``steps`` + 1 whole levels falling from a to b."""
    levels = np.rint(b + (a - b) * (1 - np.arange(steps + 1) / steps) ** power).astype(int).tolist()
    for i in range(steps - 1, 0, -1):
        levels[i] = max(levels[i], levels[i + 1] + 1)
    for i in range(1, steps):
        levels[i] = min(levels[i], levels[i - 1] - 1)
    return levels
