"""What the page offers, requests checked, one job at a time, and how long a job will take."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..chains import (
    Chain,
    SkipDiff,
    default_for,
    parse,
    parse_skipdiff,
    shipped_plans,
    usual_coarse_steps,
    with_detail,
)
from ..diffusion import SkipProcess, available_models, image_key, load_pretrained
from ..diffusion.pretrained import model_folder
from ..errors import SkipDiffError, fraction
from ..images.measure import measure
from ..images.raster import Photo
from ..metrics import load_metric
from ..oracle import optimum_calls
from ..policies.base import shipped_policy, usual_start
from ..policies.file import load_policy
from ..upscale import Choice, Enlarger, Work, choose_model, model_notice, usual_tiles
from ..upscale.choice import AUTO
from .pictures import SIDE, Task, Upload, bundled, make_task
from .requests import Line, Recent, Request
from .study import Metered, Position, Result, Study, full_chain
from .whole import Whole, enlarge_whole, work_of

FEW_STEPS = ("ccsr:1", "ccsr:2", "ccsr:4")
"""Chains of a few calls that any model can run."""
STUDIES, CHAINS = 4, 32
"""Studies and full chains that are remembered, the least recently used go first."""
USUAL_MODEL = "natural-4x"
"""The shipped model that is meant where none is named."""
EXAMPLE = 1
"""The bundled photograph that is shown enlarged at first: the cat."""
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
        self._own = [*folders]
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
        self._studies: Recent[tuple[Any, ...], Study] = Recent(STUDIES)
        self._chains: Recent[tuple[Any, ...], Result] = Recent(CHAINS)
        self._pace: dict[str, float] = {}
        self._example: tuple[Request, Result] | None = None
        self._job = threading.Lock()
        self._loading, self._showing = threading.Lock(), threading.Lock()

    # What is on offer

    @property
    def models(self) -> list[str]:
        """What may be named for a model, the default first; ``auto`` goes by the photograph."""
        rest = [name for name in self.folders if name not in self._own]
        return [*self._own, *([AUTO] if USUAL_MODEL in self.folders else []), *rest]

    def concrete(self, name: str) -> str:
        """A model by name, for what is on offer: the usual one for ``auto``."""
        return USUAL_MODEL if name == AUTO and AUTO in self.models else name

    def model(self, name: str) -> Metered:
        """A model on offer, loaded once."""
        name = self.concrete(name)
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
        return model_notice(self.folders[self.concrete(name)])

    def policies(self, model: str, coarse_steps: int) -> list[str]:
        """Names of the policies on offer, the default first.

        In the usual steps that is what is best for the model, and there are chains with levels of their own;
        in others, the agent that was trained for them. Where the photograph decides about the model, nothing
        else can be chosen.
        """
        if model == AUTO:
            return [USUAL]
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

    def task(self, photo: Upload, model: str, reference: bool) -> Task:
        """What the model is given of a photograph, see :func:`.make_task`."""
        return make_task(photo, scale=self.model(model).scale, reference=reference, side=self.side)

    def request(
        self, task: Task, model: str, policy: str, start: int, coarse_steps: int, seed: float,
        clean: float = 1.0, detail: float = 1.0,
    ) -> Request:  # fmt: skip
        """What a visitor has chosen, checked: browsers can send anything.

        Raises:
            SkipDiffError: naming the choice that is not on offer.
        """
        chosen = self._chosen(model, task)
        if coarse_steps not in self.step_pairs(model):
            raise SkipDiffError(f"{coarse_steps!r} coarse steps are not on offer for {model!r}")
        if policy not in self.policies(model, coarse_steps):
            raise SkipDiffError(f"there is no policy {policy!r} for {model!r}")
        if not isinstance(seed, (int, float)) or seed != seed // 1 or not 0 <= seed <= MAX_SEED:
            raise SkipDiffError(f"the seed must be a whole number from 0 to {MAX_SEED}, not {seed!r}")
        fine = self.fine_steps(model, coarse_steps)
        if policy == FIXED and not (isinstance(start, int) and 1 <= start <= fine):
            raise SkipDiffError(f"start {start!r} must lie in 1 … {fine}")
        clean, detail = fraction("clean", clean), fraction("detail", detail)
        return Request(
            task, chosen.model, policy, start, coarse_steps, int(seed), clean, detail, chosen.notes
        )

    def _chosen(self, model: str, task: Task) -> Choice:
        """The model that was named, or that the photograph gets by itself."""
        if model != AUTO or AUTO not in self.models:
            return Choice(model)
        found = choose_model(AUTO, lambda: task.whole.seen if task.whole else measure(Photo(task.lr)))
        return found if found.model in self.folders else Choice(USUAL_MODEL)

    # Jobs

    def enlarge(self, request: Request, progress: Progress | None = None) -> Result:
        """What the chain that was chosen makes of the picture."""
        with self._working(request, self.calls(request), progress):
            return self._study(request).run(self._chain(request), request.clean, request.detail)

    def enlarge_whole(self, request: Request, folder: Path, progress: Progress | None = None) -> Whole:
        """The photograph at full size, as ``skipdiff upscale`` makes it; its file goes into ``folder``.

        Raises:
            SkipDiffError: if it cannot be made, or ``progress`` raises one.
        """
        photo = request.task.whole
        assert photo is not None  # the page asks for it where there is one
        with self._working(request, self.work(request).calls, progress):
            return enlarge_whole(photo, lambda name: self._enlarger(request), request.model, folder)

    def example(self) -> tuple[Request, Result]:
        """A bundled photograph, shrunk, enlarged again and remembered: what a visitor sees first."""
        with self._showing:
            if self._example is None:
                model = self.models[0]
                task = self.task(bundled(EXAMPLE), model, True)
                steps = self.usual_steps(model)
                policy = self.policies(model, steps)[0]
                request = self.request(task, model, policy, self.usual_start(model, steps), steps, 0)
                self._example = request, self.enlarge(request)
            return self._example

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
        schedule = self.model(request.model).schedule
        return with_detail(self._chain(request), request.detail, schedule).most_evaluations(schedule)

    def work(self, request: Request) -> Work:
        """What the photograph at full size takes.

        Raises:
            SkipDiffError: if it is too large.
        """
        assert request.task.whole is not None
        return work_of(request.task.whole, self._enlarger(request))

    def optimum_calls(self, request: Request) -> int:
        """Network calls of the optimum."""
        return optimum_calls(SkipProcess(self.model(request.model), request.coarse_steps))

    def seconds(self, request: Request, calls: int) -> float:
        """How long so many network calls will take, by the last job of this model."""
        pixels = request.task.lr[..., 0].size * self.model(request.model).scale ** 2
        return calls * pixels * self._pace[request.model]

    def seconds_whole(self, request: Request) -> float:
        """How long the photograph at full size will take."""
        return self.work(request).pixels * self._pace[request.model]

    @contextmanager
    def _working(self, request: Request, calls: int, progress: Progress | None) -> Iterator[None]:
        """One job: nobody else's runs meanwhile; its network calls are counted and timed."""
        model = self.model(request.model)
        done, pixels, spent = 0, 0, 0.0

        def count(rows: int, size: int, seconds: float) -> None:
            nonlocal done, pixels, spent
            done, pixels, spent = done + rows, pixels + rows * size, spent + seconds
            if progress:
                progress(done, max(calls, done))

        with self._job:
            model.on_call = count
            try:
                yield
            finally:
                model.on_call = None
                if done:
                    self._pace[request.model] = spent / pixels

    def _study(self, request: Request) -> Study:
        model, task = self.model(request.model), request.task
        original = None if task.hr is None else image_key(task.hr)
        key = (model.hash, image_key(task.lr), original, request.coarse_steps, request.seed)
        return self._studies.get_or(key, lambda: Study(model, task, request.coarse_steps, request.seed))

    def _enlarger(self, request: Request) -> Enlarger:
        model: Any = self.model(request.model)
        tile, batch = usual_tiles(model)
        chain = with_detail(self._chain(request), request.detail, model.schedule)
        return Enlarger(model, chain, request.seed, tile, batch, clean=request.clean)

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
    """Seconds a network call and pixel of the result, by the second call: the first is always slow."""
    side = max(1, side // model.scale)
    condition = model.condition(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    for _ in range(2):
        began = time.perf_counter()
        model.predict(condition, condition, condition.new_full((1,), 0.5))
        seconds = time.perf_counter() - began
    return seconds / condition[0, 0].numel()
