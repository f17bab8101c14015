"""Requests of visitors, lines of a comparison, and a cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..chains import NORMAL, Plan
from .pictures import Task

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Request:
    """The choices of a visitor, made by :meth:`Workshop.request`, which checks them."""

    task: Task
    model: str
    policy: str
    start: int
    coarse_steps: int
    seed: int
    clean: float = 1.0
    detail: float = 1.0
    effort: str = NORMAL
    plan: Plan | None = None
    """The visitor's own plan, if that is the policy."""
    notes: tuple[str, ...] = ()
    """Reasons for the choice of the model, if none was named."""


@dataclass(frozen=True)
class Line:
    """A line of the comparison at the end of a game."""

    who: str
    actions: tuple[int, ...]
    evaluations: int
    value: float
    """Value of the metric M."""
    reward: float
    """Reward by Eq. 15; 0 if M has no value."""
    regret: float


class Recent(OrderedDict[K, V], Generic[K, V]):
    """A cache of the ``most`` most recently used values."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)

    def get_or(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of a key, which is made and kept if there is none."""
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        return self[key]
