"""The batch of episodes behind the environments of SkipDiff-v0."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..diffusion import SKIP, SkipProcess, SkipState
from ..diffusion.process import History
from ..diffusion.refiner import resolve_refiner
from ..errors import SkipDiffError
from ..latent_cache import CachedProcess
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
        process: the process that runs CSA and FSR.
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
        self._shrunk: list[dict[History, Tensor]] = [{} for _ in range(count)]
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
        """Choose the images and the noise, and run CSA (S - 1 network calls)."""
        opening = self._opening(rows, rngs, options)
        self._put(rows, self.process.start(opening.condition, opening.keys), opening.pairs)
        for row in rows:
            self._shrunk[row] = {}
        self.books.begin(rows, opening.image, opening.noise_seed, opening.price)

    def step(
        self, rows: Sequence[int] | np.ndarray, actions: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take a decision in each of ``rows`` (0 = denoise, 1 = skip); after the last one, finish and score.

        Returns:
            The rewards, float64, and whether the episodes are over, bool, both (len(rows),).
        """
        actions = self._checked(actions)
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
        """Return the rewards of the finished ``rows``, float64; scores and results are entered in the
        books."""
        results, originals = self._results(rows)
        measured = self._measure(results.images, originals)
        scores = {name: results.valid(column) for name, column in measured.items()}
        pictures = {"sr_image": results.images} if self.options.return_image else {}
        return self.books.finish(rows, self.metric.rewards(scores["metric"]), **scores, **pictures)

    def _measure(self, images: np.ndarray, references: np.ndarray | None) -> dict[str, np.ndarray]:
        """Measure ``metric``, ``psnr`` and ``ssim``, each (B,). A cache, if there is one, keeps the scores,
        since scoring would otherwise take nearly all the time once the latents are cached."""
        cache = self.options.cache
        if cache is None:
            return self._compute(images, references)
        digests = [[_digest(batch[i]) for batch in (images, references) if batch is not None]
                   for i in range(len(images))]  # fmt: skip
        names = [(self.metric, *digest) for digest in digests]
        scores = [cache.score(name) for name in names]
        missing = [i for i, known in enumerate(scores) if known is None]
        if missing:
            fresh = self._compute(images[missing], None if references is None else references[missing])
            for row, i in enumerate(missing):
                scores[i] = {key: column[row].item() for key, column in fresh.items()}
                cache.put_score(names[i], scores[i])
        return {key: np.array([found[key] for found in scores if found]) for key in scores[0] or ()}

    def _compute(self, images: np.ndarray, references: np.ndarray | None) -> dict[str, np.ndarray]:
        return {"metric": self.metric(images, references), **self._fidelity(images, references)}

    def observe(self) -> Observation:
        """Return the observations of all rows, on the device, in new memory."""
        latent = self._latents()
        if self.options.observation == "latent":
            return latent
        told = self.books.observation(self.options.priced)
        return {"latent": latent, "lr": self._lr()} | {
            name: torch.from_numpy(column).to(self.device) for name, column in told.items()
        }

    def _latents(self) -> Tensor:
        """Return the latents as agents see them, float32 (B, 3, n, n); each is resized only once in an
        episode."""
        side, latent, histories = self.options.observation_size, self.state.latent, self.state.history
        if side in (None, latent.shape[-1]):
            return as_seen(latent, latent.shape[-1]).contiguous()
        new = [row for row, past in enumerate(histories) if past not in self._shrunk[row]]
        if new:
            for row, small in zip(new, as_seen(latent[new], side), strict=True):
                self._shrunk[row][histories[row]] = small
        return torch.stack([self._shrunk[row][past] for row, past in enumerate(histories)])

    def cells(self, row: int) -> list[Cell]:
        """Return one cell for each level, F … 1."""
        fine, actions = self.process.fine_steps, self.books.actions[row]
        last = [] if self.state.level[row] else [0]
        shown = [*actions[actions != OPEN].tolist(), *last]
        decided = [Cell(("denoise", "skip")[a], str(fine - i), a == SKIP) for i, a in enumerate(shown)]
        return decided + [Cell("", str(level), None) for level in range(fine - len(shown), 0, -1)]


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
