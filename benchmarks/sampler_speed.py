"""The sampler at (10, 10) against the full chain, alternating, loading and file I/O excluded."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from skipdiff_env import SkipDiffSampler
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import demo_photograph, shrink


def sampler_speed(
    model: FrozenModel, starts: Sequence[int] = (7,), repeats: int = 5, size: int = 256
) -> list[dict[str, float]]:
    """Median seconds and evaluations of every start and of the full chain, and the paired ratio.

    Args:
        model: the frozen model.
        starts: FSR starts of the fast sampler, a row each.
        repeats: rounds of all starts and the full chain, after one unmeasured warm-up call.
        size: side of the enlarged image in pixels.
    """
    size -= size % model.scale
    lr = shrink(demo_photograph()[:size, :size], model.scale)
    fast = SkipDiffSampler(model, coarse_steps=10)
    full = SkipDiffSampler(model, coarse_steps=model.schedule.steps, fine_steps=0)
    fast(lr, policy=starts[0])
    rounds = [
        ([fast(lr, policy=start).trace[0] for start in starts], full(lr).trace[0]) for _ in range(repeats)
    ]
    chain = [trace for _, trace in rounds]
    rows = []
    for i, start in enumerate(starts):
        mine = [traces[i] for traces, _ in rounds]
        rows.append(
            {
                "start": start,
                "fast_evaluations": mine[0].evaluations,
                "full_evaluations": chain[0].evaluations,
                "fast_seconds": statistics.median(t.seconds for t in mine),
                "full_seconds": statistics.median(t.seconds for t in chain),
                "ratio": statistics.median(a.seconds / b.seconds for a, b in zip(mine, chain, strict=True)),
            }
        )
    return rows
