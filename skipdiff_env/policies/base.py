"""What decides when to skip, without any RL library.

A policy is a callable ``(latent, memory) -> (actions, memory)``: it sees the latents u_t, float32
(B, 3, H, W), returns one action a row (0 = denoise, 1 = skip), and carries whatever it wants to
remember. ``memory`` is None at the start of an episode.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..chains.few_step import NAMED, FewSteps
from ..diffusion import start_actions
from ..errors import SkipDiffError


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
"""Suffixes of exported agents, see :mod:`.file`."""


def shipped_policy(
    model: str | os.PathLike[str],
    coarse_steps: int = 10,
    fine_steps: int | None = None,
    skip_rule: str = "reset",
) -> Path | None:
    """The agent in a model's folder, if there is one that was trained for these steps and this rule.

    Args:
        model: a shipped model's name or a model folder.
        coarse_steps, fine_steps, skip_rule: as in :class:`.diffusion.SkipProcess`.

    Returns:
        its file, for any ``policy=``, or None. An agent of weights that were replaced since is not
        found either: it decides by what the former ones' latents looked like. Nor is a file other than
        the one whose SHA-256 ``policy.json`` tells.
    """
    from ..diffusion import load_pretrained
    from ..diffusion.folder import ABOUT_POLICY, POLICY
    from ..diffusion.pretrained import model_folder

    folder = model_folder(model)
    if not ((folder / POLICY).is_file() and (folder / ABOUT_POLICY).is_file()):
        return None
    about = json.loads((folder / ABOUT_POLICY).read_text(encoding="utf-8"))
    owner = load_pretrained(model)
    fine_steps = owner.schedule.steps // coarse_steps if fine_steps is None else fine_steps
    asked = {
        "model": owner.hash,
        "steps": [coarse_steps, fine_steps],
        "skip_rule": skip_rule,
        "sha256": hashlib.sha256((folder / POLICY).read_bytes()).hexdigest(),
    }
    return folder / POLICY if all(about.get(k) == v for k, v in asked.items()) else None


def resolve_chain(spec: object) -> FewSteps | None:
    """A few-step chain, given as such or by name (``ccsr``, ``addsr``); None for anything else."""
    if isinstance(spec, FewSteps):
        return spec
    return NAMED[spec]() if isinstance(spec, str) and spec in NAMED else None


def resolve_policy(spec: PolicySpec | FewSteps, fine_steps: int, default_start: int | None = None) -> Policy:
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
    if isinstance(spec, FewSteps) or (isinstance(spec, str) and spec in NAMED):
        raise SkipDiffError(f"{spec!r} is a chain without decisions: SkipDiffSampler runs it")
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
        from .file import load_policy

        spec = load_policy(spec)
    if callable(spec):
        if hasattr(spec, "check_steps"):  # an exported agent
            spec.check_steps(fine_steps)
        return spec
    raise SkipDiffError(
        f"unknown policy {spec!r}: use a start level 1 … {fine_steps}, 'denoise', 'skip', a policy file "
        f"({', '.join(POLICY_FILES)}) or a callable"
    )
