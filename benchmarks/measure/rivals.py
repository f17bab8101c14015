"""CCSR and AddSR with weights of their own, as samplers of the tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from skipdiff_env import SkipDiffError, SkipDiffSampler, load_pretrained
from skipdiff_env.diffusion import CCSR, AddSR, FrozenModel
from skipdiff_env.diffusion.few_step import FewSteps
from skipdiff_env.diffusion.refiner import Refiner, load_refiner
from skipdiff_env.upscale import few_steps

from .samplers import Picture, Sampler

CCSR_STEPS, ADDSR_STEPS = (1, 2, 16), (1, 2, 4)
Folder = str | os.PathLike[str]


def rivals(
    ccsr: Folder | None = None,
    addsr: Folder | None = None,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    *,
    scale: int,
    budgets: Iterable[int] = (),
) -> dict[str, Sampler]:
    """Samplers by key: CCSR at 1, 2, 16 and more evaluations without and with stage 2, AddSR at 1, 2 and 4.

    Args:
        ccsr: a model of CCSR's first stage; with a refiner in its folder, both stages.
        addsr: a student.
        device: where they run.
        dtype: their autocast type.
        scale: of the model that they are compared with.
        budgets: more evaluations for CCSR, those that SkipDiff takes.

    Raises:
        SkipDiffError: if a model is of another scale.
    """
    found: list[Sampler] = []
    if ccsr is not None:
        model = same_scale(load_pretrained(ccsr, device, dtype), ccsr, scale)
        chains = [CCSR(n) for n in sorted({*CCSR_STEPS, *budgets})]
        found += few_step_samplers(model, "CCSR, stage 1", chains)
        if model.config.refiner is not None:
            found += few_step_samplers(
                model, "CCSR, both stages", chains, load_refiner(ccsr, model.device, model.dtype)
            )
    if addsr is not None:
        student = same_scale(load_pretrained(addsr, device, dtype), addsr, scale)
        found += few_step_samplers(student, "AddSR", [AddSR(n) for n in ADDSR_STEPS])
    return {sampler.key: sampler for sampler in found}


def with_own_refiner(given: Folder, model: FrozenModel) -> dict[str, Sampler]:
    """The chain that a model's refiner is meant for, followed by it, by key; nothing if there is none."""
    chain = few_steps(model.config.chain)
    if chain is None:
        return {}
    own = load_refiner(given, model.device, model.dtype)
    return {s.key: s for s in few_step_samplers(model, "its refiner", [chain], own)}


def same_scale(model: FrozenModel, folder: Folder, scale: int) -> FrozenModel:
    """The model, if its scale is that of the others.

    Raises:
        SkipDiffError: if not.
    """
    if model.scale != scale:
        raise SkipDiffError(
            f"{folder}: enlarges {model.scale} times and cannot be compared with a model that enlarges "
            f"{scale} times"
        )
    return model


def few_step_samplers(
    model: FrozenModel, name: str, chains: Sequence[FewSteps], refiner: Refiner | None = None
) -> list[Sampler]:
    """Samplers of chains, whose keys tell the weights; ``name`` is what labels begin with."""
    sampler = SkipDiffSampler(model, 1, refiner=refiner)  # S does not matter to a chain
    suffix = f"+{refiner.hash[:8]}" if refiner is not None else ""

    def one(chain: FewSteps) -> Sampler:
        def run(lr: np.ndarray, seed: int) -> Picture:
            return Picture(sampler(lr, policy=chain, seed=seed).images[0], chain.steps)

        key = f"{type(chain).__name__.lower()}-{chain.steps}@{model.hash[:8]}{suffix}"
        label = f"{name}, {chain.steps} step{'s' if chain.steps > 1 else ''}"
        return Sampler(key, label, run, frozenset((key, i) for i in range(chain.steps)))

    return [one(chain) for chain in chains]
