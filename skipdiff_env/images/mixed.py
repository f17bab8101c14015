"""Photographs of mixed quality: clean, compressed, noisy and blurred inputs in one source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .io import RGB8
from .sources import ImageSource

KINDS = ("clean", "jpeg", "noise", "blur")
"""Kinds of degradation; image number i has kind number i modulo 4."""
JPEG, NOISE, BLUR = (30.0, 95.0), (2.0, 15.0), (0.4, 1.2)
"""Ranges of JPEG quality, of σ of Gaussian noise in grey levels, and of σ of Gaussian blur in LR pixels."""


def kind(index: int) -> str:
    """Return the kind of degradation of image ``index``."""
    return KINDS[index % len(KINDS)]


@dataclass(frozen=True)
class MixedQuality:
    """Degrades LR images, uint8 (h, w, 3): each index has its own kind and strength.

    Args:
        seed: seed of strengths and noise, which are functions of it and the index.
    """

    seed: int = 0

    def __call__(self, lr: RGB8, index: int) -> RGB8:
        """Degrade the LR image number ``index``."""
        chosen = kind(index)
        if chosen == "clean":
            return lr
        from ..diffusion import degradations

        rng = np.random.default_rng([self.seed, index])
        low, high = {"jpeg": JPEG, "noise": NOISE, "blur": BLUR}[chosen]
        pixels, strength = lr.astype(np.float32), rng.uniform(low, high)
        if chosen == "blur":
            pixels = degradations.blurred(pixels, degradations.gaussian_kernel(strength))
        elif chosen == "noise":
            pixels = degradations.noisy(pixels, strength, rng)
        else:
            pixels = degradations.jpeg(pixels, round(strength))
        return degradations.to_bytes(pixels)


def mixed_quality(source: ImageSource, seed: int = 0, every_kind: bool = False) -> ImageSource:
    """Return the images of a source with inputs of mixed quality, for ``images=`` of an environment.

    Args:
        source: source of originals, see :func:`.open_source`.
        seed: seed of the degradations, see :class:`MixedQuality`.
        every_kind: whether each image appears once in every kind, which makes four times as many images,
            instead of in only one.
    """
    return (source.repeated(KINDS) if every_kind else source).degraded(MixedQuality(seed))
