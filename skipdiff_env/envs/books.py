"""The books of episodes: what was decided, what it costs, what is paid and what is told.

The environment that plays and the one that looks recorded episodes up keep the same books, and whoever
judges a schedule afterwards reckons with the same two functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..diffusion import DENOISE, SKIP

CALLS = {DENOISE: 1, SKIP: 0}
"""Network evaluations that each action makes."""

OPEN = -1
"""Stands in a schedule where nothing is decided yet."""

UNKNOWN = -1.0
"""What infos say of a number that is known at the end only. NaN is not equal to itself, and Gymnasium's
checker wants equal infos of equal steps."""

OUTCOME: dict[str, Any] = {"metric": UNKNOWN, "reward_valid": False, "psnr": UNKNOWN, "ssim": UNKNOWN}
"""What is known at the end of every episode, and what stands for it until then."""

Rows = Sequence[int] | np.ndarray


def refinements(actions: Any) -> Any:
    """Evaluations of schedules after CSA: of their actions, and of the last step once all is decided.

    Args:
        actions: (..., F - 1), level F first, :data:`OPEN` where nothing is decided yet.

    Returns:
        int64 (...).
    """
    schedules = np.asarray(actions)
    made = sum(calls * (schedules == action).sum(axis=-1) for action, calls in CALLS.items())
    return made + (schedules != OPEN).all(axis=-1)


def evaluations(actions: Any, coarse_steps: int) -> Any:
    """All network evaluations of schedules (..., F - 1) with S = ``coarse_steps``, int64 (...)."""
    return coarse_steps - 1 + refinements(actions)


def paid(reward: Any, actions: Any, price: Any) -> Any:
    """What episodes are paid in all: the reward of the result less the price of every evaluation.

    Those of CSA are free: they are the same whatever is decided.

    Args:
        reward: of the results, (...).
        actions: (..., F - 1).
        price: of an evaluation, (...).
    """
    return reward - price * refinements(actions)


def reward_of(quality: np.ndarray) -> np.ndarray:
    """What a result is paid: its quality (see :meth:`Metric.rewards`), 0 where that is no finite number."""
    return np.where(np.isfinite(quality), quality, 0.0)


def draw_price(step_cost: float | tuple[float, float], rng: np.random.Generator) -> float:
    """An episode's price: from a range, log-uniformly, since what an evaluation gains varies as widely."""
    if isinstance(step_cost, tuple):
        return float(np.exp(rng.uniform(*np.log(step_cost))))
    return step_cost


class Ledger(ABC):
    """What ``count`` episodes side by side have done; rows may be at different levels.

    Args:
        count: number of rows.
        outcome: what is known at the end only: by name, what stands for it until then (a number, a truth
            value or an array). ``reward_valid`` is among it.

    Attributes:
        image, noise_seed: int64 (count,), what replays each episode.
        price: float64 (count,), of an evaluation.
        outcome: by name, (count, ...).
    """

    def __init__(self, count: int, outcome: Mapping[str, Any]) -> None:
        self._unknown = dict(outcome)
        self.image, self.noise_seed = np.zeros((2, count), np.int64)
        self.price = np.zeros(count)
        self.outcome = {name: np.stack([np.asarray(value)] * count) for name, value in outcome.items()}

    @property
    @abstractmethod
    def taken(self) -> np.ndarray:
        """Decisions so far, int64 (count,)."""

    @abstractmethod
    def _columns(self) -> dict[str, np.ndarray]:
        """All that is told, by name, (count, ...)."""

    def begin(self, rows: Rows, image: Any, noise_seed: Any, price: Any) -> None:
        """Open new episodes in ``rows``; the others hold a value for all of them or one for each."""
        self.image[rows], self.noise_seed[rows], self.price[rows] = image, noise_seed, price
        for name, value in self._unknown.items():
            self.outcome[name][rows] = value

    def finish(self, rows: Rows, quality: np.ndarray, **scores: np.ndarray) -> np.ndarray:
        """Enter the outcomes of ``rows``.

        Args:
            rows: whose last decision was taken.
            quality: what the results are worth, NaN where that cannot be computed, (len(rows),).
            scores: the rest of the outcome, each (len(rows), ...).

        Returns:
            what the results are paid, float64 (len(rows),).
        """
        for name, values in {**scores, "reward_valid": np.isfinite(quality)}.items():
            self.outcome[name][rows] = values
        return reward_of(quality)

    def info(self, row: int) -> dict[str, Any]:
        """What is told of a row: plain numbers and fresh arrays."""
        return {
            name: column[row].item() if column.ndim == 1 else column[row].copy()
            for name, column in self._columns().items()
        }

    def infos(self, rows: Rows) -> dict[str, Any]:
        """The info of ``rows`` in Gymnasium's layout: under each name a new array (count, ...) that is 0 in
        all other rows, and under ``_name`` the mask of ``rows``."""
        told: dict[str, Any] = {}
        for name, column in self._columns().items():
            told[name], told[f"_{name}"] = np.zeros_like(column), np.zeros(len(column), np.bool_)
            told[name][rows], told[f"_{name}"][rows] = column[rows], True
        return told


class Books(Ledger):
    """The ledger of SkipDiff-v0.

    Args:
        count: number of rows.
        coarse_steps: S.
        decisions: F - 1.
        outcome: see :class:`Ledger`.

    Attributes:
        actions: int8 (count, F - 1), :data:`OPEN` where nothing is decided yet.
    """

    def __init__(self, count: int, coarse_steps: int, decisions: int, outcome: Mapping[str, Any]) -> None:
        super().__init__(count, outcome)
        self._coarse_steps = coarse_steps
        self.actions = np.full((count, decisions), OPEN, np.int8)

    @property
    def evaluations(self) -> np.ndarray:
        """Network evaluations so far, those of CSA included, int64 (count,)."""
        return evaluations(self.actions, self._coarse_steps)

    @property
    def taken(self) -> np.ndarray:
        """Decisions so far, int64 (count,)."""
        return (self.actions != OPEN).sum(axis=1)

    def begin(self, rows: Rows, image: Any, noise_seed: Any, price: Any) -> None:
        """Open new episodes in ``rows``; the others hold a value for all of them or one for each."""
        super().begin(rows, image, noise_seed, price)
        self.actions[rows] = OPEN

    def decide(self, rows: Rows, actions: Any) -> np.ndarray:
        """Enter an action in each of ``rows``.

        Returns:
            what the step is paid but for the result, float64 (len(rows),): the price of its evaluations.
        """
        before = refinements(self.actions[rows])
        self.actions[rows, self.taken[rows]] = actions
        return -self.price[rows] * (refinements(self.actions[rows]) - before) + 0.0  # no -0.0

    def observation(self, priced: bool) -> dict[str, np.ndarray]:
        """What a dictionary observation tells beside pictures: ``step``, int64 (count,), and ``step_cost``,
        float32 (count, 1), where episodes draw their prices."""
        prices = {"step_cost": self.price[:, None].astype(np.float32)} if priced else {}
        return {"step": self.taken} | prices

    def _columns(self) -> dict[str, np.ndarray]:
        return {
            "evaluations": self.evaluations, "actions": self.actions, "image": self.image,
            "noise_seed": self.noise_seed, "step_cost": self.price, **self.outcome,
        }  # fmt: skip
