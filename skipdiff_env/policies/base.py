"""Policies, which decide when to skip.

A policy is a callable ``(latent, memory) -> (actions, memory)``. It sees the latents u_t, float32
(B, 3, H, W), returns one action per row (0 = denoise, 1 = skip), and keeps in ``memory`` whatever it has to
remember. At the start of an episode ``memory`` is None or, if the policy has a method ``begin(keys)``, what
that method returns. A policy that draws random numbers seeds its generators there. A policy that was made for
a certain number F of fine levels has a method ``check_steps(fine_steps)``, which raises an error for any
other F.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..diffusion.folder import ABOUT_POLICY, POLICY
from ..diffusion.noise import NoiseKey
from ..diffusion.process import start_actions
from ..diffusion.protocol import DiffusionModel
from ..diffusion.schedule import NoiseSchedule
from ..errors import SkipDiffError

COARSE_STEPS = 10
"""The paper's number S of coarse steps, for which the start of a model is chosen."""
PAPER_DEPTH = 0.7
"""The paper's start, as a share of the levels that CSA leaves."""


class Policy(Protocol):
    """The interface of a policy, which decides for a batch of latents at once."""

    def __call__(self, latent: Tensor, memory: Any) -> tuple[Any, Any]:
        """Map latents (B, 3, H, W) and memory (None at first) to actions (B,), each 0 or 1, and the new
        memory."""
        ...


@dataclass(frozen=True)
class FixedStart:
    """Skips at levels F … k + 1 and denoises at k … 1 (Table 5).

    Args:
        start: k, 1 … F. With k = F it never skips; with k = 1 it skips whenever possible.
        fine_steps: F.

    Raises:
        SkipDiffError: if k is not from 1 to F.
    """

    start: int
    fine_steps: int

    def __post_init__(self) -> None:
        start_actions(self.start, self.fine_steps)  # raises if the start is out of range

    @property
    def actions(self) -> list[int]:
        """The F - 1 decisions: 0 = denoise, 1 = skip."""
        return start_actions(self.start, self.fine_steps)

    def check_steps(self, fine_steps: int) -> None:
        """Raise a SkipDiffError for any other F."""
        if fine_steps != self.fine_steps:
            raise SkipDiffError(
                f"{self} is for {self.fine_steps} fine steps, not {fine_steps}: give a start level"
            )

    def __call__(self, latent: Tensor, memory: Any) -> tuple[np.ndarray, int]:
        decision = memory or 0
        return np.full(len(latent), self.actions[decision]), decision + 1

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the policy, as plain JSON."""
        return {"start": self.start}


@dataclass(frozen=True)
class CoinFlip:
    """Skips with probability ½. A picture's decisions depend only on its noise key and on ``seed``."""

    seed: int = 0

    def begin(self, keys: Sequence[NoiseKey]) -> list[np.random.Generator]:
        """Create a random generator for each row."""
        return [np.random.default_rng([key.image, key.seed % 2**64, self.seed]) for key in keys]

    def __call__(self, latent: Tensor, memory: list[np.random.Generator]) -> tuple[np.ndarray, Any]:
        return np.array([rng.integers(2) for rng in memory], np.int64), memory

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the policy, as plain JSON."""
        return {"policy": "random", **({"policy_seed": self.seed} if self.seed else {})}


PolicySpec = int | str | os.PathLike[str] | Policy | None


def shipped_policy(
    model: DiffusionModel,
    coarse_steps: int = 10,
    fine_steps: int | None = None,
    skip_rule: str = "reset",
) -> Path | None:
    """Return the agent in a model's folder, if it was trained for these steps and this skip rule.

    Args:
        model: a model, whose ``folder`` may hold an agent.
        coarse_steps, fine_steps, skip_rule: as in :class:`.diffusion.SkipProcess`.

    Returns:
        The agent's file, which any ``policy=`` accepts, or None. An agent that was trained for weights other
        than the model's is not returned, since it knows only the latents of those weights; nor is a file
        whose SHA-256 is not the one in ``policy.json``.

    Raises:
        SkipDiffError: if ``policy.json`` is damaged.
    """
    folder = model.folder
    if folder is None or not ((folder / POLICY).is_file() and (folder / ABOUT_POLICY).is_file()):
        return None
    try:
        about = dict(json.loads((folder / ABOUT_POLICY).read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise SkipDiffError(
            f"{folder / ABOUT_POLICY} is damaged: make the agent again, or remove this file and {POLICY}"
        ) from None
    fine_steps = model.schedule.steps // coarse_steps if fine_steps is None else fine_steps
    asked = {
        "model": model.hash,
        "steps": [coarse_steps, fine_steps],
        "skip_rule": skip_rule,
        "sha256": hashlib.sha256((folder / POLICY).read_bytes()).hexdigest(),
    }
    return folder / POLICY if all(about.get(k) == v for k, v in asked.items()) else None


def usual_start(
    schedule: NoiseSchedule, coarse_steps: int, fine_steps: int | None = None, own: int | None = None
) -> int:
    """Return the usual start of FSR for given numbers of steps.

    Args:
        schedule: the model's schedule, with T levels.
        coarse_steps, fine_steps: S and F, as in :class:`.diffusion.SkipProcess`.
        own: the model's own start, chosen for S = 10. If it is None or above T/10, the paper's start, 7 of 10
            levels, is used.

    Returns:
        A level from 1 to F, in proportion to the level T/S at which CSA ends.
    """
    levels, tuned = schedule.stride(coarse_steps), schedule.steps / COARSE_STEPS
    depth = own / tuned if own and own <= tuned else PAPER_DEPTH
    return min(max(1, round(depth * levels)), fine_steps or levels)


def first_memory(policy: Policy, keys: Sequence[NoiseKey]) -> Any:
    """Return a policy's memory before episodes with these noise keys: None, or what ``begin`` returns."""
    begin = getattr(policy, "begin", None)
    return begin(keys) if begin else None


def check_steps(policy: Policy, fine_steps: int) -> None:
    """Call the policy's method ``check_steps``, if it has one, to raise an error for an F that does not
    fit."""
    check = getattr(policy, "check_steps", None)
    if check:
        check(fine_steps)


def decided(policy: Policy, latent: Tensor, memory: Any) -> tuple[np.ndarray, Any]:
    """Return a policy's actions as an array (B,), and its new memory.

    A policy from outside this package gets a copy of the latent, since it might change the latent in place.
    """
    own = type(policy).__module__.startswith(__name__.partition(".")[0] + ".")
    chosen, memory = policy(latent if own else latent.clone(), memory)
    return np.asarray(chosen.cpu() if isinstance(chosen, Tensor) else chosen), memory
