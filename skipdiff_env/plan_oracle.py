"""The best chain of network calls for a picture, found by trying every outcome of SkipDiff-v1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import comb
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from .chains.plan import Plan
from .diffusion import Call, CallProcess, CallState, as_model
from .diffusion.calls import ETAS, TOLD, checked_levels
from .diffusion.protocol import DiffusionModel
from .errors import SkipDiffError, whole_number
from .metrics import or_zero
from .subject import Subject


@dataclass(frozen=True)
class PlanOutcome:
    """The result of one sequence of calls."""

    plan: Plan
    value: float
    """The metric M of the result; NaN if it cannot be computed."""
    worth: float
    """-ln M, or ln M if high values of M are good; 0 if it cannot be computed."""

    @property
    def evaluations(self) -> int:
        """Number of network calls."""
        return len(self.plan.calls)


@dataclass(frozen=True)
class PlanOptimum:
    """Every outcome on one picture under one noise seed."""

    outcomes: tuple[PlanOutcome, ...]
    calls: int
    """Number of network calls that the search took."""

    def best(self, price: float = 0.0) -> PlanOutcome:
        """Return the outcome with the highest return if a network call costs ``price``; among equals, the
        cheapest."""
        return max(self.outcomes, key=lambda o: (o.worth - price * o.evaluations, -o.evaluations))

    def regret(self, reward: float, price: float = 0.0) -> float:
        """Compute the best return at this price minus ``reward``, 0 or more."""
        best = self.best(price)
        return best.worth - price * best.evaluations - reward


class _Node(NamedTuple):
    """Latents that are reached after the same number of calls, and the calls that lead to each."""

    state: CallState
    calls: list[tuple[Call, ...]]


def optimum_plan_calls(levels: int, budget: int, actions: Literal["jump", "full"] = "jump") -> int:
    """Return the maximum number of network calls that :func:`find_optimal_plan` makes with ``levels`` levels
    between T and 0.

    Under ``jump``, the network is told the level reached, and one estimate serves all next levels, so there
    is one call for every set of fewer than ``budget`` levels. Under ``full``, there are three estimates of
    each latent, and three values of η for every next level.
    """
    sets = (comb(levels, passed) for passed in range(budget))
    if actions == "jump":
        return sum(sets)
    return sum(len(TOLD) * count * (len(TOLD) * len(ETAS)) ** passed for passed, count in enumerate(sets))


def find_optimal_plan(
    model: DiffusionModel,
    image: Any,
    noise_seed: int = 0,
    metric: Any = "lpips",
    budget: int = 4,
    levels: Sequence[float] | None = None,
    actions: Literal["jump", "full"] = "jump",
    low_resolution: bool = False,
    max_calls: int = 2000,
    batch_size: int = 16,
) -> PlanOptimum:
    """Find every outcome that the actions of SkipDiff-v1 can reach on one picture under one noise seed.

    Args:
        model: a :class:`.FrozenModel`, or any object with ``predict`` and a ``schedule``; see
            :class:`.DiffusionModel`.
        image: the HR image (uint8 (H, W, 3), a PIL image or a tensor), which is shrunk to the LR input; with
            ``low_resolution``, the LR input itself.
        noise_seed: seed that determines all noise, as ``info["noise_seed"]`` of the environment does.
        metric: the metric M to optimise; see :func:`skipdiff_env.metrics.load_metric`.
        budget: maximum number of network calls in a chain.
        levels, actions: as in ``SkipDiff-v1``.
        low_resolution: whether ``image`` is the LR input itself. Metrics that need an HR image are then
            refused.
        max_calls: maximum number of network calls in total; a search that may take more is refused.
        batch_size: maximum number of rows per network call.

    Raises:
        SkipDiffError: if the search may take too many calls (the message says how many), or the metric needs
            an HR image and none is given.
    """
    model = as_model(model)
    grid = checked_levels(levels, model.schedule.steps)
    needed = optimum_plan_calls(len(grid) - 1, whole_number("budget", budget, 1), actions)
    if needed > max_calls:
        raise SkipDiffError(
            f"the search (budget: {budget}, levels above 0: {len(grid) - 1}) takes up to {needed} calls, "
            f"more than max_calls={max_calls}: allow more, or give fewer levels or a smaller budget"
        )
    subject, process = Subject.open(model, image, noise_seed, metric, low_resolution), CallProcess(model)
    start = process.start(subject.condition, subject.keys)
    outcomes, spent = [], 0
    for x0, calls in _ends(process, _Node(start, [()]), grid, actions == "full", budget, batch_size):
        spent += len(calls)
        values = subject.scores(x0)
        worth = or_zero(subject.metric.worth(values))
        for made, value, gained in zip(calls, values.tolist(), worth.tolist(), strict=True):
            outcomes.append(PlanOutcome(Plan(model.schedule.steps, made), value, gained))
    return PlanOptimum(tuple(outcomes), spent)


def _ends(
    process: CallProcess, node: _Node, grid: Sequence[float], full: bool, budget: int, batch: int
) -> Iterator[tuple[Tensor, list[tuple[Call, ...]]]]:
    """Yield the estimates that chains may end with, and the calls that lead to each, depth first."""
    for share in TOLD if full else TOLD[:1]:
        for first in range(0, len(node.state), batch):
            rows = np.arange(len(node.state))[first : first + batch]
            state = node.state.select(rows)
            told = share * state.level
            x0 = process.predict(state, told)
            made = [node.calls[row] for row in rows]
            yield x0, [(*calls, Call(level, 0.0)) for calls, level in zip(made, told.tolist(), strict=True)]
            if len(made[0]) < budget - 1:
                after = _after(process, _Node(state, made), told, x0, grid, full)
                if after:
                    yield from _ends(process, after, grid, full, budget, batch)


def _after(
    process: CallProcess, node: _Node, told: np.ndarray, x0: Tensor, grid: Sequence[float], full: bool
) -> _Node | None:
    """Return all latents that one more call can lead to; None if there is no level between the told ones and
    0."""
    moves = [
        (row, level, eta)
        for row, (level, eta) in product(range(len(told)), product(grid[:-1], ETAS if full else ETAS[:1]))
        if level < told[row]
    ]
    if not moves:
        return None
    rows, to, eta = (np.array(column) for column in zip(*moves, strict=True))
    state = process.call(node.state.select(rows), told[rows], to, eta, x0=x0[rows.tolist()])
    calls = [(*node.calls[row], Call(float(told[row]), float(level), float(e))) for row, level, e in moves]
    return _Node(state, calls)
