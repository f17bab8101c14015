"""What everything that drives a model asks of it, and what the answers are where a model leaves them open."""

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
    """A frozen model. An object of yours needs only ``predict`` and ``schedule``, see :func:`as_model`."""

    schedule: NoiseSchedule

    @property
    def scale(self) -> int:
        """Enlargement factor; 4 unless the model says otherwise."""

    @property
    def device(self) -> torch.device:
        """Where it computes; the CPU unless it says otherwise."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in; float32 unless it says otherwise."""

    @property
    def name(self) -> str:
        """How people call it; its class unless it says otherwise."""

    @property
    def hash(self) -> str:
        """Identity of its weights, by which caches and agents know it; empty if it has none."""

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from, and where its agent and its refiner lie; None for nowhere."""

    @property
    def image_size(self) -> int | None:
        """Side of the HR images that it is meant for, in pixels; None if it does not say."""

    @property
    def start(self) -> int | None:
        """FSR's start at S = 10 that did best on validation images; None if it does not say."""

    @property
    def chain(self) -> str | None:
        """The chain that it was made for, such as ``ccsr:2``; None for CSA and FSR."""

    @property
    def coarse_levels(self) -> CoarseRule:
        """Where CSA's topmost level lies, see :meth:`NoiseSchedule.coarse`."""

    def condition(self, lr: Tensor) -> Tensor:
        """uint8 (B, 3, h, w) → the condition c, float32 (B, 3, h·scale, w·scale) in [-1, 1]."""

    def predict(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """Latent and condition (B, 3, H, W), √ᾱ (B,) → x̂0 (B, 3, H, W) in image space, [-1, 1]."""

    def to_latent(self, image: Tensor, condition: Tensor) -> Tensor:
        """Image in [-1, 1] → what the chain is made of at level 0; both (B, 3, H, W)."""


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
"""What holds for a model that does not say otherwise."""
COMPUTED = ("name", "condition", "to_latent")


def as_model(model: Any) -> DiffusionModel:
    """``model`` itself if it has all of :class:`DiffusionModel`, else one that adds what is missing.

    Args:
        model: any object with ``predict`` and a ``schedule``. ``condition`` is the bicubic enlargement and
            ``to_latent`` the image itself unless it says otherwise; for the rest see :data:`USUAL`. Its
            further members stay within reach.

    Raises:
        SkipDiffError: naming what is missing, if ``predict`` or ``schedule`` is.
    """
    if isinstance(model, str | os.PathLike):
        raise SkipDiffError(f"{os.fspath(model)!r} names a model: give load_pretrained of it")
    for name in REQUIRED:
        if not hasattr(model, name):
            raise SkipDiffError(
                f"a {type(model).__name__} is no model, for it lacks {name!r}: give a loaded one, or "
                "an object with predict(latent, condition, noise_level) and a schedule"
            )
    if all(hasattr(model, name) for name in (*USUAL, *COMPUTED)):
        return cast(DiffusionModel, model)
    return cast(DiffusionModel, _Completed(model))


class _Completed:
    """A model with the usual answers to what it leaves open."""

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
    """What the chain of an image target is made of."""
    return image
