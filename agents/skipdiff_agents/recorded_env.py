"""The batched environment on recorded episodes: every step is a lookup."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from skipdiff_env.diffusion import SkipProcess
from skipdiff_env.envs.books import OUTCOME, UNKNOWN, Books, draw_price, paid, reward_of
from skipdiff_env.envs.observing import observation_space
from skipdiff_env.envs.options import Options
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics import load_metric


class Recordings(Protocol):
    """What is looked up: a :class:`.recording.RecordedSetting`."""

    @property
    def metric(self) -> Any:
        """The name of the metric that rewards go by."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the latents that are recorded, pixels."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are recorded."""

    @property
    def process(self) -> SkipProcess:
        """The process that was played."""

    @property
    def graph(self) -> Any:
        """The latents and outcomes of an episode, and what leads from one to another."""

    def latents(self, image: int, noise_seed: int, size: int) -> np.ndarray:
        """The latents of an episode, float16 (states, 3, size, size)."""

    def values(self, image: int, noise_seed: int) -> np.ndarray:
        """The metrics of every outcome, float64 (outcomes, metrics)."""

    def rewards(self, image: int, noise_seed: int) -> np.ndarray:
        """The reward of every outcome, float64 (outcomes,)."""


class RecordedVectorEnv(VectorEnv[Any, Any, Any]):
    """What :class:`skipdiff_env.envs.SkipDiffusionVectorEnv` does with ``autoreset_mode="Disabled"``.

    Observations are those of ``observation_size``, rounded to float16; ``lr`` is left out of the dictionary.
    ``reset`` wants ``image`` and ``noise_seed`` for every row. At the end infos tell the setting's other
    metrics, too, and ``reward``, what the environment would have paid for the episode, costs and all, and
    ``regret``, what the best schedule would have been paid more.

    Args:
        setting: holds the recordings.
        num_envs: number of rows.
        options: the arguments of the environment. ``observation_size`` is one of the setting's sizes, or None
            for the largest; there are no images to return.
        tensors: whether observations and rewards are tensors.
        reward_scale: if given, rewards are (r - the mean over all outcomes of the episode) / reward_scale,
            and so are costs. Neither changes which actions are best, but most of a reward's variance,
            how well an image can be done at all, is gone. ``reward`` and ``regret`` are as without it.
    """

    def __init__(
        self,
        setting: Recordings,
        num_envs: int,
        options: Options,
        tensors: bool = False,
        reward_scale: float | None = None,
    ) -> None:
        size = options.observation_size or max(setting.sizes)
        if size not in setting.sizes or options.return_image:
            raise SkipDiffError(
                f"recordings hold latents of {', '.join(map(str, setting.sizes))} pixels and no images: "
                f"record those of {size} pixels, too, or train without recordings"
            )
        self.setting, self.num_envs, self.size, self.options = setting, num_envs, size, options
        self.tensors, self.reward_scale = tensors, reward_scale
        self.process, self.graph = setting.process, setting.graph
        self.metric = load_metric(options.metric)
        self.autoreset_mode = AutoresetMode.DISABLED
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": []}
        self.single_observation_space = observation_space(options, size, self.process.fine_steps)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        outcome = dict.fromkeys((*setting.metrics, "reward", "regret"), UNKNOWN) | OUTCOME
        self.books = Books(num_envs, self.process.coarse_steps, self.process.decisions, outcome)
        self._level, self._generator = 0, np.random.default_rng()
        self._everyone, self._schedules = np.arange(num_envs), np.array(self.graph.schedules())

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every row: ``options`` are ``image``, ``noise_seed`` and ``step_cost``."""
        given = dict(options or {})
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        if not {"image", "noise_seed"} <= set(given):
            raise SkipDiffError("recorded episodes are chosen by the reset options 'image' and 'noise_seed'")
        drawn = [draw_price(self.options.step_cost, self._generator) for _ in range(self.num_envs)]
        self.books.begin(self._everyone, given["image"], given["noise_seed"], given.get("step_cost", drawn))
        self._episodes = list(zip(self.books.image.tolist(), self.books.noise_seed.tolist(), strict=True))
        self._latents = [self.setting.latents(*episode, self.size) for episode in self._episodes]
        self._level, self._state = self.process.fine_steps, np.zeros(self.num_envs, np.int64)
        return self._observe(), self.books.infos(self._everyone)

    def step(self, actions: Any) -> tuple[Any, Any, np.ndarray, np.ndarray, dict[str, Any]]:
        """Denoise (0) or skip (1) in every row."""
        if self._level < 2:
            raise ResetNeeded("the episodes are over, or none was begun: call reset() first")
        chosen = np.asarray(actions.cpu() if isinstance(actions, torch.Tensor) else actions)
        self._state = self.graph.next[self._level, self._state, chosen].astype(np.int64)
        self._level -= 1
        over = self._level == 1
        rewards: Any = self.books.decide(self._everyone, chosen)
        if over:
            rewards = rewards + self._score()
        if self.reward_scale is not None:
            rewards = rewards / self.reward_scale
        done = np.full(self.num_envs, over)
        # As in the batch itself, there is one more observation after the end; here it is the last one again.
        seen = self._last if over else self._observe()
        if self.tensors:
            rewards = torch.from_numpy(rewards).float()
        return seen, rewards, done, np.zeros_like(done), self.books.infos(self._everyone)

    def _observe(self) -> Any:
        latent = np.stack([seen[s] for seen, s in zip(self._latents, self._state, strict=True)])
        seen = {"latent": latent.astype(np.float32)}
        if self.options.observation == "dict":
            seen |= self.books.observation(self.options.priced)
        parts: Any = {name: torch.from_numpy(part) for name, part in seen.items()} if self.tensors else seen
        self._last = parts if self.options.observation == "dict" else parts["latent"]
        return self._last

    def _score(self) -> np.ndarray:
        """Rewards of the outcomes, (num_envs,); what there is to report goes into the books."""
        both = list(zip(self._episodes, self._state, strict=True))
        values = np.stack([self.setting.values(*episode)[outcome] for episode, outcome in both])
        scores = dict(zip(self.setting.metrics, values.T, strict=True))
        scores["metric"] = scores[str(self.setting.metric)]
        all_rewards = np.stack([self.setting.rewards(*episode) for episode in self._episodes])
        quality = self.metric.rewards(scores["metric"])
        total = paid(reward_of(quality), self.books.actions, self.books.price)
        best = paid(all_rewards, self._schedules, self.books.price[:, None]).max(axis=1)
        rewards = self.books.finish(self._everyone, quality, **scores, reward=total, regret=best - total)
        return rewards if self.reward_scale is None else rewards - all_rewards.mean(axis=1)
