"""What the page offers, requests checked, one job at a time, and how long a job will take."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from ..chains import Chain, SkipDiff, default_for, parse, parse_skipdiff, shipped_plans, usual_coarse_steps
from ..diffusion import SkipProcess, available_models, image_key, load_pretrained
from ..diffusion.pretrained import model_folder
from ..errors import SkipDiffError
from ..images import PHOTOGRAPHS, RGB8
from ..metrics import load_metric
from ..oracle import optimum_calls
from ..policies.base import shipped_policy, usual_start
from ..policies.file import load_policy
from ..upscale import model_notice
from .pictures import SIDE, Task, make_task
from .study import Metered, Position, Result, Study, full_chain

FEW_STEPS = ("ccsr:1", "ccsr:2", "ccsr:4")
"""Chains of a few calls that any model can run."""
STUDIES, CHAINS = 4, 32
"""Studies and full chains that are remembered, the least recently used go first."""
USUAL_MODEL = "natural-4x"
"""The shipped model that is chosen at first."""
MAX_FINE = 25
"""Step pairs with more fine levels are not offered: the optimum's cost grows with their square."""
MIN_SIDE, MAX_SIDE = 64, 2048
MAX_SEED = 2**32 - 1
USUAL, OWN, FIXED = "what suits the model", "the model's start", "fixed start"
POLICIES: dict[str, Any] = {
    OWN: OWN, FIXED: FIXED, "always skip": "skip", "never skip": "denoise", "random": "random"
}  # fmt: skip
"""What the page calls the policies that every model has, and what :func:`.chains.parse` calls them; the first
two stand for a start level."""

Progress = Callable[[int, int], None]
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Request:
    """What a visitor has chosen; made by :meth:`Workshop.request`, which checks it."""

    task: Task
    model: str
    policy: str
    start: int
    coarse_steps: int
    seed: int


@dataclass(frozen=True)
class Line:
    """A line of the comparison at the end of a game."""

    who: str
    actions: tuple[int, ...]
    evaluations: int
    value: float
    """The metric M."""
    reward: float
    """Eq. 15, 0 where M has no meaning."""
    regret: float


class _Recent(OrderedDict[K, V], Generic[K, V]):
    """The newest few of what was made."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get_or(self, key: K, make: Callable[[], V]) -> V:
        if key not in self:
            value = make()
            self[key] = value
            while len(self) > self.most:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


class Workshop:
    """Everything behind the page; safe to be called from several threads.

    Args:
        models: names or folders offered besides those that ship; the first of them is the default.
        policies: files of exported agents that are offered with every model.
        device: where the models run.
        side: longer side of results, pixels.

    Raises:
        SkipDiffError: if there is no such model or policy file.
    """

    def __init__(
        self,
        models: Sequence[str | os.PathLike[str]] = (),
        policies: Sequence[str | os.PathLike[str]] = (),
        device: str = "auto",
        side: int = SIDE,
    ) -> None:
        folders = {model_folder(name).resolve().name: model_folder(name) for name in models}
        shipped = sorted(available_models().items(), key=lambda item: item[0] != USUAL_MODEL)
        self.folders = {**folders, **{k: v for k, v in shipped if k not in folders}}
        if not self.folders:
            raise SkipDiffError("no model ships with this installation: name one with --model FOLDER")
        if not MIN_SIDE <= side <= MAX_SIDE:
            raise SkipDiffError(f"side {side} must lie in {MIN_SIDE} … {MAX_SIDE} pixels")
        self.agents = {f"agent {Path(path).name}": Path(path) for path in policies}
        self.device, self.side = device, side
        for path in self.agents.values():
            load_policy(path)
        self._models: dict[str, Metered] = {}
        self._studies: _Recent[tuple[Any, ...], Study] = _Recent(STUDIES)
        self._chains: _Recent[tuple[Any, ...], Result] = _Recent(CHAINS)
        self._pace: dict[str, float] = {}
        self._job = threading.Lock()
        self._loading = threading.Lock()

    # What is on offer

    @property
    def models(self) -> list[str]:
        """Names of the models on offer, the default first."""
        return list(self.folders)

    def model(self, name: str) -> Metered:
        """A model on offer, loaded once."""
        if name not in self.folders:
            raise SkipDiffError(f"there is no model {name!r} here: use one of {', '.join(self.folders)}")
        with self._loading:
            if name not in self._models:
                model = Metered(load_pretrained(self.folders[name], self.device))
                self._pace[name] = _pace(model, self.side)
                self._models[name] = model
            return self._models[name]

    def notice(self, name: str) -> str | None:
        """What a model's card warns of."""
        return model_notice(self.folders[name])

    def policies(self, model: str, coarse_steps: int) -> list[str]:
        """Names of the policies on offer, the default first.

        In the usual steps that is what is best for the model, and there are chains with levels of their own;
        in others, the agent that was trained for them.
        """
        own = shipped_policy(self.model(model), coarse_steps)
        usual = coarse_steps == self.usual_steps(model)
        agent = [f"the agent of {model}"] if own else []
        return [
            *([USUAL] if usual else []),
            *agent,
            *self.agents,
            *POLICIES,
            *(self.chains(model) if usual else []),
        ]

    def chains(self, model: str) -> list[str]:
        """Chains with levels of their own, as :func:`.chains.parse` knows them."""
        return [*FEW_STEPS, *(f"plan:{count}" for count in shipped_plans(self.model(model)))]

    def step_pairs(self, model: str) -> list[int]:
        """S of the step pairs (S, F = T/S) on offer."""
        steps = self.levels(model)
        pairs = [s for s in range(2, steps) if steps % s == 0 and 2 <= steps // s <= MAX_FINE]
        if not pairs:
            raise SkipDiffError(f"the {steps} levels of {model!r} cannot be shared out into coarse and fine")
        return pairs

    def fine_steps(self, model: str, coarse_steps: int) -> int:
        """F of a step pair."""
        return self.model(model).schedule.stride(coarse_steps)

    def levels(self, model: str) -> int:
        """T, the network calls of the full chain."""
        return self.model(model).schedule.steps

    def usual_steps(self, model: str) -> int:
        """S that is chosen at first: that of the default, or what comes nearest to it."""
        usual = usual_coarse_steps(self.levels(model))
        return min(self.step_pairs(model), key=lambda s: abs(s - usual))

    def usual_start(self, model: str, coarse_steps: int) -> int:
        """The start that a model's card recommends."""
        return usual_start(self.fine_steps(model, coarse_steps), self.model(model).start)

    def photograph(self, index: int) -> tuple[RGB8, str]:
        """A bundled photograph and its name."""
        if not 0 <= index < len(PHOTOGRAPHS):
            raise SkipDiffError(f"there are {len(PHOTOGRAPHS)} photographs, not {index + 1}")
        return PHOTOGRAPHS[index].read(), PHOTOGRAPHS[index].name

    def task(self, image: RGB8, name: str, model: str, reference: bool) -> Task:
        """A picture cut to what the model is given, see :func:`.make_task`."""
        return make_task(image, name, scale=self.model(model).scale, reference=reference, side=self.side)

    def request(
        self, task: Task, model: str, policy: str, start: int, coarse_steps: int, seed: float
    ) -> Request:
        """What a visitor has chosen, checked: browsers can send anything.

        Raises:
            SkipDiffError: naming the choice that is not on offer.
        """
        if coarse_steps not in self.step_pairs(model):
            raise SkipDiffError(f"{coarse_steps!r} coarse steps are not on offer for {model!r}")
        if policy not in self.policies(model, coarse_steps):
            raise SkipDiffError(f"there is no policy {policy!r} for {model!r}")
        if not isinstance(seed, (int, float)) or seed != seed // 1 or not 0 <= seed <= MAX_SEED:
            raise SkipDiffError(f"the seed must be a whole number from 0 to {MAX_SEED}, not {seed!r}")
        fine = self.fine_steps(model, coarse_steps)
        if policy == FIXED and not (isinstance(start, int) and 1 <= start <= fine):
            raise SkipDiffError(f"start {start!r} must lie in 1 … {fine}")
        return Request(task, model, policy, start, coarse_steps, int(seed))

    # Jobs

    def enlarge(self, request: Request, progress: Progress | None = None) -> Result:
        """What the chain that was chosen makes of the picture."""
        with self._working(request, self.calls(request), progress):
            return self._study(request).run(self._chain(request))

    def chain(self, request: Request, progress: Progress | None = None) -> Result:
        """The full chain; remembered, with the seconds it took."""
        model = self.model(request.model)
        key = (model.hash, image_key(request.task.lr), request.seed)
        with self._working(request, self.levels(request.model), progress):
            return self._chains.get_or(key, lambda: full_chain(model, request.task, request.seed))

    def play(self, request: Request, actions: Sequence[int], progress: Progress | None = None) -> Position:
        """A game after some decisions."""
        with self._working(request, request.coarse_steps, progress):
            return self._study(request).play(actions)

    def compare(
        self, request: Request, actions: Sequence[int], metric: str, progress: Progress | None = None
    ) -> list[Line]:
        """A finished game, the policy that was chosen, and the optimum, by a metric.

        Raises:
            SkipDiffError: if the game is not over, or the metric cannot judge this picture.
        """
        with self._working(request, self.optimum_calls(request), progress):
            study = self._study(request)
            if len(actions) != study.process.decisions:
                raise SkipDiffError("the game is not over yet")
            best = study.optimum(metric)
            if not np.isfinite([outcome.value for outcome in best.outcomes]).any():
                raise SkipDiffError(f"{metric} has no value for this picture: judge by another metric")
            judge = load_metric(metric, self.model(request.model).device)
            lines = []
            for who, taken in (
                ("you", actions),
                (self._player(request), study.actions(self._skipdiff(request))),
                ("the optimum", best.schedule),
            ):
                end = study.play(taken)
                hr = request.task.hr
                values = judge(end.picture[None], None if hr is None else hr[None])
                reward = float(np.nan_to_num(judge.rewards(values))[0])
                lines.append(
                    Line(who, tuple(taken), end.evaluations, float(values[0]), reward, best.regret(reward))
                )
            return lines

    # Time

    def calls(self, request: Request) -> int:
        """Network calls of a run, at most; exactly where nothing is decided on the way."""
        return self._chain(request).most_evaluations(self.model(request.model).schedule)

    def optimum_calls(self, request: Request) -> int:
        """Network calls of the optimum."""
        return optimum_calls(SkipProcess(self.model(request.model), request.coarse_steps))

    def seconds(self, request: Request, calls: int) -> float:
        """How long so many network calls will take, by the last job of this model."""
        return calls * request.task.lr[..., 0].size * self._pace[request.model]

    @contextmanager
    def _working(self, request: Request, calls: int, progress: Progress | None) -> Iterator[None]:
        """One job: nobody else's runs meanwhile; its network calls are counted and timed."""
        model = self.model(request.model)
        done, spent = 0, 0.0

        def count(rows: int, seconds: float) -> None:
            nonlocal done, spent
            done, spent = done + rows, spent + seconds
            if progress:
                progress(done, max(calls, done))

        with self._job:
            model.on_call = count
            try:
                yield
            finally:
                model.on_call = None
                if done:
                    self._pace[request.model] = spent / done / request.task.lr[..., 0].size

    def _study(self, request: Request) -> Study:
        model, task = self.model(request.model), request.task
        original = None if task.hr is None else image_key(task.hr)
        key = (model.hash, image_key(task.lr), original, request.coarse_steps, request.seed)
        return self._studies.get_or(key, lambda: Study(model, task, request.coarse_steps, request.seed))

    def _chain(self, request: Request) -> Chain:
        model = self.model(request.model)
        if request.policy in self.chains(request.model):
            return parse(request.policy, model)
        return default_for(model) if request.policy == USUAL else self._skipdiff(request)

    def _player(self, request: Request) -> str:
        """Who plays under :meth:`_skipdiff`."""
        if request.policy not in (USUAL, *self.chains(request.model)):
            return request.policy
        agent = shipped_policy(self.model(request.model), request.coarse_steps)
        return f"the agent of {request.model}" if agent else OWN

    def _skipdiff(self, request: Request) -> SkipDiff:
        """SkipDiff under the policy that was chosen; if a chain was, under the model's agent or start."""
        model = self.model(request.model)
        start = self.usual_start(request.model, request.coarse_steps)
        named = {**POLICIES, **self.agents, OWN: start, FIXED: request.start, USUAL: None}
        named |= dict.fromkeys(self.chains(request.model))
        return parse_skipdiff(named.get(request.policy, "agent"), model, request.coarse_steps)


def _pace(model: Metered, side: int) -> float:
    """Seconds a network call and pixel of the input, by the second call: the first is always slow."""
    side = max(1, side // model.scale)
    condition = model.condition(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    for _ in range(2):
        began = time.perf_counter()
        model.predict(condition, condition, condition.new_full((1,), 0.5))
        seconds = time.perf_counter() - began
    return seconds / side**2
