"""The best schedule for an image and a noise seed, found by trying all distinct schedules.

Under one noise seed, a latent is determined by the levels at which it was denoised (the state's ``history``).
The walk below branches into skip and denoise at every level above 1 and keeps one row for each distinct
history, so no latent is computed twice. With S coarse steps and F fine levels, this takes, after the S - 1
calls of CSA, F(F + 1)/2 calls for F outcomes under ``reset``, where a skip discards the history, and 2^F - 1
calls for 2^(F-1) outcomes under ``hold``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .diffusion import DENOISE, SKIP, SkipProcess, SkipState, as_model
from .diffusion.process import SkipRule
from .diffusion.protocol import DiffusionModel
from .errors import SkipDiffError
from .metrics import or_zero
from .subject import Subject


@dataclass(frozen=True)
class Outcome:
    """A schedule and its result. Of all schedules with this result, it is the cheapest."""

    actions: tuple[int, ...]
    """F - 1 actions, level F first: 0 = denoise, 1 = skip."""
    value: float
    """The metric M of the result; NaN if it cannot be computed."""
    reward: float
    """The reward in the environment without step costs: 1/M or M; 0 if it cannot be computed."""
    evaluations: int
    """Number of network calls that a sampler makes when it follows the schedule."""


@dataclass(frozen=True)
class Optimum:
    """Every outcome for an image and a noise seed."""

    outcomes: tuple[Outcome, ...]
    """All distinct results, best first; among equals, the cheaper one first."""
    calls: int
    """Number of network calls that the search took."""

    @property
    def best(self) -> Outcome:
        """The outcome with the highest reward."""
        return self.outcomes[0]

    @property
    def reward(self) -> float:
        """The highest reward that any schedule reaches."""
        return self.best.reward

    @property
    def schedule(self) -> tuple[int, ...]:
        """The actions of the best outcome."""
        return self.best.actions

    def regret(self, reward: float) -> float:
        """Compute the highest reward minus ``reward``, 0 or more."""
        return self.reward - reward


def optimum_calls(process: SkipProcess) -> int:
    """Return the number of network calls that :func:`find_optimum` makes for one image."""
    fine = process.fine_steps
    walk = fine * (fine + 1) // 2 if process.skip_rule == "reset" else 2**fine - 1
    return process.coarse_steps - 1 + walk


def find_optimum(
    model: DiffusionModel,
    image: Any,
    noise_seed: int = 0,
    metric: Any = "niqe",
    coarse_steps: int | None = None,
    fine_steps: int | None = None,
    skip_rule: SkipRule | None = None,
    low_resolution: bool = False,
    max_calls: int = 2000,
    batch_size: int = 16,
    process: SkipProcess | None = None,
    lr: np.ndarray | None = None,
) -> Optimum:
    """Find every outcome that schedules can reach on one image under one noise seed.

    Args:
        model: a :class:`.FrozenModel`, or any object with ``predict`` and a ``schedule``; see
            :class:`.DiffusionModel`.
        image: the HR image (uint8 (H, W, 3), a PIL image or a tensor), which is shrunk to the LR input; with
            ``low_resolution``, the LR input itself.
        noise_seed: seed that determines all noise, as ``info["noise_seed"]`` of the environment does.
        metric: the metric M to optimise; see :func:`skipdiff_env.metrics.load_metric`.
        coarse_steps, fine_steps, skip_rule: as in :class:`SkipProcess`; None: 10, T/S and ``"reset"``.
        low_resolution: whether ``image`` is the LR input itself. Metrics that need an HR image are then
            refused.
        max_calls: maximum number of network calls; a longer search is refused.
        batch_size: maximum number of rows per network call.
        process: process to use, for instance one with a cache, instead of the steps and the rule above.
        lr: the LR input, uint8 (h, w, 3), if it is not simply the shrunk ``image`` but, for example, a
            degraded version.

    Raises:
        SkipDiffError: if there is nothing to decide, the search takes too many calls (the message says how
            many), the metric needs an HR image and none is given, or both a process and its steps or rule
            are given.
    """
    model = as_model(model)
    if process is None:
        coarse_steps = 10 if coarse_steps is None else coarse_steps
        process = SkipProcess(model, coarse_steps, fine_steps, "reset" if skip_rule is None else skip_rule)
    elif (coarse_steps, fine_steps, skip_rule) != (None, None, None):
        raise SkipDiffError(
            "process= has steps and a rule of its own: leave out coarse_steps, fine_steps and skip_rule"
        )
    needed = optimum_calls(process)
    if process.decisions < 1:
        raise SkipDiffError(f"fine_steps={process.fine_steps} leaves nothing to decide: give 2 or more")
    if needed > max_calls:
        raise SkipDiffError(
            f"the optimum at F = {process.fine_steps} under {process.skip_rule!r} takes {needed} network "
            f"calls, more than max_calls={max_calls}: allow more, or use a smaller fine_steps"
        )
    subject = Subject.open(model, image, noise_seed, metric, low_resolution, lr)
    start = process.start(subject.condition, subject.keys)
    outcomes, calls = [], process.coarse_steps - 1
    for final, schedules, spent in walk(process, start, batch_size):
        calls += spent
        values = subject.scores(final.x0)
        rewards = or_zero(subject.metric.rewards(values))
        for actions, *numbers in zip(schedules, values, rewards, final.evaluations, strict=True):
            value, reward, evaluations = (n.item() for n in numbers)
            outcomes.append(Outcome(actions, value, reward, evaluations))
    outcomes.sort(key=lambda o: (-o.reward, o.evaluations))
    return Optimum(tuple(outcomes), calls)


Schedules = list[tuple[int, ...]]
Visit = Callable[[SkipState], None]


def walk(
    process: SkipProcess, start: SkipState, batch_size: int = 16, visit: Visit | None = None
) -> Iterator[tuple[SkipState, Schedules, int]]:
    """Yield every outcome of one image, depth first.

    Args:
        process: the process whose schedules are tried.
        start: the state that the process's ``start()`` returned, with one row.
        batch_size: maximum number of rows per network call.
        visit: function that is called with every batch of states at which there is a decision. The same
            history may occur in several batches.

    Yields:
        A batch of finished states, the cheapest actions that lead to each of them, and the number of network
        calls since the last yield.
    """
    yield from _walk(process, start, [()], max(batch_size, 1), visit)


def _walk(
    process: SkipProcess, state: SkipState, schedules: Schedules, batch: int, visit: Visit | None
) -> Iterator[tuple[SkipState, Schedules, int]]:
    if visit and state.level[0] > 1:
        visit(state)
    parts = [np.arange(len(state))[first : first + batch] for first in range(0, len(state), batch)]
    if state.level[0] == 1:
        for rows in parts:
            yield process.finish(state.select(rows)), [schedules[row] for row in rows], len(rows)
        return
    twice = np.tile(np.arange(len(state)), 2)
    both = process.step(state.select(twice), [SKIP] * len(twice))
    for rows in parts:
        both = both.replace(len(state) + rows, process.step(state.select(rows), [DENOISE] * len(rows)))
    extended = [(*s, action) for action in (SKIP, DENOISE) for s in schedules]
    # Rows with the same history have the same latent. Skips come first, so the first row is the cheapest.
    distinct = list({past: row for row, past in reversed(list(enumerate(both.history)))}.values())
    distinct.sort()
    spent = len(state)
    # Under reset, the histories of all rows merge again, so rows stay together and only calls are split.
    width = len(distinct) if process.skip_rule == "reset" else batch
    for first in range(0, len(distinct), width):
        chosen = distinct[first : first + width]
        for final, actions, calls in _walk(
            process, both.select(chosen), [extended[i] for i in chosen], batch, visit
        ):
            yield final, actions, calls + spent
            spent = 0
