"""Measures how long network calls take on this machine, as the basis of all forecasts of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..chains import Chain, Refined
from ..chains.base import Around
from ..diffusion.process import Refine
from ..diffusion.protocol import DiffusionModel

CALIBRATION = 256
"""Maximum side in pixels of the image on which the speed of this machine is measured."""


class Clock:
    """Seconds that a model's networks take per pixel of the result, each measured in one call at first.

    Args:
        model: the model.
        side: side in pixels of the images or tiles that it will be given.
    """

    def __init__(self, model: DiffusionModel, side: int = CALIBRATION) -> None:
        self.model, self.side = model, min(side, CALIBRATION)
        self._refiners: dict[Refine, float] = {}

    @cached_property
    def call(self) -> float:
        """Seconds per pixel of a network call."""
        level = torch.ones(1, device=self.model.device)
        return self._timed(lambda x: self.model.predict(x, x, level))

    def learn(self, pixels: int, seconds: float) -> None:
        """Set :attr:`call` from calls on ``pixels`` pixels that took ``seconds``."""
        self.call = seconds / pixels

    def once(self, chain: Chain) -> float:
        """Return the seconds per pixel of what runs once for a picture: the model's restorer and the chain's
        refiner; 0 if there are none."""
        return self._restorer + self._refiner(chain)

    @cached_property
    def _restorer(self) -> float:
        restore = getattr(self.model, "restorer", None)
        if restore is None:
            return 0.0
        lr = torch.zeros(1, 3, *[max(1, self.side // self.model.scale)] * 2, dtype=torch.uint8)
        return self._timed(lambda x: restore(lr))

    def _refiner(self, chain: Chain) -> float:
        refine = refiner_of(chain)
        if refine is None:
            return 0.0
        if refine not in self._refiners:
            self._refiners[refine] = self._timed(lambda x: refine(x, x))
        return self._refiners[refine]

    @torch.no_grad()
    def _timed(self, function: Callable[[Tensor], Any]) -> float:
        """Return the seconds per pixel of the second of two calls, since the first includes preparations."""
        x = torch.zeros(1, 3, self.side, self.side, device=self.model.device)
        for _ in range(2):
            began = time.perf_counter()
            float(function(x).sum())  # waits for the device
            seconds = time.perf_counter() - began
        return seconds / self.side**2


def refiner_of(chain: Chain) -> Refine | None:
    """Return the refiner of a chain, or None."""
    while isinstance(chain, Around) and not isinstance(chain, Refined):
        chain = chain.chain
    return chain.refine if isinstance(chain, Refined) else None
