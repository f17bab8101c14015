"""The books of episodes: their decisions, costs, rewards and infos.

Environments that play episodes and those that look up recorded ones keep the same books. The functions in
this module also evaluate schedules outside episodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..diffusion import DENOISE, SKIP
from ..metrics import or_zero

CALLS = {DENOISE: 1, SKIP: 0}
"""Number of network evaluations that each action takes."""

OPEN = -1
"""Placeholder in a schedule for a decision that has not been taken yet."""

UNKNOWN = -1.0
"""Placeholder in infos for a number that is known only at the end. It is not NaN, because NaN does not equal
itself and Gymnasium's checker requires equal steps to return equal infos."""

OUTCOME: dict[str, Any] = {"metric": UNKNOWN, "reward_valid": False, "psnr": UNKNOWN, "ssim": UNKNOWN}
"""Info keys whose values are known only at the end of an episode, with placeholders until then."""

Rows = Sequence[int] | np.ndarray


def refinements(actions: Any) -> Any:
    """Count the evaluations of schedules after CSA: those of the actions and, once all are taken, that of the
    last step.

    Args:
        actions: schedules, (..., F - 1), level F first; :data:`OPEN` for decisions not taken yet.

    Returns:
        The number of evaluations, int64 (...).
    """
    schedules = np.asarray(actions)
    made = sum(calls * (schedules == action).sum(axis=-1) for action, calls in CALLS.items())
    return made + (schedules != OPEN).all(axis=-1)


def evaluations(actions: Any, coarse_steps: int) -> Any:
    """Count all network evaluations of schedules (..., F - 1) with S = ``coarse_steps``, int64 (...)."""
    return coarse_steps - 1 + refinements(actions)


def paid(reward: Any, actions: Any, price: Any) -> Any:
    """Compute the return of episodes: the reward of the result minus the price of the evaluations after CSA.

    Those of CSA are free, since they do not depend on the decisions.

    Args:
        reward: rewards of the results, (...).
        actions: schedules, (..., F - 1).
        price: price of an evaluation, (...).
    """
    return reward - price * refinements(actions)


def draw_price(step_cost: float | tuple[float, float], rng: np.random.Generator) -> float:
    """Return an episode's price. From a range, it is drawn log-uniformly, so that low prices are not
    rare."""
    if isinstance(step_cost, tuple):
        return float(np.exp(rng.uniform(*np.log(step_cost))))
    return step_cost


class Ledger(ABC):
    """The ledger of ``count`` parallel episodes, one per row; rows may be at different levels.

    Args:
        count: number of rows.
        outcome: info keys whose values are known only at the end, with placeholders until then
            (numbers, bools or arrays). ``reward_valid`` must be one of them.

    Attributes:
        image, noise_seed: image index and noise seed, which determine each episode, int64 (count,).
        price: price of an evaluation, float64 (count,).
        outcome: values of the outcome by name, each (count, ...).
    """

    def __init__(self, count: int, outcome: Mapping[str, Any]) -> None:
        self._unknown = dict(outcome)
        self.image, self.noise_seed = np.zeros((2, count), np.int64)
        self.price = np.zeros(count)
        self.outcome = {name: np.stack([np.asarray(value)] * count) for name, value in outcome.items()}

    @property
    @abstractmethod
    def taken(self) -> np.ndarray:
        """Number of decisions so far, int64 (count,)."""

    @abstractmethod
    def _columns(self) -> dict[str, np.ndarray]:
        """Return the columns of the info by name, each (count, ...)."""

    def begin(self, rows: Rows, image: Any, noise_seed: Any, price: Any) -> None:
        """Open new episodes in ``rows``; the other arguments are one value for all or one for each."""
        self.image[rows], self.noise_seed[rows], self.price[rows] = image, noise_seed, price
        for name, value in self._unknown.items():
            self.outcome[name][rows] = value

    def finish(self, rows: Rows, quality: np.ndarray, **scores: np.ndarray) -> np.ndarray:
        """Enter the outcomes of ``rows``.

        Args:
            rows: rows whose last decision has been taken.
            quality: rewards of the results or, in SkipDiff-v1, their worths, (len(rows),); NaN where they
                cannot be computed.
            scores: the rest of the outcome, each (len(rows), ...).

        Returns:
            ``quality`` with 0 in place of NaN, float64 (len(rows),).
        """
        for name, values in {**scores, "reward_valid": np.isfinite(quality)}.items():
            self.outcome[name][rows] = values
        return or_zero(quality)

    def info(self, row: int) -> dict[str, Any]:
        """Return the info of a row, as plain numbers and new arrays."""
        return {
            name: column[row].item() if column.ndim == 1 else column[row].copy()
            for name, column in self._columns().items()
        }

    def infos(self, rows: Rows) -> dict[str, Any]:
        """Return the infos of ``rows`` in Gymnasium's layout: under each name, a new array (count, ...) that
        is 0 in all other rows; under ``_name``, the mask of ``rows``."""
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
        actions: int8 (count, F - 1); :data:`OPEN` for decisions not taken yet.
    """

    def __init__(self, count: int, coarse_steps: int, decisions: int, outcome: Mapping[str, Any]) -> None:
        super().__init__(count, outcome)
        self._coarse_steps = coarse_steps
        self.actions = np.full((count, decisions), OPEN, np.int8)

    @property
    def evaluations(self) -> np.ndarray:
        """Number of network evaluations so far, including those of CSA, int64 (count,)."""
        return evaluations(self.actions, self._coarse_steps)

    @property
    def taken(self) -> np.ndarray:
        """Number of decisions so far, int64 (count,)."""
        return (self.actions != OPEN).sum(axis=1)

    def begin(self, rows: Rows, image: Any, noise_seed: Any, price: Any) -> None:
        """Open new episodes in ``rows``; the other arguments are one value for all or one for each."""
        super().begin(rows, image, noise_seed, price)
        self.actions[rows] = OPEN

    def decide(self, rows: Rows, actions: Any) -> np.ndarray:
        """Enter an action in each of ``rows``.

        Returns:
            The rewards of the step without the rewards of results, float64 (len(rows),): minus the price of
            the step's evaluations.
        """
        before = refinements(self.actions[rows])
        self.actions[rows, self.taken[rows]] = actions
        return -self.price[rows] * (refinements(self.actions[rows]) - before) + 0.0  # no -0.0

    def observation(self, priced: bool) -> dict[str, np.ndarray]:
        """Return the entries of a dictionary observation other than pictures: ``step``, int64 (count,), and
        ``step_cost``, float32 (count, 1), if episodes draw their prices."""
        prices = {"step_cost": self.price[:, None].astype(np.float32)} if priced else {}
        return {"step": self.taken} | prices

    def _columns(self) -> dict[str, np.ndarray]:
        return {
            "evaluations": self.evaluations, "actions": self.actions, "image": self.image,
            "noise_seed": self.noise_seed, "step_cost": self.price, **self.outcome,
        }  # fmt: skip
