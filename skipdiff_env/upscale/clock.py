"""How long the calls of a network take on this machine: what every forecast of time goes by."""

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
"""Side in pixels of the image that tells how fast this machine is, at most."""


class Clock:
    """Seconds a pixel of a model's network and of refiners, each by one call until something better is known.

    Args:
        model: the model.
        side: of the images or tiles that it will be given, in pixels.
    """

    def __init__(self, model: DiffusionModel, side: int = CALIBRATION) -> None:
        self.model, self.side = model, min(side, CALIBRATION)
        self._refiners: dict[Refine, float] = {}

    @cached_property
    def call(self) -> float:
        """Seconds of a network call, a pixel."""
        level = torch.ones(1, device=self.model.device)
        return self._timed(lambda x: self.model.predict(x, x, level))

    def learn(self, pixels: int, seconds: float) -> None:
        """What calls of so many pixels took, by which :attr:`call` goes from now on."""
        self.call = seconds / pixels

    def refiner(self, chain: Chain) -> float:
        """Seconds of a chain's refiner, a pixel; 0 where it has none."""
        refine = refiner_of(chain)
        if refine is None:
            return 0.0
        if refine not in self._refiners:
            self._refiners[refine] = self._timed(lambda x: refine(x, x))
        return self._refiners[refine]

    @torch.no_grad()
    def _timed(self, function: Callable[[Tensor], Any]) -> float:
        """Seconds a pixel of the second of two calls, for the first also gets things ready."""
        x = torch.zeros(1, 3, self.side, self.side, device=self.model.device)
        for _ in range(2):
            began = time.perf_counter()
            float(function(x).sum())  # waits for the device
            seconds = time.perf_counter() - began
        return seconds / self.side**2


def refiner_of(chain: Chain) -> Refine | None:
    """What gives a chain's pictures their last touch; None if nothing does."""
    while isinstance(chain, Around) and not isinstance(chain, Refined):
        chain = chain.chain
    return chain.refine if isinstance(chain, Refined) else None
