"""What decides how a photograph is enlarged: a fixed start, an agent, or a chain of a few steps."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from ..chains.few_step import NAMED, FewSteps
from ..diffusion import SkipProcess
from ..errors import SkipDiffError
from ..policies.base import FixedStart, Policy, resolve_policy
from ..policies.file import load_policy

COARSE_STEPS = 10
"""S, unless given, as in the paper."""

MethodSpec = int | str | os.PathLike[str] | None
"""A start level, an agent's file, ``ccsr`` or ``addsr`` (also as ``ccsr:4``), or None: the model's start."""


class Method(NamedTuple):
    """What decides."""

    policy: Policy | FewSteps
    settings: dict[str, Any]
    """JSON-plain: two that are alike decide alike."""
    most_evaluations: int
    """Network evaluations of an image, at most."""


def usual_coarse_steps(levels: int) -> int:
    """S for a model of so many levels: the largest divisor of T up to 10.

    Raises:
        SkipDiffError: if there is none but 1, which would be the full chain.
    """
    found = max(steps for steps in range(1, COARSE_STEPS + 1) if levels % steps == 0)
    if found == 1 < levels:
        raise SkipDiffError(
            f"the model's {levels} levels have no divisor up to {COARSE_STEPS}: give --coarse-steps"
        )
    return found


def few_steps(spec: object) -> FewSteps | None:
    """The chain that ``ccsr``, ``addsr``, ``ccsr:4`` … name; None for anything else.

    Raises:
        SkipDiffError: for a number of steps that the chain cannot have.
    """
    name, colon, number = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if name not in NAMED:
        return None
    if colon and not (number.isascii() and number.isdigit()):
        raise SkipDiffError(f"policy {spec!r} must end in a number of steps, such as {name}:2")
    return NAMED[name](int(number)) if colon else NAMED[name]()


def resolve_method(
    spec: MethodSpec, process: SkipProcess, own_start: int | None = None, step_cost: float = 0.0
) -> Method:
    """Turn what users type into a method.

    Args:
        spec: what they typed.
        process: S and F.
        own_start: the model's own start.
        step_cost: price of an evaluation, for an agent that was trained with prices.

    Raises:
        SkipDiffError: if it cannot be had, or knows no prices and there is one.
    """
    chain = few_steps(spec)
    decide = None if chain else resolve_policy(spec, process.fine_steps, own_start)
    if step_cost and (chain or isinstance(decide, FixedStart)):
        raise SkipDiffError(f"step_cost={step_cost} needs an agent: give the file of one")
    if chain:
        return Method(chain, {"policy": f"{str(spec).partition(':')[0]}:{chain.steps}"}, chain.steps)
    assert decide is not None
    coarse = process.coarse_steps - 1
    if isinstance(decide, FixedStart):
        return Method(decide, {"start": decide.start}, coarse + decide.start)
    file = Path(spec)  # type: ignore[arg-type]  # a file: the only other thing it can be
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    settings: dict[str, Any] = {"policy": file.name, "policy_hash": digest}
    if step_cost:
        decide, settings = load_policy(file, step_cost), {**settings, "step_cost": step_cost}
    return Method(decide, settings, coarse + process.fine_steps)
