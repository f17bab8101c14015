"""Makes every sampler that the tables compare, for one frozen model.

Only rivals that need a training of their own, CCSR and AddSR, bring other weights; their labels and a page's
list of weights show this.

A new family of samplers needs only an entry of :data:`FAMILIES`. It then appears in Table 1 or 2, in Figure
5, in the sentences on equal budgets and in the stability table.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.chains import (
    CCSR,
    AddSR,
    Chain,
    FewSteps,
    Plan,
    Refined,
    named_chain,
    shipped_plans,
    uniform,
)
from skipdiff_env.chains.shipped import shipped_efforts
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.diffusion.folder import ABOUT_POLICY
from skipdiff_env.diffusion.process import CoarseRule
from skipdiff_env.diffusion.refiner import Refiner, load_refiner
from skipdiff_env.policies.base import shipped_policy, usual_start

from . import standard
from .family import Case, Family, Folder
from .sampler import HR, Picture, Sampler, conditions_of, enlarged, noise_of, pictures_of
from .walks import Unclamped, Walks

COARSE = (2, 4, 5, 10, 20, 25, 50, 100)
"""The values of S in Figure 1."""
PAIRS = ((4, 25), (5, 20), (20, 5), (25, 4))
"""Step pairs (S, F) in addition to (10, 10)."""
PAPER_PAIR = (5, 20, 16)
"""The step pair of the paper's Table 2, and the start at which it takes the paper's 20 evaluations."""
FLEXIBLE = (1, 2, 4, 8, 16)
"""Numbers of evaluations of CCSR with both stages, which was not trained for a single one of them."""
FEW = (2, 3, 4, 5, 6, 8)
"""Numbers of evaluations, below SkipDiff's, at which standard samplers are compared with plans."""
AGENT_PAIRS = {"NIQE": (10, False), "LPIPS": (10, False), "(1, T)": (1, True), "(10, T)": (10, True)}
"""Agents by name: S, and whether F is T instead of T/10. The first two are named after their reward."""


def catalogue(
    model: FrozenModel,
    start: int,
    agents: Mapping[str, Path] | None = None,
    budgets: Iterable[int] = (),
    folder: Folder | None = None,
    trained: Mapping[str, Folder] | None = None,
) -> dict[str, Sampler]:
    """Make all samplers that the model's T allows, by key.

    Args:
        model: the frozen model.
        start: the fixed start at (10, T/10).
        agents: policy files by name, see :data:`AGENT_PAIRS`.
        budgets: numbers of evaluations at which every rival is run, besides the fixed start's 9 + ``start``.
        folder: name or folder of the model; if given, its refiner with its chain is among the samplers.
        trained: models of ``ccsr`` and ``addsr`` with weights of their own.

    Raises:
        SkipDiffError: if 10 does not divide T, or a trained model has another scale.
    """
    if model.schedule.steps % 10:
        raise SkipDiffError(
            f"the tables take S = 10, which does not divide this model's T = {model.schedule.steps}"
        )
    case = Case(model, start, agents or {}, frozenset({9 + start, *budgets}), folder, trained or {})
    made = [replace(sampler, family=family.name) for family in FAMILIES for sampler in family.make(case)]
    return {sampler.key: sampler for sampler in made}


def shipped_agent(model: Folder) -> dict[str, Path]:
    """Return the agent in a model's folder under the name of its reward, see :data:`AGENT_PAIRS`.

    The result is empty if there is no agent, or if the tables have no line for its reward.
    """
    file = shipped_policy(load_pretrained(model, "cpu"))
    if file is None:
        return {}
    about = json.loads((file.parent / ABOUT_POLICY).read_text(encoding="utf-8"))
    name = str(about.get("metric")).upper()
    return {name: file} if name in AGENT_PAIRS else {}


def chain_sampler(
    model: FrozenModel, chain: Chain, key: str, label: str, weights: tuple[str, ...] = ()
) -> Sampler:
    """Make the sampler of a chain without decisions; ``weights``: hashes of weights of its own, if any."""
    steps = chain.most_evaluations(model.schedule)

    def run(lrs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Picture]:
        final = chain(model, conditions_of(model, lrs), noise_of(lrs, seeds))
        return [Picture(image, steps) for image in pictures_of(final.x0)]

    calls = frozenset((key, i) for i in range(steps))
    return Sampler(key, label, run, calls, steps=steps, tag=str(steps), weights=weights)


def trained_chains(
    model: FrozenModel, name: str, chains: Iterable[FewSteps], refiner: Refiner | None = None
) -> list[Sampler]:
    """Make samplers of chains with weights of their own, whose labels begin with ``name``."""
    weights = (model.hash[:8], *([refiner.hash[:8]] if refiner else []))
    found = []
    for chain in chains:
        word, _, unusual = str(chain).partition(",")
        key = f"{word.replace(':', '-')}{f',{unusual}' * bool(unusual)}@{'+'.join(weights)}"
        label = f"{name}, {chain.steps} step{'s' * (chain.steps > 1)}{f', {unusual}' * bool(unusual)}"
        whole = Refined(chain, refiner) if refiner else chain
        found.append(chain_sampler(model, whole, key, label, weights))
    return found


def without_calls(model: FrozenModel) -> list[Sampler]:
    """Make the samplers that do not call the network: bicubic enlargement and, if the model has a restorer,
    bicubic enlargement of the restored inputs."""

    def sampler(
        key: str, label: str, picture: Callable[[FrozenModel, Sequence[np.ndarray]], Tensor]
    ) -> Sampler:
        def run(lrs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Picture]:
            return [Picture(image, 0) for image in pictures_of(picture(model, lrs))]

        return Sampler(key, label, run, frozenset())

    found = [sampler("bicubic", "bicubic", enlarged)]
    if model.restorer:
        found.append(sampler("restored", "restored, bicubic", conditions_of))
    return found


def _csa(case: Case) -> Iterable[Sampler]:
    return [case.walks.coarse(s) for s in sorted({*COARSE, 10, case.top}) if case.top % s == 0]


def _manual(case: Case) -> Iterable[Sampler]:
    return [case.walks.skip(10, case.top // 10, k) for k in range(1, case.top // 10 + 1)]


def _pairs(case: Case) -> Iterable[Sampler]:
    schedule, pairs = case.model.schedule, [pair for pair in PAIRS if math.prod(pair) == case.top]
    walks = [(*pair, usual_start(schedule, *pair, own=case.start)) for pair in pairs]
    return [
        replace(case.walks.skip(coarse, fine, start), tag=f"({coarse},{fine})")
        for coarse, fine, start in (*walks, PAPER_PAIR)
        if coarse * fine == case.top
    ]


def _agents(case: Case) -> Iterable[Sampler]:
    for name, file in case.agents.items():
        coarse, whole = AGENT_PAIRS[name]
        yield case.walks.agent(coarse, case.top if whole else case.top // 10, file, name)


def _ablations(case: Case) -> Iterable[Sampler]:
    """Yield variants that need no training: without the clamp, and with another topmost level of CSA."""
    other: CoarseRule = "strided" if case.model.config.coarse_levels == "rebuilt" else "rebuilt"
    free: Any = Unclamped(case.model)
    unclamped = Walks(free, None, "unclamped")
    yield unclamped.coarse(case.top)
    for walks in (unclamped, Walks(case.model, other, other)):
        yield walks.coarse(10)
        yield walks.skip(10, case.top // 10, case.start)


def _diffusers(name: str, label: str, scheduler: Any, counts: Iterable[int], case: Case) -> Iterable[Sampler]:
    """Yield a sampler of diffusers at these numbers of steps and at SkipDiff's."""
    for steps in sorted({*counts, *case.budgets}):
        if steps < case.top:
            yield _standard(case.model, f"{name}-{steps}", f"{label}, {steps} steps", scheduler, steps)


def _standard(model: FrozenModel, key: str, label: str, scheduler: Any, steps: int) -> Sampler:
    def run(lrs: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Picture]:
        made, levels = scheduler(model.schedule, steps)
        condition = conditions_of(model, lrs)
        x0 = standard.sample(model, made, levels, condition, noise_of(lrs, seeds))
        return [Picture(image, steps) for image in pictures_of(x0)]

    calls = frozenset((key, i) for i in range(steps))
    return Sampler(key, label, run, calls, steps=steps, tag=str(steps))


def _half_ddim(case: Case) -> Iterable[Sampler]:
    """Yield DDIM halfway between its deterministic form (η = 0) and DDPM's own chain (η = 1)."""
    for steps in sorted({*FEW, *case.budgets}):
        if steps < case.top:
            plan = uniform(case.top, steps, 0.5)
            yield chain_sampler(case.model, plan, f"ddim-half-{steps}", f"{_HALF}, {steps} steps")


def _plans(case: Case) -> Iterable[Sampler]:
    """Yield the plans that ship with the model."""
    for steps, plan in shipped_plans(case.model).items():
        yield _planned(case, plan, f"plan of {steps} evaluations")


def _efforts(case: Case) -> Iterable[Sampler]:
    """Yield the plans that only the model's efforts run."""
    known = {*shipped_plans(case.model).values()}
    for effort, word in shipped_efforts(case.model).items():
        chain = named_chain(word, case.model)
        if isinstance(chain, Plan) and chain not in known:
            known.add(chain)
            yield _planned(case, chain, f"effort {effort}, {len(chain.calls)} evaluations")


def _planned(case: Case, plan: Plan, label: str) -> Sampler:
    """Make the sampler of a plan; its key identifies the plan, since a search may find others."""
    digest = hashlib.blake2b(str(plan).encode(), digest_size=4).hexdigest()
    return chain_sampler(case.model, plan, f"plan-{len(plan.calls)}@{digest}", label)


def _ccsr(case: Case) -> Iterable[Sampler]:
    for steps in sorted({1, *FEW, *case.budgets}):
        label = f"CCSR's sampler, {steps} step{'s' * (steps > 1)}"
        yield chain_sampler(case.model, CCSR(steps), f"ccsr-{steps}", label)


def _trained_ccsr(case: Case, name: str, both: bool) -> Iterable[Sampler]:
    """Yield CCSR's first stage alone, or followed by the refiner in its folder."""
    model = case.rivals.get("ccsr")
    if model is None or (both and model.config.refiner is None):
        return []
    refiner = load_refiner(case.trained["ccsr"], model.device, model.dtype) if both else None
    usual = FLEXIBLE if both else (1, 2, 16)
    return trained_chains(model, name, [CCSR(n) for n in sorted({*usual, *case.budgets})], refiner)


def _addsr(case: Case) -> Iterable[Sampler]:
    student = case.rivals.get("addsr")
    return trained_chains(student, "AddSR", [AddSR(n) for n in (1, 2, 4)]) if student else []


def _own_refiner(case: Case) -> Iterable[Sampler]:
    """Yield the chain that the model's refiner is meant for, followed by the refiner."""
    chain = named_chain(case.model.chain, case.model)
    if not isinstance(chain, FewSteps) or case.folder is None or case.model.config.refiner is None:
        return []
    refiner = load_refiner(case.folder, case.model.device, case.model.dtype)
    return trained_chains(case.model, "its refiner", [chain], refiner)


_DDIM, _HALF, _DPM, _CHAIN = "DDIM (η = 0)", "DDIM (η = 0.5)", "DPM-Solver++(2M)", "uniform chain"
FAMILIES = [
    Family("bicubic", "bicubic", lambda case: without_calls(case.model), "", rival=False),
    Family("hr", "the originals", lambda case: [HR], "", rival=False),
    Family("csa", "CSA alone over S", _csa, "o-", "#7f7f7f", rival=False),
    Family("skip", "SkipDiff, manual starts", _manual, "s-", "#1f4e79", rival=False),
    Family("pair", "SkipDiff, other step pairs", _pairs, "D", "#1f4e79", rival=False),
    Family("agent", "SkipDiff, agent", _agents, "*", "#b00000", rival=False),
    Family("plan", "plans", _plans, "d-", "#0070c0", said="Its own plan"),
    Family("effort", "plans of efforts", _efforts, "d", "#00a0a0", said="The plan of an effort"),
    Family("ablation", "changed without training", _ablations, "", rival=False),
    Family(
        "ddim", _DDIM, partial(_diffusers, "ddim", _DDIM, standard.ddim, (*FEW, 10, 16, 20, 50)),
        "^-", "#c55a11", said="DDIM",
    ),
    Family("ddim-half", _HALF, _half_ddim, "^--", "#f4b183"),
    Family(
        "dpm", _DPM, partial(_diffusers, "dpm", _DPM, standard.dpm_solver, (*FEW, 10, 16, 20)),
        "v-", "#548235",
    ),
    Family(
        "ancestral", _CHAIN, partial(_diffusers, "ancestral", _CHAIN, standard.ancestral, (*FEW, 16)),
        "P-", "#7030a0", said="The plain uniform chain", borrows={"csa-20": f"{_CHAIN}, 20 steps"},
    ),
    Family("ccsr", "CCSR's sampler", _ccsr, "X-", "#bf9000"),
    Family(
        "ccsr-stage-1", "CCSR, stage 1", partial(_trained_ccsr, name="CCSR, stage 1", both=False),
        "<-", "#806000",
    ),
    Family(
        "ccsr-both", "CCSR, both stages", partial(_trained_ccsr, name="CCSR, both stages", both=True),
        ">-", "#404040",
    ),
    Family("addsr", "AddSR", _addsr, "p-", "#00808b"),
    Family("refined", "its refiner", _own_refiner, "h-", "#404040", said="CCSR, both stages"),
]  # fmt: skip
"""All families, in the order of tables, legends and sentences."""
