"""Chooses a model's fast, normal and best plans."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..chains.parse import BEST, FAST, NORMAL
from ..chains.plan import Plan
from ..metrics import load_metric

LIMITS: dict[str, dict[str, float]] = {
    NORMAL: {"psnr": 0.1, "ssim": 0.005, "residue": 0.1},
    FAST: {"psnr": 0.2, "ssim": 0.01, "residue": 0.25},
}
"""How far an effort's plan may fall behind the reference, the chain that plans are compared with: PSNR in dB,
SSIM as a difference, and the residue (grain in flat areas) as a fraction of the reference's."""
MOST: dict[str, float] = {NORMAL: 0.02, FAST: 0.15}
"""The highest Σ w ln(M / M of the reference), over the metrics M of the objective with their weights w, that
such a plan may have."""


def choose_efforts(
    plans: Mapping[Plan, Mapping[str, float]], reference: Mapping[str, float], objective: Mapping[str, float]
) -> dict[str, Plan]:
    """Choose the plan of each effort.

    ``normal`` and ``fast`` are the plans with the fewest evaluations that stay within :data:`LIMITS` and
    :data:`MOST`. ``best`` is the plan whose Σ w ln(M / M of the reference) is smallest. An effort for which
    no plan is good enough is left out, and so is ``best`` if no plan is better than the reference.

    Args:
        plans: for each plan, its mean of each metric.
        reference: the means of the chain that plans are compared with.
        objective: the metrics M that the search optimised, with their weights w.
    """
    losses = {
        plan: sum(w * _loss(m, plans[plan][m], reference[m]) for m, w in objective.items()) for plan in plans
    }
    found = {}
    for effort, limits in LIMITS.items():
        good = [
            plan for plan, own in plans.items()
            if losses[plan] <= MOST[effort]
            and all(_behind(m, own[m], reference[m]) <= most for m, most in limits.items() if m in own)
        ]  # fmt: skip
        if good:
            found[effort] = min(good, key=lambda plan: len(plan.calls))
    best = min(losses, key=losses.__getitem__)
    return found | ({BEST: best} if losses[best] < 0 else {})


def _behind(name: str, ours: float, theirs: float) -> float:
    """Return how much worse ``ours`` is: the residue as a fraction of ``theirs``, PSNR and SSIM as a
    difference."""
    return ours / theirs - 1 if load_metric(name).lower_better else theirs - ours


def _loss(name: str, ours: float, theirs: float) -> float:
    """Compute ln(M / M of the reference), with the sign for which lower is better."""
    return (1 if load_metric(name).lower_better else -1) * math.log(ours / theirs)
