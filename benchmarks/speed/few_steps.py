"""Compares plans and CCSR's and AddSR's chains with SkipDiff and the full chain in speed, by turns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from skipdiff_env import SkipDiffSampler
from skipdiff_env.chains import ChainSpec, Plan, efforts, shipped_plans
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import demo_photograph, shrink

HEAD = ["way", "evaluations", "seconds", "of the chain's", "times the chain's speed", "SkipDiff's"]
SAMPLER = tuple[SkipDiffSampler, ChainSpec]


@dataclass(frozen=True)
class Cost:
    """The cost of one sampler, as medians over the rounds."""

    evaluations: int
    seconds: float
    share: float
    """Share of the full chain's seconds in the same round."""
    faster: float
    """The full chain's seconds divided by its own."""
    than_skipdiff: float
    """SkipDiff's seconds divided by its own."""

    @property
    def cells(self) -> list[str]:
        """The cells of :data:`HEAD`, without the name."""
        ratios = [f"{self.share:.3f}", f"{self.faster:.1f}", f"{self.than_skipdiff:.2f}"]
        return [str(self.evaluations), f"{self.seconds:.3f}", *ratios]


def ways(model: FrozenModel, start: int, trained: Mapping[str, FrozenModel]) -> dict[str, SAMPLER]:
    """Return the samplers to compare, by name.

    Args:
        model: model of SkipDiff and the full chain, which are the last two.
        start: start of SkipDiff.
        trained: models of ``ccsr`` and ``addsr``, if they exist.
    """
    found: dict[str, SAMPLER] = {}
    if ccsr := trained.get("ccsr"):
        found["CCSR, 1 step, no refiner"] = SkipDiffSampler(ccsr, refiner=None), "ccsr:1"
        for steps in (1, 2):
            name = f"CCSR, {steps} step{'s' * (steps > 1)}"
            found[f"{name} and the refiner" if ccsr.config.refiner else name] = (
                SkipDiffSampler(ccsr),
                f"ccsr:{steps}",
            )
    if addsr := trained.get("addsr"):
        found |= {
            f"AddSR, {steps} step{'s' * (steps > 1)}": (SkipDiffSampler(addsr), f"addsr:{steps}")
            for steps in (1, 4)
        }
    found |= {name: (SkipDiffSampler(model), plan) for plan, name in _plans(model).items()}
    found[f"SkipDiff (10, {model.schedule.steps // 10}), start {start}"] = SkipDiffSampler(model, 10), start
    found["full chain"] = SkipDiffSampler(model, model.schedule.steps, 0), None
    return found


def _plans(model: FrozenModel) -> dict[Plan, str]:
    """Return the plans that ship with a model, and those that its efforts run, with their names."""
    names = {
        plan: f"plan of {count} evaluation{'s' * (count > 1)}" for count, plan in shipped_plans(model).items()
    }
    words: dict[Plan, list[str]] = {}
    for effort, chain in efforts(model).items():
        if isinstance(chain, Plan):
            names.setdefault(chain, f"another plan of {len(chain.calls)} evaluations")
            words.setdefault(chain, []).append(effort)
    return {
        plan: f"{name} ({', '.join(words[plan])} effort)" if plan in words else name
        for plan, name in names.items()
    }


def few_step_speed(
    model: FrozenModel, start: int, trained: Mapping[str, FrozenModel], repeats: int, size: int = 256
) -> dict[str, Cost]:
    """Measure the cost of :func:`ways` on one photograph of ``size`` pixels, without loading and files."""
    size -= size % model.scale
    lr = shrink(demo_photograph()[:size, :size], model.scale)
    compared = ways(model, start, trained)
    for sampler, policy in [*compared.values()][:-1]:
        sampler(lr, policy)  # a warm-up, for everything that is done only once
    rounds = [
        {name: sampler(lr, policy).trace[0] for name, (sampler, policy) in compared.items()}
        for _ in range(repeats)
    ]
    *_, skipdiff, chain = compared
    return {
        name: Cost(
            rounds[0][name].evaluations,
            statistics.median(traces[name].seconds for traces in rounds),
            statistics.median(traces[name].seconds / traces[chain].seconds for traces in rounds),
            statistics.median(traces[chain].seconds / traces[name].seconds for traces in rounds),
            statistics.median(traces[skipdiff].seconds / traces[name].seconds for traces in rounds),
        )
        for name in compared
    }
