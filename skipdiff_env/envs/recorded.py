"""SkipDiffRecorded-v0: recorded episodes of SkipDiff-v0, in which every step is a lookup."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from ..diffusion import DiffusionModel, SkipProcess
from ..errors import SkipDiffError
from ..images import episode_pair
from ..metrics import Metric, load_metric, or_zero
from .books import OUTCOME, UNKNOWN, Books, paid
from .observing import observation_space
from .options import RecordedOptions
from .recordings import Episode, Recordings, hashes
from .scenes import Cell, Observation, Scenes
from .single import SceneEnv
from .vector import SceneVectorEnv


class RecordedEpisodes(Scenes):
    """Episodes that are looked up in recordings.

    Args:
        count: number of rows.
        options: the arguments of the environment. If ``recordings`` is a :class:`.Recordings`, episodes are
            recorded when they are first played; otherwise all episodes that may be drawn are recorded at
            once.
    """

    options: RecordedOptions
    books: Books

    def __init__(self, count: int, options: RecordedOptions) -> None:
        super().__init__(count, options)
        self._open_recordings()
        if not isinstance(options.recordings, Recordings):
            self.recordings.prepare(self.drawn)
        self.side = options.observation_size
        if self.side not in self.recordings.sizes:
            raise SkipDiffError(
                f"the recordings hold latents of {', '.join(map(str, self.recordings.sizes))} pixels: record "
                f"those of {self.side} pixels too, or play without recordings"
            )
        self.observation_space = observation_space(options, self.side, self.process.fine_steps)
        self.action_space = spaces.Discrete(2)
        self.longest = self.process.decisions
        self._told = [name for name in self.recordings.metrics if self._has(load_metric(name))]
        extra = (*self._told, "episode_return", "regret", "mean_reward")
        outcome = dict.fromkeys(extra, UNKNOWN) | OUTCOME
        self.books = Books(count, self.process.coarse_steps, self.process.decisions, outcome)
        self._level, self._state = np.zeros((2, count), np.int64)
        self._seen: list[np.ndarray] = []

    def _load_process(self) -> None:
        if isinstance(self.options.recordings, Recordings):
            self.process = self.options.recordings.process
        else:
            options = self.options
            self.process = SkipProcess(
                self.model, options.coarse_steps, options.fine_steps, options.skip_rule
            )

    def _check_recordings(self, recordings: Recordings) -> None:
        """Raise a SkipDiffError that names the argument if the recordings were made with other arguments."""

        def compare(**asked: tuple[Any, Any]) -> None:
            for name, (wanted, held) in asked.items():
                if wanted != held:
                    raise SkipDiffError(
                        f"the recordings were made with {name}={held!r}, not {wanted!r}: give the same, or a "
                        "folder"
                    )

        options, process = self.options, recordings.process
        fine = options.fine_steps or self.model.schedule.stride(options.coarse_steps)
        compare(
            model=(self.model.hash, process.model.hash),
            coarse_steps=(options.coarse_steps, process.coarse_steps),
            fine_steps=(fine, process.fine_steps),
            skip_rule=(options.skip_rule, process.skip_rule),
            metric=(options.metric, recordings.metric),
        )
        ours, theirs = self._pair(0, 0), recordings.pair(0, 0)
        compare(
            low_resolution=(ours.hr is None, theirs.hr is None),
            image_size=(self.image_size, theirs.lr.shape[0] * self.model.scale),
        )
        if hashes(ours) != hashes(theirs):
            raise SkipDiffError(
                "the recordings were made of other pictures: give the same images= and crop=, or a folder"
            )

    def _has(self, metric: Metric) -> bool:
        """Return whether results can be judged by a metric; psnr and ssim are always reported."""
        known = self.image_size >= metric.min_size and not (metric.reference and self.source.low_resolution)
        return known or metric.name in OUTCOME

    def _open_recordings(self) -> None:
        options = self.options
        if isinstance(options.recordings, Recordings):
            self._check_recordings(options.recordings)
            self.recordings = options.recordings
            return
        pair = partial(
            episode_pair, self.source, scale=self.model.scale, image_size=self.image_size, crop=options.crop
        )
        sizes = (options.observation_size,)
        self.recordings = Recordings(self.process, pair, options.metric, options.recordings, sizes)

    @property
    def drawn(self) -> list[Episode]:
        """Image and noise seed of every episode that may be drawn."""
        return list(product(range(len(self.source)), range(self.options.noise_seeds)))

    @property
    def spread(self) -> float:
        """The standard deviation of the outcomes' rewards in an episode, averaged over ``drawn``; 1 if that
        is 0."""
        return self.recordings.spread(self.drawn)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "recordings"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._open_recordings()

    def _draw(self, rng: np.random.Generator) -> dict[str, Any]:
        return super()._draw(rng) | {"noise_seed": int(rng.integers(self.options.noise_seeds))}

    def begin(
        self,
        rows: Sequence[int] | np.ndarray,
        rngs: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Choose the images and the noise, and look up the episodes."""
        images, seeds, prices = self._chosen(rows, rngs, options)
        latents = [self.recordings.latents(*each, self.side) for each in zip(images, seeds, strict=True)]
        if len(rows) == self.count:
            self._seen = latents
        for row, seen in zip(rows, latents, strict=True):
            self._seen[row] = seen
        self._level[rows], self._state[rows] = self.process.fine_steps, 0
        self.books.begin(rows, images, seeds, prices)

    def step(
        self, rows: Sequence[int] | np.ndarray, actions: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take a decision in each of ``rows`` (0 = denoise, 1 = skip).

        Returns:
            The rewards, float64, and whether the episodes are over, bool, both (len(rows),).
        """
        rows, actions = np.asarray(rows), self._checked(actions)
        self._state[rows] = self.recordings.graph.next[self._level[rows], self._state[rows], actions]
        self._level[rows] -= 1
        done = self._level[rows] == 1
        rewards = self.books.decide(rows, actions)
        if done.any():
            over = rows[done]
            rewards[done] += self._score(over)
            # the last denoising step, which is never skipped, leads to the outcome with the same number
            self._level[over] = 0
            self._state[over] += len(self.recordings.graph.states)
        return rewards, done

    def _score(self, rows: np.ndarray) -> np.ndarray:
        """Return the rewards of the outcomes of ``rows``; scores and results are entered in the books."""
        books, recordings = self.books, self.recordings
        episodes = list(zip(books.image[rows].tolist(), books.noise_seed[rows].tolist(), strict=True))
        reached = zip(episodes, self._state[rows], strict=True)
        values = np.stack([recordings.values(*episode)[outcome] for episode, outcome in reached])
        known = dict(zip(recordings.metrics, values.T, strict=True))
        scores = {name: known[name] for name in self._told} | {"metric": known[recordings.metric]}
        quality = self.metric.rewards(scores["metric"])
        everything = np.stack([recordings.rewards(*episode) for episode in episodes])
        prices, schedules = books.price[rows], recordings.schedules
        total = paid(or_zero(quality), books.actions[rows], prices)
        best = paid(everything, schedules, prices[:, None]).max(axis=1)
        told = {"episode_return": total, "regret": best - total, "mean_reward": everything.mean(axis=1)}
        return books.finish(rows, quality, **scores, **told)

    def observe(self) -> Observation:
        """Return the observations of all rows, on the device, in new memory."""
        seen = np.stack([latents[s] for latents, s in zip(self._seen, self._state, strict=True)])
        latent = torch.from_numpy(seen.astype(np.float32)).to(self.device)
        if self.options.observation == "latent":
            return latent
        told = self.books.observation(self.options.priced)
        return {"latent": latent} | {
            name: torch.from_numpy(column).to(self.device) for name, column in told.items()
        }

    @property
    def begun(self) -> bool:
        """Whether every row has an episode."""
        return bool(self._seen)

    def finished(self, row: int) -> bool:
        """Return whether the episode of a row is over or has not begun yet."""
        return not self.begun or bool(self._level[row] == 0)

    def cells(self, row: int) -> list[Cell]:
        """Return an empty list, since recorded episodes are not rendered."""
        return []


class RecordedEnv(SceneEnv):
    """Recorded episodes of SkipDiff-v0: the same decisions, observations and rewards, obtained by lookups.

    ## Description

    At S = F = 10 under `reset`, an episode has a few dozen states, and recording them takes 64 network calls.
    They are computed once, when the environment is made for the first time, and kept in files; progress is
    reported on standard error. After that, every step is a lookup, and a batch of 64 takes tens of thousands
    of steps per second on one core.
    `reset(options={"image": i, "noise_seed": n})` starts the episode that SkipDiff-v0 starts with the same
    options and arguments; if necessary, it is recorded first.

    ## Action Space

    `Discrete(2)`, as in SkipDiff-v0: 0 denoises, and 1 skips.

    ## Observation Space

    Observations are those of SkipDiff-v0 with the same `observation_size`, rounded to half precision
    (float16, returned as float32). The dictionary has no key `lr`.

    ## Rewards

    The rewards are those of SkipDiff-v0. The wrappers `skipdiff_env.wrappers.RelativeReward` and, for
    batches, `RelativeVectorReward` make rewards relative to the mean of the episode's outcomes. This removes
    most of the variance of returns, which is due to differences in how well images can be enlarged.

    ## Starting State

    An image and one of `noise_seeds` noise seeds are drawn; the random crop is a function of the two.

    ## Episode End

    The episode ends after F - 1 decisions, as in SkipDiff-v0.

    ## Arguments

    ```python
    gymnasium.make_vec("SkipDiffRecorded-v0", num_envs=64)
    ```

    | Argument | Default | Meaning |
    |---|---|---|
    | `model` | `"natural-4x"` | a name, folder, hub id or model object (`skipdiff_env.diffusion.interop`) |
    | `images` | `None` | a folder, `.tar`, file, list or torch Dataset; None: the bundled photographs |
    | `metric` | `"niqe"` | `"niqe"`, `"lpips"`, or the name of any pyiqa metric |
    | `coarse_steps` | `10` | number of coarse steps S, a divisor of T |
    | `fine_steps` | `None` | number of fine levels F, 2 ... T; None: T/S |
    | `skip_rule` | `"reset"` | what a skip does, see Action Space: `"reset"` or `"hold"` |
    | `noise_seeds` | `2` | number of noise seeds per image: 0, 1, ... |
    | `recordings` | `None` | folder of the recordings; None: `skipdiff/recordings` in the user's cache |
    | `observation` | `"latent"` | `"latent"` or `"dict"` |
    | `observation_size` | `32` | side of the observed latent in pixels |
    | `image_size` | `None` | side of HR and SR in pixels; None: the model's, or 192 if `images` is None |
    | `crop` | `"random"` | where larger images are cropped: `"random"` or `"center"` |
    | `low_resolution` | `False` | whether `images` are LR images without originals |
    | `step_cost` | `0.0` | price of a network evaluation in units of reward, or a range (low, high) |
    | `device` | `"auto"` | where the model and the metric run; `"auto"` takes CUDA if it is available |

    ## Info

    The keys are those of SkipDiff-v0 and these, which are -1 before the end of the episode:

    | Key | Type | Meaning |
    |---|---|---|
    | `niqe`, `lpips` | `float` | these metrics of the result; missing if the images do not allow them |
    | `episode_return` | `float` | the sum of the episode's rewards |
    | `regret` | `float` | how much higher the return of the best schedule is |
    | `mean_reward` | `float` | the mean reward of all outcomes of the episode, without costs |

    The score of any other `metric` is also given under its own name.

    ## Version History

    * v0: first version
    """

    metadata = {"render_modes": []}
    scenes = RecordedEpisodes
    _episodes: RecordedEpisodes

    def __init__(
        self,
        model: str | os.PathLike[str] | DiffusionModel = "natural-4x",
        images: Any = None,
        metric: str = "niqe",
        coarse_steps: int = 10,
        fine_steps: int | None = None,
        skip_rule: Literal["reset", "hold"] = "reset",
        noise_seeds: int = 2,
        recordings: str | os.PathLike[str] | Recordings | None = None,
        observation: Literal["latent", "dict"] = "latent",
        observation_size: int = 32,
        image_size: int | None = None,
        crop: Literal["random", "center"] = "random",
        low_resolution: bool = False,
        step_cost: float | tuple[float, float] = 0.0,
        device: str | torch.device = "auto",
        render_mode: None = None,
    ) -> None:
        self._open(RecordedOptions.pick(locals()), render_mode)

    def render(self) -> None:
        """Warn that recordings hold no pictures to draw."""
        gymnasium.logger.warn("recorded episodes are not rendered: make SkipDiff-v0 to see them")

    @property
    def process(self) -> SkipProcess:
        """The process that was recorded."""
        return self._episodes.process

    @property
    def reward_spread(self) -> float:
        """The standard deviation of the outcomes' rewards in an episode, averaged over all episodes; 1 if
        that is 0."""
        return self._episodes.spread


class RecordedVectorEnv(SceneVectorEnv):
    """The class that ``gymnasium.make_vec("SkipDiffRecorded-v0", num_envs=n)`` makes; see
    :class:`.SceneVectorEnv`, and :class:`.RecordedEnv` for the arguments."""

    metadata = SceneVectorEnv.metadata | {"render_modes": []}
    scenes = RecordedEpisodes
    options = RecordedOptions
    _episodes: RecordedEpisodes

    @property
    def process(self) -> SkipProcess:
        """The process that was recorded."""
        return self._episodes.process

    @property
    def reward_spread(self) -> float:
        """The standard deviation of the outcomes' rewards in an episode, averaged over all episodes; 1 if
        that is 0."""
        return self._episodes.spread
