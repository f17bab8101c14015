"""Runs the jobs of the page, one at a time, and estimates how long they take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..chains import with_detail
from ..diffusion import SkipProcess, image_key
from ..errors import SkipDiffError
from ..metrics import load_metric, or_zero
from ..oracle import optimum_calls
from ..upscale import Clock, Enlarger, Work, usual_tiles
from .offers import Offers
from .pictures import bundled
from .requests import Line, Recent, Request
from .study import Metered, Position, Result, Study, full_chain
from .whole import Whole, enlarge_whole, work_of

STUDIES, CHAINS = 4, 32
"""Numbers of studies and full chains that are kept; the least recently used are dropped first."""
EXAMPLE = 1
"""The bundled photograph that is shown enlarged at first: the cat."""

Progress = Callable[[int, int], None]


class Workshop(Offers):
    """Runs the requests that :class:`.offers.Offers` checks. It is thread-safe.

    Args:
        given, named: arguments of :class:`.offers.Offers`.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._studies: Recent[tuple[Any, ...], Study] = Recent(STUDIES)
        self._chains: Recent[tuple[Any, ...], Result] = Recent(CHAINS)
        self._clocks: dict[str, Clock] = {}
        self._example: tuple[Request, Result] | None = None
        self._job, self._showing = threading.Lock(), threading.Lock()
        self._closed = threading.Event()

    def close(self) -> None:
        """End the running job at its next network call, and refuse those that wait."""
        self._closed.set()

    def wait(self) -> None:
        """Wait until no job is running."""
        with self._job:
            pass

    def load(self, name: str) -> Metered:
        """Load a model, and measure how fast it is here."""
        model = super().load(name)
        self._clocks[name] = Clock(model, self.side)
        _ = self._clocks[name].call  # now, while no job's calls are counted
        return model

    # Jobs

    def enlarge(self, request: Request, progress: Progress | None = None) -> Result:
        """Enlarge the picture with the chosen chain."""
        with self._working(request, self.calls(request), progress):
            return self._study(request).run(self.chain_of(request), request.clean, request.detail)

    def enlarge_whole(self, request: Request, folder: Path, progress: Progress | None = None) -> Whole:
        """Enlarge the photograph at full size, as ``skipdiff upscale`` does; its file goes into ``folder``.

        Raises:
            SkipDiffError: if it cannot be enlarged, or ``progress`` raises one.
        """
        photo = request.task.whole
        assert photo is not None  # the page asks only if there is one
        with self._working(request, self.work(request).calls, progress):
            made = enlarge_whole(photo, lambda name: self._enlarger(request), request.model, folder)
        # If the photograph decides on the model, both may warn of its faults.
        return replace(made, notes=tuple(dict.fromkeys((*request.notes, *made.notes))))

    def example(self) -> tuple[Request, Result]:
        """Return the example that visitors see first: a bundled photograph, shrunk and enlarged again."""
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
        """Run the full chain; the result is kept, with the seconds that it took."""
        model = self.model(request.model)
        key = (model.hash, image_key(request.task.lr), request.seed)
        with self._working(request, self.levels(request.model), progress):
            return self._chains.get_or(key, lambda: full_chain(model, request.task, request.seed))

    def play(self, request: Request, actions: Sequence[int], progress: Progress | None = None) -> Position:
        """Return the state of a game after some decisions."""
        with self._working(request, request.coarse_steps, progress):
            return self._study(request).play(actions)

    def compare(
        self, request: Request, actions: Sequence[int], metric: str, progress: Progress | None = None
    ) -> list[Line]:
        """Compare a finished game, the chosen policy and the optimum by a metric.

        Raises:
            SkipDiffError: if the game is not over, or the metric cannot judge this picture.
        """
        with self._working(request, self.optimum_calls(request), progress):
            study = self._study(request)
            if len(actions) != study.process.decisions:
                raise SkipDiffError("the game is not over yet: take the remaining decisions")
            best = study.optimum(metric)
            if not np.isfinite([outcome.value for outcome in best.outcomes]).any():
                raise SkipDiffError(f"{metric} has no value for this picture: choose another metric")
            judge = load_metric(metric, self.model(request.model).device)
            lines = []
            for who, taken in (
                ("you", actions),
                (self.player_of(request), study.actions(self.skipdiff_of(request))),
                ("the optimum", best.schedule),
            ):
                end = study.play(taken)
                hr = request.task.hr
                values = judge(end.picture[None], None if hr is None else hr[None])
                reward = float(or_zero(judge.rewards(values))[0])
                lines.append(
                    Line(who, tuple(taken), end.evaluations, float(values[0]), reward, best.regret(reward))
                )
            return lines

    # Time

    def calls(self, request: Request) -> int:
        """Return the maximum number of network calls of a run, which is exact if there are no decisions."""
        model = self.model(request.model)
        return with_detail(self.chain_of(request), request.detail, model).most_evaluations(model.schedule)

    def work(self, request: Request) -> Work:
        """Return the work of enlarging the photograph at full size.

        Raises:
            SkipDiffError: if it is too large.
        """
        assert request.task.whole is not None
        return work_of(request.task.whole, self._enlarger(request))

    def optimum_calls(self, request: Request) -> int:
        """Return the maximum number of network calls that finding the optimum takes."""
        return optimum_calls(SkipProcess(self.model(request.model), request.coarse_steps))

    def seconds(self, request: Request, calls: int | None = None) -> float:
        """Estimate the seconds for ``calls`` network calls (None: for the whole run), from the model's last
        job or, before the first one, from a timed call."""
        model = self.model(request.model)
        clock, pixels = self._clocks[request.model], request.task.lr[..., 0].size * model.scale**2
        if calls is not None:
            return calls * pixels * clock.call
        return pixels * (self.calls(request) * clock.call + clock.once(self.chain_of(request)))

    def seconds_whole(self, request: Request) -> float:
        """Estimate the seconds for enlarging the photograph at full size."""
        return self._enlarger(request).seconds(self.work(request))

    @contextmanager
    def _working(self, request: Request, calls: int, progress: Progress | None) -> Iterator[None]:
        """Run one job, while no other runs; its network calls are counted and timed.

        Raises:
            SkipDiffError: if the workshop is closed before the job ends.
        """
        model = self.model(request.model)
        done, pixels, spent = 0, 0, 0.0

        def count(rows: int, size: int, seconds: float) -> None:
            nonlocal done, pixels, spent
            done, pixels, spent = done + rows, pixels + rows * size, spent + seconds
            self._check_open()
            if progress:
                progress(done, max(calls, done))

        with self._job:
            self._check_open()
            model.on_call = count
            try:
                yield
                self._check_open()  # after closing, results vanish with the page's folder
            finally:
                model.on_call = None
                if done:
                    self._clocks[request.model].learn(pixels, spent)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise SkipDiffError("the page is closed")

    def _study(self, request: Request) -> Study:
        model, task = self.model(request.model), request.task
        original = None if task.hr is None else image_key(task.hr)
        key = (model.hash, image_key(task.lr), original, request.coarse_steps, request.seed)
        return self._studies.get_or(key, lambda: Study(model, task, request.coarse_steps, request.seed))

    def _enlarger(self, request: Request) -> Enlarger:
        model: Any = self.model(request.model)
        tile, batch = usual_tiles(model)
        chain = with_detail(self.chain_of(request), request.detail, model)
        clock = self._clocks[request.model]
        return Enlarger(model, chain, request.seed, tile, batch, clean=request.clean, clock=clock)
