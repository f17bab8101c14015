"""The batched environment on recorded episodes: every step is a lookup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from skipdiff_env.diffusion import DENOISE
from skipdiff_env.envs.episodes import LATENT_BOUND, checked_step_cost, draw_step_cost, step_cost_space
from skipdiff_env.errors import SkipDiffError

if TYPE_CHECKING:
    from .recording import RecordedSetting


class RecordedVectorEnv(VectorEnv[Any, Any, Any]):
    """What :class:`skipdiff_env.envs.SkipDiffusionVectorEnv` does with ``autoreset_mode="Disabled"``.

    Observations are those of ``observation_size``, rounded to float16; ``lr`` is left out of the dictionary.
    ``reset`` wants ``image`` and ``noise_seed`` for every row.

    Args:
        setting: holds the recordings.
        num_envs: number of rows.
        observation: ``latent`` or ``dict``.
        observation_size: one of the setting's sizes; None means the largest.
        step_cost: as in the environment.
        tensors: whether observations and rewards are tensors.
        reward_scale: if given, rewards are (r - the mean over all outcomes of the episode) / reward_scale,
            and so are costs. Neither changes which actions are best, but most of a reward's variance,
            how well an image can be done at all, is gone. ``info["reward"]`` is still what the environment
            would have paid for the episode, costs and all, and ``info["regret"]`` what the best schedule
            would have been paid more.
        return_image: there are no images: only False.
    """

    def __init__(
        self,
        setting: RecordedSetting,
        num_envs: int,
        observation: str = "latent",
        observation_size: int | None = None,
        step_cost: float | tuple[float, float] = 0.0,
        tensors: bool = False,
        reward_scale: float | None = None,
        return_image: bool = False,
    ) -> None:
        size = observation_size or max(setting.sizes)
        if size not in setting.sizes or return_image:
            raise SkipDiffError(
                f"recordings hold latents of {', '.join(map(str, setting.sizes))} pixels and no images: "
                f"record those of {size} pixels, too, or train without recordings"
            )
        self.setting, self.num_envs, self.size, self.tensors = setting, num_envs, size, tensors
        self.step_cost, self.reward_scale = checked_step_cost(step_cost), reward_scale
        self.process, self.graph, self.observation = setting.process, setting.graph, observation
        self.autoreset_mode = AutoresetMode.DISABLED
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": []}
        latent = spaces.Box(-LATENT_BOUND, LATENT_BOUND, (3, size, size), np.float32)
        self.single_observation_space: spaces.Space[Any] = latent
        if observation == "dict":
            parts: dict[str, spaces.Space[Any]] = {
                "latent": latent,
                "step": spaces.Discrete(self.process.fine_steps),
            }
            if isinstance(self.step_cost, tuple):
                parts["step_cost"] = step_cost_space(self.step_cost)
            self.single_observation_space = spaces.Dict(parts)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._level, self._generator = 0, np.random.default_rng()
        self._refinements = self.graph.refinements()

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every row: ``options`` are ``image``, ``noise_seed`` and ``step_cost``."""
        given = dict(options or {})
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        if not {"image", "noise_seed"} <= set(given):
            raise SkipDiffError("recorded episodes are chosen by the reset options 'image' and 'noise_seed'")
        rows = self.num_envs
        self._image = np.broadcast_to(given["image"], rows).astype(np.int64)
        self._seed = np.broadcast_to(given["noise_seed"], rows).astype(np.int64)
        drawn = [draw_step_cost(self.step_cost, self._generator) for _ in range(rows)]
        self._cost = np.broadcast_to(given.get("step_cost", drawn), rows).astype(np.float64)
        episodes = [(int(i), int(s)) for i, s in zip(self._image, self._seed, strict=True)]
        self._latents = [self.setting.latents(*episode, self.size) for episode in episodes]
        self._episodes = episodes
        self._level, self._state = self.process.fine_steps, np.zeros(rows, np.int64)
        self._evaluations = np.full(rows, self.process.coarse_steps - 1)
        self._actions: list[np.ndarray] = []
        return self._observe(), self._infos()

    def step(self, actions: Any) -> tuple[Any, Any, np.ndarray, np.ndarray, dict[str, Any]]:
        """Denoise (0) or skip (1) in every row."""
        if self._level < 2:
            raise ResetNeeded("the episodes are over, or none was begun: call reset() first")
        chosen = np.asarray(actions.cpu() if isinstance(actions, torch.Tensor) else actions)
        before = self._evaluations
        self._state = self.graph.next[self._level, self._state, chosen].astype(np.int64)
        self._actions.append(chosen)
        self._level -= 1
        over = self._level == 1
        self._evaluations = before + (chosen == DENOISE) + over
        rewards = -self._cost * (self._evaluations - before) + 0.0
        infos = self._infos()
        if over:
            rewards = rewards + self._score(infos)
        if self.reward_scale is not None:
            rewards = rewards / self.reward_scale
        done = np.full(self.num_envs, over)
        # As in the batch itself, there is one more observation after the end; here it is the last one again.
        seen = self._last if over else self._observe()
        if self.tensors:
            rewards = torch.from_numpy(rewards).float()
        return seen, rewards, done, np.zeros_like(done), infos

    def _observe(self) -> Any:
        latent: Any = np.stack([seen[s] for seen, s in zip(self._latents, self._state, strict=True)])
        latent = torch.from_numpy(latent).float() if self.tensors else latent.astype(np.float32)
        self._last: Any = latent
        if self.observation == "dict":
            step = np.full(self.num_envs, self.process.fine_steps - self._level)
            self._last = {"latent": latent, "step": torch.from_numpy(step) if self.tensors else step}
            if isinstance(self.step_cost, tuple):
                cost = self._cost[:, None].astype(np.float32)
                self._last["step_cost"] = torch.from_numpy(cost) if self.tensors else cost
        return self._last

    def _infos(self) -> dict[str, Any]:
        actions = np.empty(self.num_envs, object)
        for row in range(self.num_envs):
            actions[row] = [int(a[row]) for a in self._actions]
        infos: dict[str, Any] = {
            "image": self._image, "noise_seed": self._seed, "evaluations": self._evaluations,
            "actions": actions,
        }  # fmt: skip
        if isinstance(self.step_cost, tuple):
            infos["step_cost"] = self._cost
        return infos | {f"_{name}": np.ones(self.num_envs, np.bool_) for name in infos}

    def _score(self, infos: dict[str, Any]) -> np.ndarray:
        """Rewards of the outcomes, (num_envs,); their scores go into ``infos``."""
        both = list(zip(self._episodes, self._state, strict=True))
        values = np.stack([self.setting.values(*episode)[outcome] for episode, outcome in both])
        all_rewards = [self.setting.rewards(*episode) for episode in self._episodes]
        rewards = np.array([found[outcome] for found, (_, outcome) in zip(all_rewards, both, strict=True)])
        names = self.setting.metrics
        scores = {name: values[:, column] for column, name in enumerate(names)}
        scores["metric"] = scores[str(self.setting.metric)]
        scores["reward_valid"] = np.isfinite(scores["metric"])
        # CSA is paid by everyone and cannot be avoided, so that it costs nothing.
        spent = self._evaluations - (self.process.coarse_steps - 1)
        scores["reward"] = rewards - self._cost * spent
        returns = np.stack(all_rewards) - self._cost[:, None] * self._refinements
        scores["regret"] = returns.max(axis=1) - scores["reward"]
        everyone = np.ones(self.num_envs, np.bool_)
        infos.update(scores)
        infos.update({f"_{name}": everyone for name in scores})
        if self.reward_scale is not None:
            return rewards - np.array([found.mean() for found in all_rewards])
        return rewards
