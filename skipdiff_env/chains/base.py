"""The interface of chains, which lead from noise and a condition to a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..diffusion.calls import Call
from ..diffusion.noise import NoiseKey
from ..diffusion.process import Refine, apply_refiner
from ..diffusion.protocol import DiffusionModel
from ..diffusion.schedule import NoiseSchedule


class State(Protocol):
    """The visible state of a batch in mid-chain."""

    @property
    def latent(self) -> Tensor:
        """The latent reached, (B, 3, H, W)."""

    @property
    def x0(self) -> Tensor:
        """The newest x̂0, (B, 3, H, W) in image space."""

    @property
    def level(self) -> np.ndarray:
        """The level reached, int64 (B,), rounded if the chain's levels are not whole numbers."""

    @property
    def evaluations(self) -> np.ndarray:
        """Network calls spent on each row, int64 (B,)."""


OnState = Callable[[State], None]


@dataclass(frozen=True)
class Final:
    """The result of a chain."""

    x0: Tensor
    """The pictures, (B, 3, H, W) in [-1, 1]."""
    evaluations: np.ndarray
    """Network calls spent on each row, int64 (B,)."""
    levels: tuple[int, ...]
    """The levels visited, from T down to 0, rounded to whole numbers."""
    actions: np.ndarray
    """A policy's decisions, int8 (B, F - 1): 0 = denoise, 1 = skip; (B, 0) for chains without decisions."""
    calls: tuple[Call, ...] = ()
    """The network calls, for chains that record them."""


class Chain(ABC):
    """Turns noise and a condition into a picture. A chain is immutable and holds neither a model nor a
    state."""

    name: str
    """Name in tables and labels."""

    @abstractmethod
    def __call__(
        self,
        model: DiffusionModel,
        condition: Tensor,
        keys: Sequence[NoiseKey],
        on_state: OnState | None = None,
    ) -> Final:
        """Run the chain.

        Args:
            model: the frozen model.
            condition: c, (B, 3, H, W) in [-1, 1].
            keys: B noise keys, which determine all random numbers.
            on_state: function that is called after each level with the :class:`State` reached.
        """

    @abstractmethod
    def most_evaluations(self, schedule: NoiseSchedule) -> int:
        """Return the maximum number of network calls per picture."""

    def notice(self, model: DiffusionModel) -> str:
        """Return a warning to the user about running the chain with this model; usually empty."""
        return ""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings in a form that can be written as JSON; two chains with the same settings make the same
        pictures."""

    def __str__(self) -> str:
        return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in self.settings.items())


def described(kind: str, part: Any) -> dict[str, Any]:
    """Return the settings of a policy or refiner: its ``settings``, or else its qualified name under
    ``kind``."""
    code = part if hasattr(part, "__qualname__") else type(part)
    return getattr(part, "settings", {kind: f"{code.__module__}.{code.__qualname__}"})


def no_actions(batch: int) -> np.ndarray:
    """Return the actions of a chain without decisions, int8 (B, 0)."""
    return np.zeros((batch, 0), np.int8)


@dataclass(frozen=True)
class Around(Chain):
    """A chain that changes the result of another chain and has the same name."""

    chain: Chain

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the inner chain."""
        return self.chain.name

    def __call__(
        self,
        model: DiffusionModel,
        condition: Tensor,
        keys: Sequence[NoiseKey],
        on_state: OnState | None = None,
    ) -> Final:
        """Run the inner chain, and pass its result to :meth:`then`."""
        return self.then(self.chain(model, condition, keys, on_state), model, condition, keys)

    @abstractmethod
    def then(self, final: Final, model: DiffusionModel, condition: Tensor, keys: Sequence[NoiseKey]) -> Final:
        """Change the result of the inner chain."""

    def notice(self, model: DiffusionModel) -> str:
        """Return the notice of the inner chain."""
        return self.chain.notice(model)

    def most_evaluations(self, schedule: NoiseSchedule) -> int:
        """Return the maximum number of network calls of the inner chain."""
        return self.chain.most_evaluations(schedule)


@dataclass(frozen=True)
class Refined(Around):
    """A chain whose pictures a refiner retouches. The refiner does not count as an evaluation."""

    refine: Refine
    """Function from x̂0 and condition, both (B, 3, H, W) in [-1, 1], to the refined pictures, of the same
    shape and range."""
    about: dict[str, Any] = field(default_factory=dict)
    """The settings of the refiner."""

    def then(self, final: Final, model: DiffusionModel, condition: Tensor, keys: Sequence[NoiseKey]) -> Final:
        """Refine the pictures."""
        return replace(final, x0=apply_refiner(self.refine, final.x0, condition))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the chain and of the refiner."""
        return {**self.chain.settings, **self.about}

    def __str__(self) -> str:
        return f"{self.chain} and the refiner of {self.about.get('refiner', 'the user')}"
