"""From what users write to a chain: one grammar and one default, whichever door they come in by.

=====================  =======================================================================
``7``, ``"7"``         SkipDiff with the fixed start 7
``"denoise"``          never skip
``"skip"``             skip whenever possible
``"random"``           skip every other time, at random
``"agent"``            the agent in the model's folder
a file, a callable     an exported agent, or any policy (see :mod:`skipdiff_env.policies`)
``"ccsr"``, ``"ccsr:4"``  a chain of :data:`CHAINS`, with its usual or with so many evaluations
None                   what is best for the model, see :func:`default_for`
=====================  =======================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..diffusion.process import SkipRule
from ..diffusion.protocol import DiffusionModel, as_model
from ..diffusion.refiner import RefinerSpec, has_refiner, resolve_refiner
from ..errors import SkipDiffError
from ..policies.base import PolicySpec, resolve_policy, shipped_policy
from ..policies.file import POLICY_FILES, load_policy
from .addsr import AddSR
from .base import Chain, Refined
from .ccsr import CCSR
from .skipdiff import CSA, SkipDiff

COARSE_STEPS = 10
"""S, unless given, as in the paper."""

CHAINS: dict[str, Callable[..., Chain]] = {"ccsr": CCSR, "addsr": AddSR}
"""Chains by the names that users write, which take a number of evaluations. A new one is one more entry."""

OWN = "own"
"""The word for the model's own refiner, if it has one for the chain."""

ChainSpec = PolicySpec | Chain


def default_for(model: DiffusionModel) -> Chain:
    """What is done with a model unless something else is asked for.

    That is the chain that the model was made for (``chain`` in its configuration), with the model's refiner;
    else SkipDiff in the usual steps, under the agent in the model's folder if it was trained for these
    weights, steps and rule; else under the fixed start that the model's card recommends.
    """
    return parse(None, model)


def parse(
    spec: ChainSpec,
    model: DiffusionModel,
    coarse_steps: int | None = None,
    fine_steps: int | None = None,
    skip_rule: SkipRule = "reset",
    step_cost: float = 0.0,
    refiner: RefinerSpec = OWN,
) -> Chain:
    """Turn what a user writes into a chain.

    Args:
        spec: see the table above.
        model: whose levels, agent, start and refiner count.
        coarse_steps: S of SkipDiff, a divisor of T; None means 10, or the largest divisor of T below.
        fine_steps: F of SkipDiff; None means T/S, 0 CSA alone.
        skip_rule: SkipDiff's, ``reset`` (Eq. 14) or ``hold``.
        step_cost: price of an evaluation, for agents that were trained with prices.
        refiner: ``own``: the model's, if it was made for this kind of chain; ``none``; the name or folder of
            a model that has one; or a function (x̂0, condition) → image.

    Raises:
        SkipDiffError: if it cannot be had, or does not fit.
    """
    model = as_model(model)
    asked = (coarse_steps, fine_steps, skip_rule) != (None, None, "reset")
    if spec is None and model.chain and not (asked or step_cost):
        spec = model.chain
    chain = spec if isinstance(spec, Chain) else named_chain(spec)
    if chain is None:
        chain = _skipdiff(spec, model, coarse_steps, fine_steps, skip_rule, step_cost)  # type: ignore[arg-type]
    if step_cost and not (isinstance(chain, SkipDiff) and "step_cost" in chain.settings):
        raise SkipDiffError(f"step_cost={step_cost} needs an agent: give the file of one")
    return _with_refiner(chain, refiner, model)


def named_chain(spec: object) -> Chain | None:
    """The chain that ``ccsr``, ``addsr:4`` … name; None for anything else.

    Raises:
        SkipDiffError: for a number of evaluations that the chain cannot have.
    """
    name, colon, number = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if name not in CHAINS:
        return None
    if colon and not (number.isascii() and number.isdigit()):
        raise SkipDiffError(f"policy {spec!r} must end in a number of steps, such as {name}:2")
    return CHAINS[name](int(number)) if colon else CHAINS[name]()


def usual_coarse_steps(levels: int) -> int:
    """S for a model of so many levels: the largest divisor of T up to 10.

    Raises:
        SkipDiffError: if there is none but 1, which would be the full chain.
    """
    found = max(steps for steps in range(1, COARSE_STEPS + 1) if levels % steps == 0)
    if found == 1 < levels:
        raise SkipDiffError(
            f"the model's {levels} levels have no divisor up to {COARSE_STEPS}: give the coarse steps"
        )
    return found


def _skipdiff(
    spec: PolicySpec,
    model: DiffusionModel,
    coarse_steps: int | None,
    fine_steps: int | None,
    skip_rule: SkipRule,
    step_cost: float,
) -> Chain:
    """CSA and FSR under the policy that a user wrote."""
    coarse = usual_coarse_steps(model.schedule.steps) if coarse_steps is None else coarse_steps
    fine = model.schedule.stride(coarse) if fine_steps is None else fine_steps
    if fine == 0:
        if spec is not None:
            raise SkipDiffError("fine_steps=0 is CSA alone, with nothing to decide: leave out the policy")
        return CSA(coarse)
    if spec in (None, "agent"):
        found = shipped_policy(model, coarse, fine, skip_rule)
        if spec == "agent" and found is None:
            raise SkipDiffError(
                f"{model.name!r} has no agent for {coarse} coarse and {fine} fine steps under {skip_rule!r}: "
                "give the file of one, or a start level"
            )
        spec = found
    if isinstance(spec, str) and spec.isascii() and spec.isdigit():
        spec = int(spec)
    if step_cost and isinstance(spec, str | os.PathLike) and Path(spec).suffix in POLICY_FILES:
        spec = load_policy(spec, step_cost)
    return SkipDiff(resolve_policy(spec, fine, model.start), coarse, fine_steps, skip_rule)


def _with_refiner(chain: Chain, refiner: RefinerSpec, model: DiffusionModel) -> Chain:
    """The chain with the refiner that was asked for."""
    if isinstance(chain, Refined):
        return chain
    if refiner == OWN:
        own = model.folder if _suits(model.chain, chain) else None
        refiner = own if own is not None and has_refiner(own) else None
    refine = resolve_refiner(refiner, model)
    if refine is None:
        return chain
    return Refined(chain, refine, getattr(refine, "settings", {"refiner": repr(refine)}))


def _suits(meant_for: str | None, chain: Chain) -> bool:
    """Whether a chain is of the kind that a model was made for, in whatever number of evaluations."""
    usual = named_chain(meant_for)
    return usual is not None and type(usual) is type(chain)
