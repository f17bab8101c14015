"""The page's offers (models, efforts, policies and step pairs), and the check of requests against them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..chains import (
    CCSR,
    EFFORTS,
    NORMAL,
    AddSR,
    Chain,
    Plan,
    SkipDiff,
    efforts,
    parse,
    parse_skipdiff,
    shipped_plans,
    usual_coarse_steps,
    with_detail,
)
from ..diffusion import available_models, load_pretrained
from ..diffusion.pretrained import model_folder
from ..errors import SkipDiffError, fraction
from ..images.measure import measure
from ..images.raster import Photo
from ..policies.base import shipped_policy, usual_start
from ..policies.file import load_policy
from ..upscale import Choice, choose_model, model_notice
from ..upscale.choice import AUTO
from .pictures import SIDE, Task, Upload, make_task
from .requests import Request
from .study import Metered

FEW_STEPS = {
    CCSR.word: [f"{CCSR.word}:{count}" for count in (1, 2, 4, 8, 16)],
    AddSR.word: [f"{AddSR.word}:{count}" for count in range(1, AddSR.most + 1)],
}
"""Chains of a few calls; any model can run CCSR's, and an AddSR student has its own."""
USUAL_MODEL = "natural-4x"
"""The first of the shipped models, for which offers are made under ``auto``."""
MAX_FINE = 25
"""Step pairs with more fine levels are not offered: the optimum's cost grows as the square of their
number."""
MIN_SIDE, MAX_SIDE = 64, 2048
MAX_SEED = 2**32 - 1
MAX_PLAN = 400
"""Maximum number of characters of a plan that a visitor writes."""
USUAL, OWN, FIXED = "as the effort says", "the model's start", "fixed start"
WRITTEN = "a plan of your own"
POLICIES: dict[str, Any] = {
    OWN: OWN, FIXED: FIXED, "always skip": "skip", "never skip": "denoise", "random": "random"
}  # fmt: skip
"""The page's names of the policies that every model has → their names in :func:`.chains.parse`; the first two
stand for a start level."""


class Offers:
    """Everything that visitors may choose from.

    Args:
        models: names or folders of models to offer besides the shipped ones; the first of them is the
            default.
        policies: files of exported agents that are offered with every model except ``auto``.
        device: device on which the models run.
        side: longer side of results in pixels.

    Raises:
        SkipDiffError: if there is no such model or policy file, or if ``side`` is out of range.
    """

    def __init__(
        self,
        models: Sequence[str | os.PathLike[str]] = (),
        policies: Sequence[str | os.PathLike[str]] = (),
        device: str = "auto",
        side: int = SIDE,
    ) -> None:
        folders = {model_folder(name).resolve().name: model_folder(name) for name in models}
        self._own = [*folders]
        shipped = sorted(available_models().items(), key=lambda item: item[0] != USUAL_MODEL)
        self.folders = {**folders, **{k: v for k, v in shipped if k not in folders}}
        if not self.folders:
            raise SkipDiffError("this installation has no models: name one with --model FOLDER")
        if not MIN_SIDE <= side <= MAX_SIDE:
            raise SkipDiffError(f"side must be from {MIN_SIDE} to {MAX_SIDE} pixels, not {side}")
        self.agents = {f"agent {Path(path).name}": Path(path) for path in policies}
        self.device, self.side = device, side
        for path in self.agents.values():
            load_policy(path)
        self._models: dict[str, Metered] = {}
        self._loading = threading.Lock()

    @property
    def models(self) -> list[str]:
        """The names that may be chosen for a model, the default first; ``auto`` depends on the photograph."""
        rest = [name for name in self.folders if name not in self._own]
        return [*self._own, *([AUTO] if USUAL_MODEL in self.folders else []), *rest]

    def concrete(self, name: str) -> str:
        """Return the model for which offers are made: the usual one for ``auto``, else ``name`` itself."""
        return USUAL_MODEL if name == AUTO and AUTO in self.models else name

    def model(self, name: str) -> Metered:
        """Return a model on offer, which is loaded only once."""
        name = self.concrete(name)
        if name not in self.folders:
            raise SkipDiffError(f"there is no model {name!r} here: use one of {', '.join(self.folders)}")
        with self._loading:
            if name not in self._models:
                self._models[name] = self.load(name)
            return self._models[name]

    def load(self, name: str) -> Metered:
        """Load a model, for :meth:`model`."""
        return Metered(load_pretrained(self.folders[name], self.device))

    def notices(self, request: Request) -> list[str]:
        """Return the notice on the model's card, and a warning if an agent was trained for something else."""
        name = self.concrete(request.model)
        notice, other = model_notice(self.folders[name]), self.chain_of(request).notice(self.model(name))
        return [*([f"{name}: {notice}"] if notice else []), *([other] if other else [])]

    def efforts(self, model: str) -> list[str]:
        """Return the normal effort, and those that differ from it."""
        found = efforts(self.model(model))
        usual = found[NORMAL].settings
        return [word for word, chain in found.items() if word == NORMAL or chain.settings != usual]

    def policies(self, model: str, coarse_steps: int) -> list[str]:
        """Return the names of the policies on offer, the default first.

        With the usual steps, the default is the chain of the effort, and chains with levels of their own are
        also on offer. With other steps, the default is the agent that was trained for them, if there is one.
        If the photograph decides on the model, policies that belong to one model are not on offer.
        """
        if model == AUTO:
            return [USUAL, *FEW_STEPS[CCSR.word], WRITTEN]
        own = shipped_policy(self.model(model), coarse_steps)
        usual = coarse_steps == self.usual_steps(model)
        agent = [f"the agent of {model}"] if own else []
        return [
            *([USUAL] if usual else []),
            *agent,
            *self.agents,
            *POLICIES,
            *([*self.chains(model), WRITTEN] if usual else []),
        ]

    def chains(self, model: str) -> list[str]:
        """List chains with levels of their own, by their names in :func:`.chains.parse`."""
        loaded = self.model(model)
        made_for = (loaded.chain or "").partition(":")[0]
        few = FEW_STEPS.get(made_for, FEW_STEPS[CCSR.word])
        return [*few, *(f"plan:{count}" for count in shipped_plans(loaded))]

    def step_pairs(self, model: str) -> list[int]:
        """List S of the step pairs (S, F = T/S) on offer."""
        steps = self.levels(model)
        pairs = [s for s in range(2, steps) if steps % s == 0 and 2 <= steps // s <= MAX_FINE]
        if not pairs:
            raise SkipDiffError(
                f"the {steps} levels of {model!r} cannot be divided into coarse and fine steps: use "
                "another model"
            )
        return pairs

    def fine_steps(self, model: str, coarse_steps: int) -> int:
        """Return F of a step pair."""
        return self.model(model).schedule.stride(coarse_steps)

    def levels(self, model: str) -> int:
        """Return T, the number of network calls of the full chain."""
        return self.model(model).schedule.steps

    def usual_steps(self, model: str) -> int:
        """Return the S that is selected at first: the default, or the nearest value on offer."""
        usual = usual_coarse_steps(self.levels(model))
        return min(self.step_pairs(model), key=lambda s: abs(s - usual))

    def usual_start(self, model: str, coarse_steps: int) -> int:
        """Return the start of a model for a step pair, see :func:`.policies.base.usual_start`."""
        own = self.model(model)
        return usual_start(own.schedule, coarse_steps, own=own.start)

    def task(self, photo: Upload, model: str, reference: bool) -> Task:
        """Return the task for a photograph and a model, see :func:`.make_task`."""
        return make_task(photo, scale=self.model(model).scale, reference=reference, side=self.side)

    def request(
        self, task: Task, model: str, policy: str, start: int, coarse_steps: int, seed: float,
        clean: float = 1.0, detail: float = 1.0, effort: str = NORMAL, plan: str = "",
    ) -> Request:  # fmt: skip
        """Check what a visitor has chosen, since browsers can send anything, and return it as a request.

        Raises:
            SkipDiffError: if a choice is not on offer; the message names it.
        """
        chosen = self._chosen(model, task)
        if coarse_steps not in self.step_pairs(model):
            pairs = ", ".join(map(str, self.step_pairs(model)))
            raise SkipDiffError(
                f"{coarse_steps!r} coarse steps are not available for {model!r}: use one of {pairs}"
            )
        if policy not in self.policies(model, coarse_steps):
            known = ", ".join(self.policies(model, coarse_steps))
            raise SkipDiffError(f"there is no policy {policy!r} for {model!r}: use one of {known}")
        if effort not in EFFORTS:
            raise SkipDiffError(f"there is no effort {effort!r}: use one of {', '.join(EFFORTS)}")
        if not isinstance(seed, (int, float)) or seed != seed // 1 or not 0 <= seed <= MAX_SEED:
            raise SkipDiffError(f"the seed must be a whole number from 0 to {MAX_SEED}, not {seed!r}")
        fine = self.fine_steps(model, coarse_steps)
        if policy == FIXED and not (isinstance(start, int) and 1 <= start <= fine):
            raise SkipDiffError(f"the start must be a whole number from 1 to {fine}, not {start!r}")
        asked = Request(
            task, chosen.model, policy, start, coarse_steps, int(seed), fraction("clean", clean),
            fraction("detail", detail), effort, _written(plan) if policy == WRITTEN else None, chosen.notes,
        )  # fmt: skip
        # A plan may be for other levels, and a chain may lack a posterior mean.
        with_detail(self.chain_of(asked), asked.detail, self.model(asked.model))
        return asked

    def _chosen(self, model: str, task: Task) -> Choice:
        """Return the model that was named or, for ``auto``, the one that suits the photograph."""
        if model != AUTO or AUTO not in self.models:
            return Choice(model)
        found = choose_model(AUTO, lambda: task.whole.seen if task.whole else measure(Photo(task.lr)))
        return found if found.model in self.folders else Choice(USUAL_MODEL)

    # From requests to chains and policies

    def chain_of(self, request: Request) -> Chain:
        """Return the chain that makes the picture, as ``skipdiff upscale`` would run it.

        Raises:
            SkipDiffError: if the visitor's own plan is for models with other levels.
        """
        model = self.model(request.model)
        if request.policy == USUAL:
            return parse(request.effort, model)
        if request.plan or request.policy in self.chains(request.model):
            return parse(request.plan or request.policy, model)
        return self.skipdiff_of(request)

    def skipdiff_of(self, request: Request) -> SkipDiff:
        """Return SkipDiff with the chosen policy or, for a chosen chain, with the model's agent or start."""
        model = self.model(request.model)
        start = self.usual_start(request.model, request.coarse_steps)
        named = {**POLICIES, **self.agents, OWN: start, FIXED: request.start}
        named |= dict.fromkeys(self._decided(request.model))
        return parse_skipdiff(named.get(request.policy, "agent"), model, request.coarse_steps)

    def player_of(self, request: Request) -> str:
        """Return the name of the policy of :meth:`skipdiff_of`."""
        if request.policy not in self._decided(request.model):
            return request.policy
        agent = shipped_policy(self.model(request.model), request.coarse_steps)
        return f"the agent of {request.model}" if agent else OWN

    def _decided(self, model: str) -> list[str]:
        """Return the names that may be chosen as a policy, but stand for a chain."""
        return [USUAL, WRITTEN, *self.chains(model)]


def _written(text: str) -> Plan:
    """Parse the plan that a visitor has written."""
    if not isinstance(text, str) or len(text) > MAX_PLAN:
        raise SkipDiffError(f"a plan must be a text of at most {MAX_PLAN} characters")
    return Plan.read(text)
