"""The interface of a model, and defaults for the members that a model may lack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ..errors import SkipDiffError
from .model import bicubic_condition
from .schedule import CoarseRule, NoiseSchedule

REQUIRED = ("predict", "schedule")


class DiffusionModel(Protocol):
    """The interface of a frozen model. Your own object needs only ``predict`` and ``schedule``; see
    :func:`as_model`."""

    schedule: NoiseSchedule

    @property
    def scale(self) -> int:
        """Enlargement factor; 4 by default."""

    @property
    def device(self) -> torch.device:
        """Device on which the model computes; the CPU by default."""

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the model computes; float32 by default."""

    @property
    def name(self) -> str:
        """Name of the model; by default that of its class."""

    @property
    def hash(self) -> str:
        """Identity of the weights, by which caches and agents recognise the model; empty by default."""

    @property
    def folder(self) -> Path | None:
        """Folder from which the model was loaded, which may hold its agent, refiner and plans; None if there
        is none."""

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the HR images that the model is meant for, or None."""

    @property
    def start(self) -> int | None:
        """The fixed start of FSR at S = 10 that did best on validation images, or None."""

    @property
    def chain(self) -> str | None:
        """The chain that the model was made for, such as ``ccsr:2``; None for CSA and FSR."""

    @property
    def coarse_levels(self) -> CoarseRule:
        """Rule for CSA's topmost level, ``strided`` by default; see :meth:`NoiseSchedule.coarse`."""

    def condition(self, lr: Tensor) -> Tensor:
        """Turn LR images, uint8 (B, 3, h, w), into the condition c, float32
        (B, 3, h·scale, w·scale) in [-1, 1]."""

    def predict(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """Estimate x̂0 in image space, [-1, 1], from the latent, the condition and √ᾱ (B,). All other tensors
        are (B, 3, H, W)."""

    def to_latent(self, image: Tensor, condition: Tensor) -> Tensor:
        """Turn an image in [-1, 1] into x_0 of the chain, both (B, 3, H, W)."""


USUAL: dict[str, Any] = {
    "scale": 4,
    "device": torch.device("cpu"),
    "dtype": torch.float32,
    "hash": "",
    "folder": None,
    "image_size": None,
    "start": None,
    "chain": None,
    "coarse_levels": "strided",
}
"""The defaults of a model's members."""
COMPUTED = ("name", "condition", "to_latent")


def as_model(model: Any) -> DiffusionModel:
    """Return ``model`` itself if it has all members of :class:`DiffusionModel`, else a wrapper with the
    defaults.

    Args:
        model: any object with ``predict`` and a ``schedule``. By default, ``condition`` returns the bicubic
            enlargement and ``to_latent`` returns the image itself; for the other defaults, see :data:`USUAL`.
            The wrapper forwards all other members to the object.

    Raises:
        SkipDiffError: if ``predict`` or ``schedule`` is missing, or ``model`` is the name or path of a model.
    """
    if isinstance(model, str | os.PathLike):
        raise SkipDiffError(f"{os.fspath(model)!r} is the name of a model: load it with load_pretrained(...)")
    for name in REQUIRED:
        if not hasattr(model, name):
            raise SkipDiffError(
                f"an object of class {type(model).__name__} is not a model, since it lacks {name!r}: "
                "give a loaded model, or an object with predict(latent, condition, noise_level) and a "
                "schedule"
            )
    if all(hasattr(model, name) for name in (*USUAL, *COMPUTED)):
        return cast(DiffusionModel, model)
    return cast(DiffusionModel, _Completed(model))


def identity_of(model: DiffusionModel, what: str) -> str:
    """Return the model's hash, which identifies its weights; ``what`` says, in messages, what needs the hash.

    Raises:
        SkipDiffError: if the model has no hash, since it could then be mistaken for another model without
            one.
    """
    if not model.hash:
        raise SkipDiffError(
            f"{what} needs a model with a hash, which tells its weights from others: give {model.name} an "
            "attribute hash, such as a digest of its weights"
        )
    return model.hash


class _Completed:
    """Wraps a model and supplies defaults for the members that it lacks."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.name: str = getattr(model, "name", type(model).__name__)
        self.device = torch.device(getattr(model, "device", USUAL["device"]))
        self.condition = getattr(model, "condition", self._bicubic)
        self.to_latent = getattr(model, "to_latent", _image)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask for these before there is a model
            raise AttributeError(name)
        model = self.__dict__["_model"]
        return getattr(model, name, USUAL[name]) if name in USUAL else getattr(model, name)

    def _bicubic(self, lr: Tensor) -> Tensor:
        return bicubic_condition(lr.to(self.device), self.scale)


def _image(image: Tensor, condition: Tensor) -> Tensor:
    """Return x_0 of a chain whose target is the image: the image itself."""
    return image
