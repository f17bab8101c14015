"""The sampler at (10, 10) against the full chain, alternating, loading and file I/O excluded."""

from __future__ import annotations

import statistics

from skipdiff_env import SkipDiffSampler
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import demo_photograph, shrink


def sampler_speed(model: FrozenModel, start: int = 7, repeats: int = 5, size: int = 256) -> dict[str, float]:
    """Median seconds and evaluations of both, and the median of the paired ratios.

    Args:
        model: the frozen model.
        start: FSR start of the fast one.
        repeats: how many alternating pairs, after one unmeasured warm-up call.
        size: side of the enlarged image in pixels.
    """
    size -= size % model.scale
    lr = shrink(demo_photograph()[:size, :size], model.scale)
    fast = SkipDiffSampler(model, coarse_steps=10)
    full = SkipDiffSampler(model, coarse_steps=model.schedule.steps, fine_steps=0)
    fast(lr, policy=start)
    pairs = [(fast(lr, policy=start).trace[0], full(lr).trace[0]) for _ in range(repeats)]
    return {
        "fast_evaluations": pairs[0][0].evaluations,
        "full_evaluations": pairs[0][1].evaluations,
        "fast_seconds": statistics.median(a.seconds for a, _ in pairs),
        "full_seconds": statistics.median(b.seconds for _, b in pairs),
        "ratio": statistics.median(a.seconds / b.seconds for a, b in pairs),
    }
