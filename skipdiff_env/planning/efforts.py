"""Chooses a model's fast, normal and best plan."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..chains.parse import BEST, FAST, NORMAL
from ..chains.plan import Plan
from ..metrics import load_metric

ABSOLUTE = ("psnr", "ssim")
"""Metrics whose differences count as they are (dB for PSNR); of any other it is the share that counts."""
OTHERS = "others"
LIMITS: dict[str, dict[str, float]] = {
    NORMAL: {"psnr": 0.08, "ssim": 0.004, "residue": 0.08, "lpips": 0.015, OTHERS: 0.03},
    FAST: {"psnr": 0.2, "ssim": 0.01, "residue": 0.25, "lpips": 0.1, OTHERS: 0.1},
}
"""By how much a plan of an effort may fall behind the reference."""


def choose_efforts(
    plans: Mapping[Plan, Mapping[str, float]], reference: Mapping[str, float], objective: Mapping[str, float]
) -> dict[str, Plan]:
    """Choose the plan of each effort.

    ``normal`` and ``fast`` are the plans with the fewest evaluations that are worse than the reference by no
    more than :data:`LIMITS` in any figure. ``best`` is the plan whose Σ w ln(M / M of the reference) is
    smallest. An effort for which no plan is good enough is left out, and so is ``best`` if the reference is
    better than all plans.

    Args:
        plans: for each plan, its mean of each metric.
        reference: the means of the chain that plans are compared with.
        objective: the metrics M that the search optimised, with their weights w.
    """
    worse = {
        plan: {
            name: _behind(name, value, reference[name])
            for name, value in figures.items()
            if name in reference
        }
        for plan, figures in plans.items()
    }
    found = {}
    for effort, limits in LIMITS.items():
        good = [
            plan for plan, behind in worse.items()
            if all(value <= limits.get(name, limits[OTHERS]) for name, value in behind.items())
        ]  # fmt: skip
        if good:
            found[effort] = min(good, key=lambda plan: len(plan.calls))
    losses = {
        plan: sum(w * _loss(m, plans[plan][m], reference[m]) for m, w in objective.items()) for plan in plans
    }
    best = min(losses, key=losses.__getitem__)
    return found | ({BEST: best} if losses[best] < 0 else {})


def _behind(name: str, ours: float, theirs: float) -> float:
    """By how much ours is the worse; a difference or a share, see :data:`ABSOLUTE`."""
    sign = 1 if load_metric(name).lower_better else -1
    return sign * (ours - theirs) / (1.0 if name in ABSOLUTE else theirs)


def _loss(name: str, ours: float, theirs: float) -> float:
    """ln(M/M of the reference), with the sign that makes less the better."""
    return (1 if load_metric(name).lower_better else -1) * math.log(ours / theirs)
