"""Enlarges images with a model and a chain, and records how each result was made."""

from __future__ import annotations

import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from .chains import ChainSpec, OnState, parse, with_detail
from .diffusion import Call, NoiseKey, as_model, image_key, to_uint8
from .diffusion.process import SkipRule
from .diffusion.protocol import DiffusionModel
from .diffusion.refiner import OWN, RefinerSpec, is_own, resolve_refiner
from .diffusion.resize import back_project, fix_colours, to_arrays, to_planes, to_signed
from .errors import SkipDiffError, fraction


@dataclass(frozen=True)
class Trace:
    """How one image was made."""

    levels: list[int]
    """The levels visited, from T down to 0, rounded to whole numbers."""
    actions: list[int]
    """The policy's F - 1 decisions: 0 = denoise, 1 = skip. Empty for a chain without decisions."""
    evaluations: int
    """Network calls spent on the image."""
    seconds: float
    """Wall time of the batch in seconds, divided by its number of images."""
    calls: list[Call] = field(default_factory=list)
    """The network calls of a plan; empty for other chains."""


@dataclass(frozen=True)
class Samples:
    """The result of one call to the sampler."""

    images: np.ndarray
    """uint8 (B, H, W, 3)."""
    trace: list[Trace]
    """How each picture was made, one entry per picture."""
    x0: Tensor
    """The pictures before rounding to 8 bits, float32 (B, 3, H, W) in [-1, 1]."""


class SkipDiffSampler:
    """Enlarges images with a model and any chain.

    Args:
        model: a frozen model; see :func:`skipdiff_env.load_pretrained`.
        coarse_steps: number of coarse steps S, a divisor of the model's T. None: the largest divisor of T up
            to 10.
        fine_steps: number of fine levels F. None: T/S; 0: CSA alone.
        skip_rule: what a skip does, ``reset`` (Eq. 14) or ``hold``.
        refiner: network that retouches the result: ``"own"`` (the model's refiner, after the kind of chain
            that it was made for); None or ``"none"`` (no refiner); the name or folder of a model with a
            refiner; ``own`` or a name followed by a colon and a strength, such as ``"own:0.5"``; or a
            function (x̂0, condition) → image. A refiner does not count as an evaluation. See
            :mod:`.diffusion.refiner`.
        clean: share, 0 … 1, of what the model removed (noise, blocks) that stays removed; at 0, shrinking the
            result gives almost exactly the input. See :func:`.diffusion.resize.back_project`.
        colour_fix: whether to give large areas the colours of the input. See
            :func:`.diffusion.resize.fix_colours`.
        detail: share, 0 … 1, of the invented detail that is kept; 0 gives the posterior mean. Values below 1
            take one more evaluation; 0 takes only that one. See :mod:`.chains.detail`.

    Examples:
        >>> sampler = SkipDiffSampler(load_pretrained("natural-4x"))
        >>> out = sampler(lr, policy=7, seed=0)
        >>> out.images.shape, out.trace[0].evaluations
        ((1, 256, 256, 3), 16)
    """

    def __init__(
        self,
        model: DiffusionModel,
        coarse_steps: int | None = None,
        fine_steps: int | None = None,
        skip_rule: SkipRule = "reset",
        refiner: RefinerSpec = OWN,
        clean: float = 1.0,
        detail: float = 1.0,
        colour_fix: bool = False,
    ) -> None:
        self.model = as_model(model)
        self.clean, self.detail = fraction("clean", clean), fraction("detail", detail)
        self._steps = (coarse_steps, fine_steps, skip_rule)
        self.colour_fix = colour_fix
        self._refiner = refiner if is_own(refiner) else resolve_refiner(refiner, self.model)

    def __call__(
        self,
        lr: Any,
        policy: ChainSpec = None,
        seed: int | Sequence[int] = 0,
        callback: OnState | None = None,
    ) -> Samples:
        """Enlarge one image or a batch of images of the same size.

        Args:
            lr: a PIL image, uint8 (h, w, 3) or (B, h, w, 3), a tensor (3, h, w) or (B, 3, h, w), uint8 or
                float in [0, 1], or a list of single images.
            policy: a start level, ``"denoise"``, ``"skip"``, ``"random"``, ``"agent"``, the path of an
                exported agent, a callable, a chain such as ``"ccsr:2"``, a plan, an effort such as
                ``"fast"``, or None for the model's normal chain (SkipDiff if steps or a rule were given); see
                :mod:`skipdiff_env.chains.parse`. Chains and plans have their own levels, so a sampler with
                unusual steps refuses them.
            seed: noise seed, one for all images or one per image. The result of an image depends only on its
                own pixels and seed, not on its batch (except for floating-point rounding).
            callback: function that is called after every level with the :class:`.chains.State` reached.

        Raises:
            SkipDiffError: if the images have an unknown form or differ in size, the number of seeds is
                not that of the images, or the policy does not exist or does not fit the model.
        """
        images = as_batch(lr)
        each = seed if isinstance(seed, Sequence | np.ndarray) else [seed] * len(images)
        seeds = [_whole(s) for s in each]
        if len(seeds) != len(images):
            raise SkipDiffError(
                f"give one seed, or one for each image: images {len(images)}, seeds {len(seeds)}"
            )
        keys = [NoiseKey(image_key(image), s) for image, s in zip(images, seeds, strict=True)]
        chain = parse(policy, self.model, *self._steps, refiner=self._refiner)
        chain = with_detail(chain, self.detail, self.model)
        began = time.perf_counter()
        final = chain(self.model, self.model.condition(to_planes(images)), keys, callback)
        x0 = final.x0
        if self.clean < 1 or self.colour_fix:
            signed = to_signed(to_planes(images)).to(x0.device)
            x0 = fix_colours(x0, signed) if self.colour_fix else x0
            x0 = back_project(x0, signed, 1 - self.clean).clamp_(-1, 1)
        result = to_arrays(to_uint8(x0))
        seconds = (time.perf_counter() - began) / len(images)
        trace = [
            Trace(
                list(final.levels),
                final.actions[i].tolist(),
                int(final.evaluations[i]),
                seconds,
                list(final.calls),
            )
            for i in range(len(images))
        ]
        return Samples(result, trace, x0)


def as_batch(lr: Any) -> np.ndarray:
    """Turn images of any accepted form into uint8 (B, h, w, 3); see :meth:`SkipDiffSampler.__call__`."""
    from .images import to_rgb8  # here, because the model alone needs no Pillow

    if not isinstance(lr, (list, tuple)):
        lr = list(lr) if getattr(lr, "ndim", 3) == 4 else [lr]
    images = [to_rgb8(item, "the image") for item in lr]
    sizes = sorted({image.shape[:2] for image in images})
    if not sizes:
        raise SkipDiffError("there is no image in the batch: give at least one")
    if len(sizes) > 1:
        shown = ", ".join(f"{w}x{h}" for h, w in sizes)
        raise SkipDiffError(
            f"all images of a batch must have the same size, got {shown}: call once for each size"
        )
    return np.stack(images)


def _whole(seed: Any) -> int:
    """Return a noise seed, which may be any whole number, as an integer."""
    try:
        return operator.index(seed)
    except TypeError:
        raise SkipDiffError(f"seed={seed!r} must be a whole number") from None
