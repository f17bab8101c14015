"""The books of SkipDiff-v1's episodes, and the meaning of their actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..diffusion.calls import ETAS, TOLD
from .books import OPEN, Ledger, Rows


class CallChoices:
    """The meaning of each action: the told level, the level that the call leads to, and η.

    Args:
        levels: levels that calls may lead to, descending to 0.
        full: whether the told level and η are also chosen.
        budget: maximum number of network calls in an episode.

    Attributes:
        share, to, eta: the told level as a share of the level reached, the next level, and η of each action,
            float64 (actions,).
    """

    def __init__(self, levels: Sequence[float], full: bool, budget: int) -> None:
        told, eta = (TOLD, ETAS) if full else ((1.0,), (0.0,))
        grid = np.array([(r, u, e) for r in told for u in levels for e in eta], np.float64)
        self.share, self.to, self.eta = grid.T
        self._levels, self._budget = np.array(levels, np.float64), budget

    def __len__(self) -> int:
        return len(self.to)

    def mask(self, reached: np.ndarray, spent: np.ndarray) -> np.ndarray:
        """Compute which actions are allowed, bool (B, actions), for levels reached and evaluations spent,
        each (B,).

        An action must lead below the told level and, if it is the last call, to 0. Once the episode is over,
        all actions are allowed.
        """
        below = self.to < self.share * reached[:, None]
        last = (spent >= self._budget - 1)[:, None]
        return (below & (~last | (self.to == 0))) | (reached == 0)[:, None]

    def calls(
        self, actions: np.ndarray, reached: np.ndarray, spent: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the told level, the next level and η of one action per row, each float64 (B,).

        An action that is not allowed leads to the next level below the told one, or to 0 if it is the last
        call.
        """
        told = self.share[actions] * reached
        allowed = self.mask(reached, spent)[np.arange(len(actions)), actions]
        next_below = np.array([self._levels[self._levels < level][0] for level in told])
        instead = np.where(spent >= self._budget - 1, 0.0, next_below)
        return told, np.where(allowed, self.to[actions], instead), self.eta[actions]


class CallBooks(Ledger):
    """The ledger of SkipDiff-v1.

    Args:
        count: number of rows.
        longest: maximum number of calls in an episode.
        actions: number of actions in the action space.
        outcome: see :class:`.Ledger`.

    Attributes:
        calls: told level, next level and η of every call, float32 (count, longest, 3); :data:`.OPEN` for
            calls to come.
        evaluations: network calls so far, int64 (count,).
        worth: -ln M (ln M if a higher M is better) of the newest x̂0 that has a score, float64 (count,); 0
            before the first call, and at the end if the result has no score.
        mask: int8 (count, actions), 1 for the actions that are allowed.
    """

    def __init__(self, count: int, longest: int, actions: int, outcome: Mapping[str, Any]) -> None:
        super().__init__(count, outcome)
        self.calls = np.full((count, longest, 3), OPEN, np.float32)
        self.evaluations, self._decisions = np.zeros((2, count), np.int64)
        self.worth = np.zeros(count)
        self.mask = np.ones((count, actions), np.int8)

    @property
    def taken(self) -> np.ndarray:
        """Number of decisions so far, int64 (count,)."""
        return self._decisions

    def begin(self, rows: Rows, image: Any, noise_seed: Any, price: Any) -> None:
        """Open new episodes in ``rows``."""
        super().begin(rows, image, noise_seed, price)
        self.calls[rows], self.evaluations[rows], self._decisions[rows], self.worth[rows] = OPEN, 0, 0, 0.0

    def call(self, rows: Rows, told: np.ndarray, to: np.ndarray, eta: np.ndarray) -> None:
        """Enter a network call for each of ``rows``."""
        self.calls[rows, self.evaluations[rows]] = np.stack([told, to, eta], axis=1)
        self.evaluations[rows] += 1

    def decide(self, rows: Rows, worth: np.ndarray, calls: np.ndarray) -> np.ndarray:
        """Enter a decision for each of ``rows``, with the worth of its picture and its number of calls.

        Returns:
            The rewards: the gain in worth minus the price of the calls, float64 (len(rows),).
        """
        gained = worth - self.worth[rows]
        self.worth[rows] = worth
        self._decisions[rows] += 1
        return gained - self.price[rows] * calls + 0.0  # no -0.0

    def _columns(self) -> dict[str, np.ndarray]:
        return {
            "evaluations": self.evaluations, "calls": self.calls, "image": self.image,
            "noise_seed": self.noise_seed, "step_cost": self.price, "action_mask": self.mask, **self.outcome,
        }  # fmt: skip
