"""What visitors ask for and get, as values."""

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
    """What a visitor has chosen; made by :meth:`Workshop.request`, which checks it."""

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
    """What the visitor has written, if that is the policy."""
    notes: tuple[str, ...] = ()
    """Why this model, where none was named."""


@dataclass(frozen=True)
class Line:
    """A line of the comparison at the end of a game."""

    who: str
    actions: tuple[int, ...]
    evaluations: int
    value: float
    """The metric M."""
    reward: float
    """Eq. 15, 0 where M has no meaning."""
    regret: float


class Recent(OrderedDict[K, V], Generic[K, V]):
    """The newest few of what was made."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get_or(self, key: K, make: Callable[[], V]) -> V:
        """What is there under a key, or is made now and kept."""
        if key not in self:
            value = make()
            self[key] = value
            while len(self) > self.most:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]
