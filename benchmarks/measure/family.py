"""Families of samplers, and the cases for which they are made."""

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
    """The model and the settings for which samplers are made."""

    model: FrozenModel
    start: int
    """The fixed start at (10, T/10)."""
    agents: Mapping[str, Path] = field(default_factory=dict)
    """Policy files by name, see :data:`.samplers.AGENT_PAIRS`."""
    budgets: frozenset[int] = frozenset()
    """Numbers of evaluations of SkipDiff; every rival is run with as many."""
    folder: Folder | None = None
    """Folder or name of the model, which may hold a refiner; None: no refiner."""
    trained: Mapping[str, Folder] = field(default_factory=dict)
    """Folders of models with weights of their own, by the family that runs them."""

    @property
    def top(self) -> int:
        """The number T of levels of the model."""
        return self.model.schedule.steps

    @cached_property
    def walks(self) -> Walks:
        """CSA and FSR on the model, with one memory for all samplers that share network calls."""
        return Walks(self.model)

    @cached_property
    def rivals(self) -> dict[str, FrozenModel]:
        """The trained models, by family.

        Raises:
            SkipDiffError: if one of them has another scale.
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
    """Its name in the legend of Figure 5 and in lists."""
    make: Callable[[Case], Iterable[Sampler]]
    """Function that makes the samplers that a case allows, in the order of their steps."""
    mark: str = "o-"
    """Matplotlib's marker and line in Figure 5; empty: not drawn."""
    colour: str = "black"
    rival: bool = True
    """Whether Table 1 or 2 shows all of it, and it is compared with SkipDiff at equal evaluations."""
    said: str = ""
    """Its name in sentences, if that is not its title."""
    borrows: Mapping[str, str] = field(default_factory=dict)
    """Keys of samplers of other families that also belong to this one → their labels here."""


def same_scale(model: FrozenModel, folder: Folder, scale: int) -> FrozenModel:
    """Return the model if its scale is that of the others.

    Raises:
        SkipDiffError: if it has another scale.
    """
    if model.scale != scale:
        raise SkipDiffError(
            f"{folder}: enlarges {model.scale} times and cannot be compared with a model that enlarges "
            f"{scale} times"
        )
    return model
