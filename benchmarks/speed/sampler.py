"""Times the sampler at (10, T/10) and the full chain in alternation, without loading and file I/O."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from skipdiff_env import SkipDiffSampler
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import demo_photograph, shrink
from skipdiff_env.policies.base import PolicySpec


def sampler_speed(
    model: FrozenModel, policies: Sequence[PolicySpec] = (7,), repeats: int = 5, size: int = 256
) -> list[dict[str, float]]:
    """Measure median seconds and evaluations of every policy and of the full chain, and the paired ratio.

    Args:
        model: the frozen model.
        policies: policies of the fast sampler, such as FSR starts, one per row.
        repeats: number of rounds of all policies and the full chain, after one unmeasured warm-up call.
        size: side of the enlarged image in pixels.
    """
    size -= size % model.scale
    lr = shrink(demo_photograph()[:size, :size], model.scale)
    fast = SkipDiffSampler(model, coarse_steps=10)
    full = SkipDiffSampler(model, coarse_steps=model.schedule.steps, fine_steps=0)
    fast(lr, policy=policies[0])
    rounds = [
        ([fast(lr, policy=policy).trace[0] for policy in policies], full(lr).trace[0]) for _ in range(repeats)
    ]
    chain = [trace for _, trace in rounds]
    rows = []
    for i in range(len(policies)):
        mine = [traces[i] for traces, _ in rounds]
        rows.append(
            {
                "fast_evaluations": mine[0].evaluations,
                "full_evaluations": chain[0].evaluations,
                "fast_seconds": statistics.median(t.seconds for t in mine),
                "full_seconds": statistics.median(t.seconds for t in chain),
                "ratio": statistics.median(a.seconds / b.seconds for a, b in zip(mine, chain, strict=True)),
            }
        )
    return rows
