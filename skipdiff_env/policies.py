"""What decides when to skip, without any RL library.

A policy is a callable ``(latent, memory) -> (actions, memory)``: it sees the latents u_t, float32
(B, 3, H, W), returns one action a row (0 = denoise, 1 = skip), and carries whatever it wants to
remember. ``memory`` is None at the start of an episode.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from .diffusion import start_actions
from .errors import SkipDiffError


class Policy(Protocol):
    """Decides a batch of latents at once."""

    def __call__(self, latent: Tensor, memory: Any) -> tuple[Any, Any]:
        """Latents (B, 3, H, W) and memory (None at first) → actions (B,) of 0 or 1, and memory."""
        ...


class FixedStart:
    """Skips at levels F … k + 1 and denoises at k … 1 (Table 5).

    Args:
        start: k, 1 … F. F never skips, 1 skips whenever it may.
        fine_steps: F.

    Raises:
        ValueError: if k lies outside 1 … F.
    """

    def __init__(self, start: int, fine_steps: int) -> None:
        self.start = start
        self.actions = start_actions(start, fine_steps)

    def __call__(self, latent: Tensor, memory: Any) -> tuple[np.ndarray, int]:
        decision = memory or 0
        return np.full(len(latent), self.actions[decision]), decision + 1

    def __repr__(self) -> str:
        return f"FixedStart({self.start})"


PolicySpec = int | str | os.PathLike[str] | Policy | None

POLICY_FILES = (".safetensors", ".onnx", ".pt2")
"""Suffixes of exported agents, see :mod:`.policy_file`."""


def resolve_policy(spec: PolicySpec, fine_steps: int, default_start: int | None = None) -> Policy:
    """Turn what users type into a policy.

    Args:
        spec: a start level, ``"denoise"`` (never skip), ``"skip"`` (whenever possible), a file with an
            exported agent, a callable, or None for the model's own start.
        fine_steps: F.
        default_start: the model's own start; None, or one beyond F, falls back on 0.7 F, the paper's 7
            of 10.

    Raises:
        SkipDiffError: if it is none of these.
    """
    fine_steps = max(fine_steps, 1)  # without a fine level, as with one, there is nothing to decide
    if spec is None:
        spec = default_start or fine_steps + 1
        if spec > fine_steps:
            spec = max(1, round(0.7 * fine_steps))
    if spec == "denoise":
        spec = fine_steps
    elif spec == "skip":
        spec = 1
    if isinstance(spec, (int, np.integer)) and not isinstance(spec, bool):
        return FixedStart(int(spec), fine_steps)
    if isinstance(spec, os.PathLike) or (isinstance(spec, str) and spec.endswith(POLICY_FILES)):
        from .policy_file import load_policy

        return load_policy(spec)
    if callable(spec):
        return spec
    raise SkipDiffError(
        f"unknown policy {spec!r}: use a start level 1 … {fine_steps}, 'denoise', 'skip', a policy file "
        f"({', '.join(POLICY_FILES)}) or a callable"
    )
