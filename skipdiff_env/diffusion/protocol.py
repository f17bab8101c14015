"""Anybody's model: what must be there, and what the rest is unless it says otherwise."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from ..errors import SkipDiffError
from .model import DiffusionModel, bicubic_condition

REQUIRED = ("predict", "schedule")
SCALE = 4
"""Enlargement factor of models that name none."""


def as_model(model: Any) -> DiffusionModel:
    """``model`` itself if it has all of :class:`DiffusionModel`, else one that adds what is missing.

    Args:
        model: any object with ``predict`` and a ``schedule``. ``scale`` is 4 unless it says otherwise,
            ``condition`` the bicubic enlargement, and ``to_latent`` the image itself. Its further
            members (``device``, ``image_size``, ``hash`` …) stay within reach.

    Raises:
        SkipDiffError: naming what is missing, if ``predict`` or ``schedule`` is.
    """
    for name in REQUIRED:
        if not hasattr(model, name):
            raise SkipDiffError(
                f"a {type(model).__name__} is no model, for it has no {name!r}: give a name, a folder, or an "
                "object with predict(latent, condition, noise_level) and a schedule"
            )
    if all(hasattr(model, name) for name in ("scale", "condition", "to_latent")):
        return cast(DiffusionModel, model)
    return cast(DiffusionModel, _Completed(model))


class _Completed:
    """A model with the usual answers to what it leaves open."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.scale: int = getattr(model, "scale", SCALE)
        self.condition = getattr(model, "condition", self._bicubic)
        self.to_latent = getattr(model, "to_latent", lambda image, condition: image)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_model"], name)

    def _bicubic(self, lr: Tensor) -> Tensor:
        device = torch.device(getattr(self._model, "device", "cpu"))
        return bicubic_condition(lr.to(device), self.scale)
