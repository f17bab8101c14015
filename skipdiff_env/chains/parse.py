"""Turns what users write into a chain, with one grammar and one default for all interfaces.

=====================  =======================================================================
``7``, ``"7"``         SkipDiff with the fixed start 7
``"denoise"``          never skip
``"skip"``             skip whenever possible
``"random"``           skip with probability ½
``"agent"``            the agent in the model's folder
a file, a callable     an exported agent, or any policy (see :mod:`skipdiff_env.policies`)
``"ccsr"``, ``"ccsr:4"``  a chain of :data:`CHAINS`, with its usual or the given number of evaluations; other
                       arguments may follow: ``"ccsr:4,t_max=0.5"``, ``"addsr:4,self_refinement=0"``
``"plan:6"``           the model's own plan with six evaluations
``"100>57>14|11>0"``   a plan, see :mod:`.plan`, or a ``.json`` file ``{"plan": "..."}``
``"fast"``, ``"best"``  other efforts than the model's normal one, see :func:`efforts`
None, ``"normal"``     the default of the model, see :func:`default_for`
=====================  =======================================================================
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..diffusion.process import SKIP_RULES, SkipRule
from ..diffusion.protocol import DiffusionModel, as_model
from ..diffusion.refiner import NONE, OWN, RefinerSpec, is_own, resolve_refiner
from ..errors import SkipDiffError, not_negative, whole_number
from ..policies.base import (
    COARSE_STEPS,
    CoinFlip,
    FixedStart,
    Policy,
    PolicySpec,
    check_steps,
    shipped_policy,
    usual_start,
)
from ..policies.file import POLICY_FILES, load_policy
from .addsr import AddSR
from .base import Chain, Refined, described
from .ccsr import CCSR
from .few_steps import FewSteps
from .plan import Plan
from .shipped import read_plan, shipped_efforts, shipped_plan
from .skipdiff import CSA, SkipDiff

CHAINS: dict[str, Callable[..., Chain]] = {"ccsr": CCSR, "addsr": AddSR}
"""Chains that take a number of evaluations, by the names that users write. To add a chain, add an entry."""

PLAN = "plan"
"""``plan:6`` is the model's own plan with six evaluations."""

FAST, NORMAL, BEST = EFFORTS = ("fast", "normal", "best")
"""Words for how much may be spent on a picture; see :func:`efforts`."""

ChainSpec = PolicySpec | Chain


def default_for(model: DiffusionModel) -> Chain:
    """Return the chain that a model runs unless another is given: the normal one of :func:`efforts`."""
    return parse(None, model)


def efforts(model: DiffusionModel) -> dict[str, Chain]:
    """Return a model's chains for ``fast``, ``normal`` and ``best``, each with the model's refiner if it has
    one for that chain.

    The chains are those that the model's ``plans.json`` names, if that file is for these weights. Where it
    names none, a model that was made for a few-step chain runs half its usual number of evaluations, the
    usual number, and twice that number, as far as the chain allows; a model that was made for a plan runs it
    for every effort. Any other model runs CSA alone for ``fast``, SkipDiff with the usual steps for
    ``normal``, and all levels for ``best``; with at most ten levels, it always runs all of them. For
    ``normal``, the policy is the agent in the model's folder if it was trained for these weights, steps and
    rule, and otherwise the usual fixed start.

    Raises:
        SkipDiffError: if the file is damaged or names a chain that does not exist.
    """
    return {effort: parse(effort, model) for effort in EFFORTS}


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
        spec: what the user wrote; see the table at the top of this module.
        model: the model, whose levels, agent, start and refiner are used.
        coarse_steps: number of coarse steps S of SkipDiff, a divisor of T. None: the largest divisor of T up
            to 10.
        fine_steps: number of fine levels F of SkipDiff. None: T/S; 0: CSA alone.
        skip_rule: what a skip of SkipDiff does, ``reset`` (Eq. 14) or ``hold``.
        step_cost: price per evaluation, for agents that were trained with prices.
        refiner: ``own`` (the model's refiner, if it was made for this kind of chain); ``none``; the name or
            folder of a model that has a refiner; any of these except ``none`` with a strength, such as
            ``own:0.5``; or a function (x̂0, condition) → image.

    Raises:
        SkipDiffError: if the chain does not exist or does not fit the model.
    """
    model = as_model(model)
    unusual = _unusual(model.schedule.steps, coarse_steps, fine_steps, skip_rule, step_cost)
    asked = (coarse_steps, fine_steps, skip_rule) != (None, None, SKIP_RULES[0])
    if isinstance(spec, Chain):
        chain: Chain | None = spec
    elif spec is None and not (asked or step_cost):
        chain = _effort(NORMAL, model)
    elif isinstance(spec, str) and spec in EFFORTS:
        chain = _effort(spec, model)
    else:
        chain = named_chain(spec, model)
    if isinstance(chain, Plan) and chain.top != model.schedule.steps:
        raise SkipDiffError(
            f"{chain} is a plan for models of {chain.top} levels, but {model.name!r} has "
            f"{model.schedule.steps}: give a plan that begins with {model.schedule.steps}"
        )
    if chain is None:
        chain = _skipdiff(spec, model, coarse_steps, fine_steps, skip_rule, step_cost)  # type: ignore[arg-type]
    elif unusual:
        raise SkipDiffError(f"{chain} has its own levels: leave out {' and '.join(unusual)}")
    if step_cost and not (isinstance(chain, SkipDiff) and "step_cost" in chain.settings):
        raise SkipDiffError(
            f"step_cost={step_cost} needs an agent that was trained with prices: give its file"
        )
    return _with_refiner(chain, refiner, model)


def parse_skipdiff(
    spec: ChainSpec,
    model: DiffusionModel,
    coarse_steps: int | None = None,
    fine_steps: int | None = None,
    skip_rule: SkipRule = "reset",
) -> SkipDiff:
    """Turn what a user writes into SkipDiff's chain, in which a policy decides, without a refiner; see
    :func:`parse`.

    Raises:
        SkipDiffError: in the same cases as :func:`parse`, and for a chain in which no policy decides.
    """
    model = as_model(model)
    given = isinstance(spec, Chain)
    if spec is None:  # a plan, which may be the model's default, leaves nothing to decide
        coarse_steps = usual_coarse_steps(model.schedule.steps) if coarse_steps is None else coarse_steps
    chain = spec if given else parse(spec, model, coarse_steps, fine_steps, skip_rule, refiner=NONE)
    if not isinstance(chain, SkipDiff):
        raise SkipDiffError(
            f"{chain} is not a policy, since nothing is decided in it: give a start level, a word or a file"
        )
    asked = SkipDiff(chain.policy, coarse_steps or chain.coarse_steps, fine_steps, skip_rule)
    if given and asked.steps(model.schedule) != chain.steps(model.schedule):
        raise SkipDiffError(
            f"{chain} is for other steps than {asked.steps(model.schedule)}: give only its policy"
        )
    return chain


def _unusual(top: int, coarse: Any, fine: Any, rule: Any, price: Any) -> list[str]:
    """Name the SkipDiff settings that differ from the usual ones.

    Raises:
        SkipDiffError: if a setting is invalid for every policy.
    """
    for name, number, least in (("coarse_steps", coarse, 1), ("fine_steps", fine, 0)):
        if number is not None:
            whole_number(name, number, least, top)
    if rule not in SKIP_RULES:
        raise SkipDiffError(f"unknown skip_rule {rule!r}: use {' or '.join(map(repr, SKIP_RULES))}")
    not_negative("step_cost", price)
    unusual = {
        "the coarse steps": coarse not in (None, COARSE_STEPS, _largest_divisor(top)),
        "the fine steps": fine not in (None, top // (coarse or _largest_divisor(top))),
        "the skip rule": rule != SKIP_RULES[0],
    }
    return [words for words, other in unusual.items() if other]


def named_chain(spec: object, model: DiffusionModel) -> Chain | None:
    """Return the chain that ``ccsr``, ``addsr:4``, ``plan:6`` or a plan's text or file denotes, or None.

    Raises:
        SkipDiffError: for a number of evaluations that the chain cannot have, or a text that is not a plan.
    """
    if not isinstance(spec, str | os.PathLike):
        return None
    if Path(spec).suffix == ".json":
        return read_plan(Path(spec))
    if isinstance(spec, os.PathLike):
        return None
    if ">" in spec:
        return Plan.read(spec)
    name, colon, number = spec.partition(":")
    if name == PLAN:
        return shipped_plan(model, number)
    if name not in CHAINS:
        return None
    if not colon:
        return CHAINS[name]()
    number, *others = number.split(",")
    if not (number.isascii() and number.isdigit()):
        raise SkipDiffError(f"policy {spec!r} must give a number of evaluations, such as {name}:2")
    return CHAINS[name](int(number), **_arguments(name, others))


def _arguments(name: str, words: Sequence[str]) -> dict[str, float]:
    """Read the arguments after a chain's number of evaluations, such as ``t_max=0.5``."""
    known = list(inspect.signature(CHAINS[name]).parameters)[1:]
    found: dict[str, float] = {}
    for word in words:
        key, _, value = word.strip().partition("=")
        try:
            found[key] = float(value)
        except ValueError:
            key = ""
        if key not in known:
            have = f"give {' or '.join(f'{key}=NUMBER' for key in known)}" if known else "leave it out"
            raise SkipDiffError(f"{word!r} is not an argument of {name}: {have}")
    return found


def _effort(effort: str, model: DiffusionModel) -> Chain:
    """Return the chain for an effort, as in :func:`efforts`, but without a refiner."""
    shipped = shipped_efforts(model).get(effort)
    word = shipped or model.chain
    chain = named_chain(word, model)
    if word and chain is None:
        raise SkipDiffError(
            f"{model.name!r} asks for the chain {word!r}, which does not exist: name one of "
            f"{', '.join([*CHAINS, PLAN])} in its plans.json or its configuration"
        )
    if isinstance(chain, FewSteps) and not shipped:
        steps = {FAST: max(1, chain.steps // 2), NORMAL: chain.steps, BEST: 2 * chain.steps}[effort]
        return replace(chain, steps=min(steps, chain.most or steps))
    if chain is None and effort == FAST:
        return CSA(usual_coarse_steps(model.schedule.steps))
    if chain is None and effort == BEST:
        return CSA(model.schedule.steps)
    return chain or _skipdiff(None, model, None, None, SKIP_RULES[0], 0.0)


def usual_coarse_steps(levels: int) -> int:
    """Return the usual S for a model of ``levels`` levels: the largest divisor of that number up to 10.

    Raises:
        SkipDiffError: if the only such divisor is 1, which leaves no coarse jump.
    """
    found = _largest_divisor(levels)
    if found == 1 < levels:
        raise SkipDiffError(
            f"the model's {levels} levels have no divisor from 2 to {COARSE_STEPS}: give the coarse steps"
        )
    return found


def _largest_divisor(levels: int) -> int:
    return max(steps for steps in range(1, COARSE_STEPS + 1) if levels % steps == 0)


def _skipdiff(
    spec: PolicySpec,
    model: DiffusionModel,
    coarse_steps: int | None,
    fine_steps: int | None,
    skip_rule: SkipRule,
    step_cost: float,
) -> Chain:
    """Return SkipDiff under the policy that a user wrote, or CSA alone."""
    coarse = usual_coarse_steps(model.schedule.steps) if coarse_steps is None else coarse_steps
    fine = model.schedule.stride(coarse) if fine_steps is None else fine_steps
    if fine == 0:
        if spec is not None:
            raise SkipDiffError(
                "fine_steps=0 is CSA alone, in which nothing is decided: leave out the policy"
            )
        return CSA(coarse)
    if spec in (None, "agent"):
        found = shipped_policy(model, coarse, fine, skip_rule)
        if spec == "agent" and found is None:
            raise SkipDiffError(
                f"{model.name!r} has no agent for coarse steps {coarse}, fine steps {fine} and rule "
                f"{skip_rule!r}: give an agent's file or a start level"
            )
        spec = found
    if spec is None:
        spec = usual_start(model.schedule, coarse, fine, model.start)
    return SkipDiff(_policy(spec, fine, step_cost), coarse, fine_steps, skip_rule)


def _policy(spec: int | str | os.PathLike[str] | Policy, fine_steps: int, step_cost: float) -> Policy:
    """Return the policy that a user wrote."""
    named: dict[str, int | Policy] = {"denoise": fine_steps, "skip": 1, "random": CoinFlip()}
    if isinstance(spec, str):
        spec = int(spec) if spec.isascii() and spec.isdigit() else named.get(spec, spec)
    if isinstance(spec, (int, np.integer)) and not isinstance(spec, bool):
        return FixedStart(int(spec), fine_steps)
    if isinstance(spec, os.PathLike) or (isinstance(spec, str) and spec.endswith(POLICY_FILES)):
        spec = load_policy(spec, step_cost)
    if not callable(spec) or isinstance(spec, type):
        chains = ", ".join(f"{name}:N" for name in (*CHAINS, PLAN))
        raise SkipDiffError(
            f"unknown policy {spec!r}: use a start level from 1 to {fine_steps}, denoise, skip, random, "
            f"agent, {chains}, a policy file ({', '.join(POLICY_FILES)}) or a callable"
        )
    check_steps(spec, fine_steps)
    return spec


def _with_refiner(chain: Chain, refiner: RefinerSpec, model: DiffusionModel) -> Chain:
    """Return the chain with the refiner that was asked for."""
    if isinstance(chain, Refined):
        if refiner in (None, NONE):
            return chain.chain
        if refiner != OWN:
            raise SkipDiffError(f"the chain has a refiner already: leave out refiner={refiner!r}")
        return chain
    if is_own(refiner) and not _suits(model, chain):
        refiner = NONE
    refine = resolve_refiner(refiner, model)
    return chain if refine is None else Refined(chain, refine, described("refiner", refine))


def _suits(model: DiffusionModel, chain: Chain) -> bool:
    """Return whether a chain is of the kind that a model was made for, with any number of evaluations."""
    word = model.chain or ""
    kind = Plan if word.partition(":")[0] == PLAN or ">" in word else CHAINS.get(word.partition(":")[0])
    return kind is type(chain)
