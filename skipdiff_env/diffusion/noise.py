"""Noise as a function of (image, noise seed, level), independent of the order of draws.

Two runs that draw noise for the same level of the same image under the same noise seed get the same noise,
whatever they did before and whatever other images share their batch. These common random numbers make
schedules comparable and every episode replayable. Noise is drawn on the CPU, so that a seed means the same on
every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import SkipDiffError


class NoiseKey(NamedTuple):
    """All that the noise of one batch element depends on besides the level."""

    image: int
    """Identity of the low-resolution image; see :func:`image_key`."""
    seed: int
    """Noise seed, any whole number."""


def image_key(lr: np.ndarray) -> int:
    """Compute the identity of a low-resolution image, uint8 (h, w, 3): 63 bits of a hash of its
    size and pixels."""
    digest = hashlib.blake2b(repr(lr.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(lr).tobytes())
    return int.from_bytes(digest.digest(), "little") >> 1


def keyed_normal(
    keys: Sequence[NoiseKey], levels: Sequence[int], shape: Sequence[int], like: Tensor | None = None
) -> Tensor:
    """Draw standard normal noise, float32 (len(keys), *shape), independently for each key and level.

    The noise is on the device of ``like``, in memory of the same kind, or on the CPU if ``like`` is None.
    """
    near = torch.empty(0) if like is None or like.device.type != "cpu" else like
    out = near.new_empty((len(keys), *shape), dtype=torch.float32)
    for row, key, level in zip(out, keys, levels, strict=True):
        digest = hashlib.blake2b(f"{key.image}/{key.seed}/{int(level)}".encode(), digest_size=16).digest()
        # NumPy's generator, since torch's keeps only 32 bits of its seed, so different draws could coincide
        source = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))
        source.standard_normal(out=row.numpy(), dtype=np.float32)
    return out if like is None else out.to(like.device, non_blocking=True)


def first_latent(condition: Tensor, keys: Sequence[NoiseKey], steps: int) -> Tensor:
    """Draw x_T ~ N(0, I), with which every chain begins: float32 (B, 3, H, W), on the condition's device.

    Args:
        condition: c, (B, 3, H, W).
        keys: B noise keys.
        steps: T, which is also the number of the draw.

    Raises:
        SkipDiffError: if there is not one key for each image.
    """
    if len(keys) != len(condition):
        raise SkipDiffError(f"give one noise key for each image: images {len(condition)}, keys {len(keys)}")
    return keyed_normal(keys, [steps] * len(keys), condition.shape[1:], condition)
