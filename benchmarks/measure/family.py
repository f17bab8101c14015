"""What families of samplers are, and what they are made for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel

from .sampler import Sampler
from .walks import Walks

Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class Case:
    """What samplers are made for."""

    model: FrozenModel
    start: int
    """The fixed start at (10, T/10)."""
    agents: Mapping[str, Path] = field(default_factory=dict)
    """Policy files by name, see :data:`.samplers.AGENT_PAIRS`."""
    budgets: frozenset[int] = frozenset()
    """Evaluations that SkipDiff takes, at which every rival is to be there."""
    folder: Folder | None = None
    """Where the model comes from, for a refiner of its own."""
    trained: Mapping[str, Folder] = field(default_factory=dict)
    """Models with weights of their own, by the family that runs them."""

    @property
    def top(self) -> int:
        """T."""
        return self.model.schedule.steps

    @cached_property
    def walks(self) -> Walks:
        """CSA and FSR on the model, with one memory for all samplers that share calls."""
        return Walks(self.model)

    @cached_property
    def rivals(self) -> dict[str, FrozenModel]:
        """The trained models, by family.

        Raises:
            SkipDiffError: if one is of another scale.
        """
        device, dtype, scale = self.model.device, self.model.dtype, self.model.scale
        return {
            family: same_scale(load_pretrained(folder, device, dtype), folder, scale)
            for family, folder in self.trained.items()
        }


@dataclass(frozen=True)
class Family:
    """Samplers of one kind: an entry of :data:`.samplers.FAMILIES`."""

    name: str
    title: str
    """In the legend of Figure 5 and in lists."""
    make: Callable[[Case], Iterable[Sampler]]
    """Those of them that a case allows, in the order of their steps."""
    mark: str = "o-"
    """Matplotlib's marker and line in Figure 5; empty: it is not drawn."""
    colour: str = "black"
    rival: bool = True
    """It stands in Table 1 or 2 as a whole, and is compared with SkipDiff at as many evaluations."""
    said: str = ""
    """What sentences call it, if not by its title."""
    borrows: Mapping[str, str] = field(default_factory=dict)
    """Keys of other families' samplers that are its own, too, and their labels here."""


def same_scale(model: FrozenModel, folder: Folder, scale: int) -> FrozenModel:
    """The model, if its scale is that of the others.

    Raises:
        SkipDiffError: if not.
    """
    if model.scale != scale:
        raise SkipDiffError(
            f"{folder}: enlarges {model.scale} times and cannot be compared with a model that enlarges "
            f"{scale} times"
        )
    return model
