"""A batch of SkipDiff-v0's episodes: what its environments drive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from ..diffusion import SKIP, SkipProcess, SkipState
from ..diffusion.refiner import resolve_refiner
from ..errors import SkipDiffError
from ..latent_cache import CachedProcess, LatentCache
from ..policies.file import as_seen
from .books import OPEN, Books
from .observing import observation_space
from .options import Options
from .scenes import Cell, Observation, Scenes


class Episodes(Scenes):
    """Episodes in which every fine level is denoised or skipped.

    Args:
        count: number of rows.
        options: the arguments of the environment.

    Attributes:
        process: CSA and FSR.
    """

    options: Options
    state: SkipState
    books: Books

    def __init__(self, count: int, options: Options) -> None:
        super().__init__(count, options)
        self.observation_space = observation_space(
            options,
            options.observation_size or self.image_size,
            self.process.fine_steps,
            self.image_size // self.model.scale,
        )
        self.action_space = spaces.Discrete(2)
        self.longest = self.process.decisions
        self.books = Books(count, self.process.coarse_steps, self.process.decisions, self._outcome())

    def _load_process(self) -> None:
        options = self.options
        settings = (self.model, options.coarse_steps, options.fine_steps, options.skip_rule)
        refine = resolve_refiner(options.refiner, self.model)
        self.process = SkipProcess(*settings, refine=refine)
        if options.cache is not None:
            self.process = CachedProcess(*settings, cache=options.cache, refine=refine)
        if self.process.decisions < 1:
            raise SkipDiffError(
                f"fine_steps={self.process.fine_steps} leaves nothing to decide (an episode has "
                "fine_steps - 1 decisions): give fine_steps=2 or more"
            )

    def begin(
        self,
        rows: Sequence[int] | np.ndarray,
        rngs: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Choose image and noise, and run CSA (S - 1 network calls)."""
        opening = self._opening(rows, rngs, options)
        self._put(rows, self.process.start(opening.condition, opening.keys), opening.pairs)
        self.books.begin(rows, opening.image, opening.noise_seed, opening.price)

    def step(
        self, rows: Sequence[int] | np.ndarray, actions: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decide in ``rows`` (0 denoise, 1 skip); after the last decision, finish and score.

        Returns:
            rewards, float64, and whether the episode is over, bool, both (len(rows),).
        """
        everyone = len(rows) == self.count
        before = self.state if everyone else self.state.select(rows)
        after = self.process.step(before, actions)
        done = after.level == 1
        if done.all():
            after = self.process.finish(after)
        elif done.any():
            last = np.flatnonzero(done)
            after = after.replace(last, self.process.finish(after.select(last)))
        self.state = after if everyone else self.state.replace(rows, after)
        rewards = self.books.decide(rows, actions)
        if done.any():
            rewards[done] += self._score(np.asarray(rows)[done])
        return rewards, done

    def _score(self, rows: np.ndarray) -> np.ndarray:
        """Reward of the finished ``rows``, float64; what there is to report goes into the books."""
        images, originals, finite = self._results(rows)
        scores = self._measure(images, originals)
        quality = np.where(finite, self.metric.rewards(scores["metric"]), np.nan)
        pictures = {"sr_image": images} if self.options.return_image else {}
        return self.books.finish(rows, quality, **scores, **pictures)

    @property
    def _scores(self) -> LatentCache | None:
        return self.options.cache

    def observe(self) -> Observation:
        """What the agent sees in every row, on the device, in fresh memory."""
        latent = as_seen(self.state.latent, self.options.observation_size or self.image_size).contiguous()
        if self.options.observation == "latent":
            return latent
        told = self.books.observation(self.options.priced)
        return {"latent": latent, "lr": self._lr()} | {
            name: torch.from_numpy(column).to(self.device) for name, column in told.items()
        }

    def cells(self, row: int) -> list[Cell]:
        """One a level, F … 1."""
        fine, actions = self.process.fine_steps, self.books.actions[row]
        last = [] if self.state.level[row] else [0]
        shown = [*actions[actions != OPEN].tolist(), *last]
        decided = [Cell(("denoise", "skip")[a], str(fine - i), a == SKIP) for i, a in enumerate(shown)]
        return decided + [Cell("", str(level), None) for level in range(fine - len(shown), 0, -1)]
