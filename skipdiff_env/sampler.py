"""From a low-resolution image to a high-resolution one: a process, a policy, a trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .chains.few_step import FewSteps
from .diffusion import NoiseKey, SkipProcess, SkipState, as_model, image_key, to_uint8
from .diffusion.model import DiffusionModel
from .diffusion.process import SkipRule, refined
from .diffusion.refiner import RefinerSpec, resolve_refiner
from .errors import SkipDiffError
from .policies.base import Policy, PolicySpec, resolve_chain, resolve_policy


@dataclass(frozen=True)
class Trace:
    """How one image was made."""

    levels: list[int]
    """Levels visited, from T down to 0; those of few-step chains are rounded."""
    actions: list[int]
    """The policy's F - 1 decisions: 0 = denoise, 1 = skip. None where a few-step chain ran."""
    evaluations: int
    """Network calls spent on the image."""
    seconds: float
    """Wall time of the batch, divided by its images."""


@dataclass(frozen=True)
class Samples:
    """What the sampler returns."""

    images: np.ndarray
    """uint8 (B, H, W, 3)."""
    trace: list[Trace]
    """One a picture."""


class SkipDiffSampler:
    """Enlarges images by CSA and FSR under any policy.

    Args:
        model: a frozen model, see :func:`skipdiff_env.load_pretrained`.
        coarse_steps: S, a divisor of the model's T.
        fine_steps: F; None means T/S.
        skip_rule: ``reset`` (Eq. 14) or ``hold``.
        refiner: the name or folder of a model with a refiner, or a function (x̂0, condition) → image, which
            gives the result its last touch; not counted as an evaluation. See :mod:`.diffusion.refiner`.

    Example:
        >>> sampler = SkipDiffSampler(load_pretrained("natural-4x"))
        >>> out = sampler(lr, policy=7, seed=0)
        >>> out.images.shape, out.trace[0].evaluations
        ((1, 256, 256, 3), 16)
    """

    def __init__(
        self,
        model: DiffusionModel,
        coarse_steps: int = 10,
        fine_steps: int | None = None,
        skip_rule: SkipRule = "reset",
        refiner: RefinerSpec = None,
    ) -> None:
        self.model = as_model(model)
        self.refine = resolve_refiner(refiner, self.model)
        self.process = SkipProcess(self.model, coarse_steps, fine_steps, skip_rule, refine=self.refine)

    def __call__(
        self,
        lr: Any,
        policy: PolicySpec | FewSteps = None,
        seed: int | Sequence[int] = 0,
        callback: Callable[[SkipState], None] | None = None,
    ) -> Samples:
        """Enlarge one image or a batch of one size.

        Args:
            lr: a PIL image, uint8 (h, w, 3) or (B, h, w, 3), a tensor (3, h, w) or (B, 3, h, w), uint8 or
                float in [0, 1], or a list of single images.
            policy: a start level, ``"denoise"``, ``"skip"``, the path of an exported agent, a callable
                (see :mod:`skipdiff_env.policies`), or None for the start the model card recommends. A
                few-step chain (``CCSR(16)``, ``AddSR(4)``, or ``"ccsr"`` and ``"addsr"`` for their usual
                numbers of steps) takes the place of CSA and FSR, whatever S and F are.
            seed: noise seed, one for all or one an image. An image's result depends on its own pixels
                and seed alone, not on its batch (but for floating-point rounding).
            callback: called with the :class:`SkipState` after every level.

        Raises:
            SkipDiffError: for images of another form, or of several sizes in one batch.
        """
        images = as_batch(lr)
        seeds = [int(seed)] * len(images) if isinstance(seed, (int, np.integer)) else [int(s) for s in seed]
        if len(seeds) != len(images):
            raise SkipDiffError(f"{len(seeds)} seeds were given for {len(images)} images")
        keys = [NoiseKey(image_key(image), s) for image, s in zip(images, seeds, strict=True)]
        start = getattr(getattr(self.model, "config", None), "start", None)
        run: FewSteps | Policy
        run = resolve_chain(policy) or resolve_policy(policy, self.process.fine_steps, start)
        levels, actions = [self.process.schedule.steps], list[np.ndarray]()

        def visited(state: SkipState) -> None:
            levels.append(int(state.level[0]))
            if callback:
                callback(state)

        began = time.perf_counter()
        condition = self.model.condition(torch.from_numpy(images).permute(0, 3, 1, 2))
        if isinstance(run, FewSteps):
            state = refined(run(self.model, condition, keys, visited), self.model, self.refine)
        else:
            state = self._decide(run, condition, keys, visited, actions)
        result = to_uint8(state.x0).permute(0, 2, 3, 1).cpu().numpy()
        seconds = (time.perf_counter() - began) / len(images)
        trace = [
            Trace(list(levels), [int(a[i]) for a in actions], int(state.evaluations[i]), seconds)
            for i in range(len(images))
        ]
        return Samples(np.ascontiguousarray(result), trace)

    def _decide(
        self,
        decide: Policy,
        condition: Tensor,
        keys: Sequence[NoiseKey],
        visited: Callable[[SkipState], None],
        actions: list[np.ndarray],
    ) -> SkipState:
        """CSA and FSR under a policy, whose decisions are added to ``actions``; the final state."""
        process = self.process
        state = process.start(condition, keys, visited)
        memory: Any = None
        for _ in range(process.decisions):
            chosen, memory = decide(state.latent, memory)
            chosen = np.asarray(chosen.cpu() if isinstance(chosen, Tensor) else chosen)
            state = process.step(state, chosen)
            actions.append(chosen)
            visited(state)
        state = process.finish(state)
        visited(state)
        return state


def as_batch(lr: Any) -> np.ndarray:
    """Whatever holds images → uint8 (B, h, w, 3), see :meth:`SkipDiffSampler.__call__`."""
    from .images import to_rgb8  # here, because the model alone needs no Pillow

    if not isinstance(lr, (list, tuple)):
        lr = list(lr) if getattr(lr, "ndim", 3) == 4 else [lr]
    images = [to_rgb8(item, "the image") for item in lr]
    sizes = sorted({image.shape[:2] for image in images})
    if len(sizes) != 1:
        shown = ", ".join(f"{w}x{h}" for h, w in sizes) or "no image"
        raise SkipDiffError(f"a batch must hold images of one size, got {shown}: call once for each size")
    return np.stack(images)
