"""The batch of episodes behind the environments of SkipDiff-v1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from ..chains import Plan, named_chain, shipped_plans
from ..diffusion import CallProcess, CallState
from ..diffusion.calls import checked_levels
from ..errors import SkipDiffError
from ..metrics import or_zero
from ..policies.file import as_seen
from .call_books import CallBooks, CallChoices
from .observing import latent_space, lr_space, price_space
from .options import CallOptions
from .scenes import Cell, Observation, Scenes


class CallEpisodes(Scenes):
    """Episodes in which every network call is a decision, or in which one decision selects a whole plan.

    Args:
        count: number of rows.
        options: the arguments of the environment.

    Attributes:
        process: the process that makes single network calls.
        levels: levels that calls may lead to, descending to 0.
        plans: plans to choose from under ``episode="plan"``; empty under ``"call"``.
    """

    options: CallOptions
    state: CallState
    books: CallBooks

    def __init__(self, count: int, options: CallOptions) -> None:
        super().__init__(count, options)
        top = self.model.schedule.steps
        self.levels = checked_levels(options.levels, top)
        self.plans = self._plans() if options.episode == "plan" else ()
        most = max((len(plan.calls) for plan in self.plans), default=len(self.levels))
        self.budget = most if options.budget is None else min(options.budget, most)
        self._choices = CallChoices(self.levels, options.actions == "full", self.budget)
        self.longest = 1 if self.plans else self.budget
        actions = len(self.plans) or len(self._choices)
        self.action_space = spaces.Discrete(actions)
        self.observation_space = self._space()
        self.books = CallBooks(count, self.budget, actions, self._outcome())

    def _load_process(self) -> None:
        self.process = CallProcess(self.model)

    def _plans(self) -> tuple[Plan, ...]:
        """Return the plans that are within the budget."""
        given, budget = self.options.plans, self.options.budget
        found = list(shipped_plans(self.model).values()) if given is None else [
            plan if isinstance(plan, Plan) else named_chain(plan, self.model) for plan in given
        ]  # fmt: skip
        plans = tuple(plan for plan in found if isinstance(plan, Plan))
        if len(plans) < len(found) or any(plan.top != self.model.schedule.steps for plan in plans):
            top = self.model.schedule.steps
            raise SkipDiffError(f"plans={given} must all be plans that begin with {top}, such as '{top}>0'")
        plans = tuple(plan for plan in plans if budget is None or len(plan.calls) <= budget)
        if not plans:
            raise SkipDiffError(
                "there is no plan to choose from: give plans=['100>26|20>0', ...] within the budget, or make "
                f"some for {self.model.name!r} with skipdiff find-plan"
            )
        return plans

    def _space(self) -> spaces.Space[Any]:
        side, top = self.options.observation_size or self.image_size, self.model.schedule.steps
        if self.options.observation == "latent":
            return latent_space(side)
        parts: dict[str, spaces.Space[Any]] = {
            "latent": latent_space(side),
            "x0": latent_space(side),
            "change": latent_space(side),
            "lr": lr_space(self.image_size // self.model.scale),
            "level": spaces.Box(0.0, float(top), (1,), np.float32),
            "evaluations": spaces.Box(0.0, float(self.budget), (1,), np.float32),
            "budget": spaces.Box(0.0, float(self.budget), (1,), np.float32),
        }
        if isinstance(self.options.step_cost, tuple):
            parts["step_cost"] = price_space(self.options.step_cost)
        return spaces.Dict(parts)

    def begin(
        self,
        rows: Sequence[int] | np.ndarray,
        rngs: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Choose the images and the noise; no network call is made."""
        opening = self._opening(rows, rngs, options)
        state = self.process.start(opening.condition, opening.keys)
        self._put(rows, state, opening.pairs)
        if len(rows) == self.count:
            self._before = state.x0
        else:
            self._before = self._before.index_copy(0, self._index(rows), state.x0)
        self.books.begin(rows, opening.image, opening.noise_seed, opening.price)
        self._allow(rows)

    def _index(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(rows), device=self.device)

    def _allow(self, rows: Sequence[int] | np.ndarray) -> None:
        """Update which actions are allowed next."""
        if not self.plans:
            self.books.mask[rows] = self._choices.mask(self.state.level[rows], self.books.evaluations[rows])

    def step(
        self, rows: Sequence[int] | np.ndarray, actions: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make one network call, or all calls of a plan, in each of ``rows``, and score x̂0."""
        rows, actions = np.asarray(rows), self._checked(actions)
        before = self.books.evaluations[rows]
        self._before = self._before.index_copy(0, self._index(rows), self.state.x0[self._index(rows)])
        if self.plans:
            for plan in set(actions.tolist()):
                for call in self.plans[plan].calls:
                    chosen = rows[actions == plan]
                    told, to, eta = (np.full(len(chosen), x) for x in (call.told, call.to, call.eta))
                    self._call(chosen, told, to, eta, call.fresh, call.number)
        else:
            self._call(rows, *self._choices.calls(actions, self.state.level[rows], before))
        done = self.state.level[rows] == 0
        rewards = self._score(rows, done, self.books.evaluations[rows] - before)
        self._allow(rows)
        return rewards, done

    def _call(
        self,
        rows: np.ndarray,
        told: np.ndarray,
        to: np.ndarray,
        eta: np.ndarray,
        fresh: bool = False,
        number: int | None = None,
    ) -> None:
        state = self.state.select(rows)
        after = self.process.call(state, told, to, eta, fresh, [number] * len(rows))
        self.state = after if len(rows) == self.count else self.state.replace(rows, after)
        self.books.call(rows, told, to, eta)

    def _score(self, rows: np.ndarray, done: np.ndarray, calls: np.ndarray) -> np.ndarray:
        """Return the rewards of the decisions in ``rows``, float64; scores and results are entered in the
        books."""
        results, originals = self._results(rows)
        scores = results.scores(self.metric, originals)
        worth = self.metric.worth(scores)
        # Before the end, a picture without a score changes nothing; at the end it is worth 0.
        kept = np.isnan(worth) & ~done
        rewards = self.books.decide(rows, np.where(kept, self.books.worth[rows], or_zero(worth)), calls)
        self.books.outcome["metric"][rows] = scores
        if done.any():
            last = results.select(done)
            measured = self._fidelity(last.images, None if originals is None else originals[done])
            found = {name: last.valid(column) for name, column in measured.items()}
            pictures = {"sr_image": last.images} if self.options.return_image else {}
            self.books.finish(rows[done], worth[done], metric=scores[done], **found, **pictures)
        return rewards

    def observe(self) -> Observation:
        """Return the observations of all rows, on the device, in new memory."""
        side = self.options.observation_size or self.image_size
        latent = as_seen(self.state.latent, side).contiguous()
        if self.options.observation == "latent":
            return latent
        spent = self.books.evaluations
        numbers = {"level": self.state.level, "evaluations": spent, "budget": self.budget - spent}
        if self.options.priced:
            numbers["step_cost"] = self.books.price
        return {
            "latent": latent,
            "x0": as_seen(self.state.x0, side).contiguous(),
            "change": as_seen(self.state.x0 - self._before, side).contiguous(),
            "lr": self._lr(),
        } | {
            name: torch.from_numpy(column[:, None].astype(np.float32)).to(self.device)
            for name, column in numbers.items()
        }

    def cells(self, row: int) -> list[Cell]:
        """Return one cell for each call, made or still to come."""
        made = self.books.calls[row, : self.books.evaluations[row]].tolist()
        reached = [self.model.schedule.steps, *(to for _, to, _ in made)]
        shown = [
            Cell(f"{told:g} > {to:g}", f"{to:g}", told < level)
            for (told, to, _), level in zip(made, reached, strict=False)
        ]
        return shown + [Cell("", "", None)] * (self.budget - len(made))
