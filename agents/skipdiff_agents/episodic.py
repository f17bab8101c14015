"""PPO for agents with a memory, on episodes of equal length that begin together.

sb3-contrib's RecurrentPPO cuts its roll-outs anywhere, pads the pieces and masks the padding. Here a roll-out
consists of whole episodes, and a minibatch of some of them, (F - 1, B), which begin with zero memory. Nothing
is padded, the memory is computed in one pass, and the convolutions see each distinct latent once (a skip
under ``reset`` shows the same latent again). The loss is computed by RecurrentPPO's own code.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RecurrentRolloutBufferSamples
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from skipdiff_env.errors import SkipDiffError

from .policy import SPNPolicy
from .sequence import Numbering, Seen


class EpisodeBuffer(RolloutBuffer):
    """A roll-out of whole episodes; each distinct latent is kept once, in one array.

    Attributes:
        latents: float32 (n_steps · n_envs, 3, n, n), of which the first ``len(numbering)`` are in use.
        numbers: index in ``latents`` of what was seen, int64 (n_steps, n_envs).
        length: number of decisions in an episode, a divisor of n_steps; None during the first roll-out.
    """

    length: int | None = None

    def reset(self) -> None:
        """Discard the roll-out."""
        shape = self.buffer_size, self.n_envs
        for name in ("rewards", "returns", "episode_starts", "values", "log_probs", "advantages"):
            setattr(self, name, np.zeros(shape, np.float32))
        self.actions = np.zeros(shape, np.int64)
        self.latents = np.empty((self.buffer_size * self.n_envs, *self.obs_shape), np.float32)
        self.numbers = np.zeros(shape, np.int64)
        self.numbering = Numbering()
        self.pos, self.full = 0, False

    def see(self, latents: np.ndarray) -> np.ndarray:
        """Keep the latents that the rows see now, (n_envs, 3, n, n).

        Returns:
            Those of the latents that are new in this roll-out.
        """
        first = len(self.numbering)
        self.numbers[self.pos], fresh = self.numbering(latents)
        new = self.latents[first : len(self.numbering)]
        new[:] = latents[fresh]
        return new

    def decide(self, actions: Tensor, rewards: np.ndarray, values: Tensor, log_probs: Tensor) -> None:
        """Keep the decision of every row, after :meth:`see`."""
        self.actions[self.pos], self.rewards[self.pos] = actions.cpu().numpy(), rewards
        self.values[self.pos] = values.flatten().cpu().numpy()
        self.log_probs[self.pos] = log_probs.cpu().numpy()
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def get(  # type: ignore[override]
        self, batch_size: int | None = None
    ) -> Generator[RecurrentRolloutBufferSamples, None, None]:
        """Yield minibatches of whole episodes in random order, each of about ``batch_size`` decisions."""
        length = self.length or self.buffer_size
        order = np.random.permutation(self.buffer_size * self.n_envs // length)
        size = len(order) if batch_size is None else max(round(batch_size / length), 1)
        columns = {
            name: np.moveaxis(getattr(self, name).reshape(-1, length, self.n_envs), 1, 0).reshape(length, -1)
            for name in ("numbers", "actions", "values", "log_probs", "advantages", "returns")
        }
        for first in range(0, len(order), size):
            yield self._minibatch({name: c[:, order[first : first + size]] for name, c in columns.items()})

    def _minibatch(self, part: dict[str, np.ndarray]) -> RecurrentRolloutBufferSamples:
        which, numbers = np.unique(part["numbers"], return_inverse=True)
        seen: Any = Seen(
            self.to_torch(self.latents[which]), self.to_torch(numbers.reshape(part["numbers"].shape))
        )
        told = {
            name: self.to_torch(part[name].flatten())
            for name in ("actions", "values", "log_probs", "advantages", "returns")
        }
        nothing: Any = None
        return RecurrentRolloutBufferSamples(
            seen, told["actions"], told["values"], told["log_probs"], told["advantages"], told["returns"],
            nothing, nothing, torch.ones(part["actions"].size, device=self.device),
        )  # fmt: skip


class EpisodicPPO(RecurrentPPO):
    """RecurrentPPO on whole episodes, with :class:`.policy.SPNPolicy`.

    ``learn``, ``predict``, callbacks, saving, loading and wrappers of the environment work as with
    RecurrentPPO.

    Args:
        arguments: the arguments of RecurrentPPO. ``n_steps`` must be a multiple of F - 1, and ``batch_size``
            is rounded to whole episodes.
        ent_coef_end: entropy coefficient at the end of training, to which ``ent_coef`` falls linearly; None:
            it is constant.
    """

    rollout_buffer: EpisodeBuffer
    policy: SPNPolicy

    def __init__(self, *arguments: Any, ent_coef_end: float | None = None, **named: Any) -> None:
        self.ent_coef_end = ent_coef_end
        super().__init__(*arguments, **named)
        self.ent_coef_start = self.ent_coef

    def train(self) -> None:
        """Update the policy with the roll-out."""
        if self.ent_coef_end is not None:
            left = self._current_progress_remaining
            self.ent_coef = left * self.ent_coef_start + (1 - left) * self.ent_coef_end
        super().train()

    def _setup_model(self) -> None:
        if not isinstance(self.observation_space, spaces.Box):
            raise SkipDiffError(
                'EpisodicPPO sees only latents: make the environment with observation="latent"'
            )
        super()._setup_model()
        if not isinstance(self.policy, SPNPolicy):
            raise SkipDiffError(f"EpisodicPPO trains an SPNPolicy, not a {type(self.policy).__name__}")
        self.rollout_buffer = EpisodeBuffer(
            self.n_steps, self.observation_space, self.action_space, self.device,
            self.gae_lambda, self.gamma, self.n_envs,
        )  # fmt: skip

    def collect_rollouts(  # type: ignore[override]
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: EpisodeBuffer, n_rollout_steps: int
    ) -> bool:
        """Play ``n_rollout_steps`` decisions in every row; return False if the callback ended the roll-out.

        Raises:
            SkipDiffError: if episodes do not end together, or not with the roll-out.
        """
        assert self._last_obs is not None
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        if not np.all(self._last_episode_starts):  # a callback ended the last roll-out within its episodes
            self._last_obs = env.reset()  # type: ignore[assignment]
        told, memory = None, None
        length = None
        for n_steps in range(1, n_rollout_steps + 1):
            latents: Any = self._last_obs
            with torch.no_grad():
                told = self.policy.tell(self._tensor(rollout_buffer.see(latents)), told)
                numbers = torch.from_numpy(rollout_buffer.numbers[n_steps - 1]).to(self.device)
                seen, memory = self.policy.remember(told[numbers][None], memory)
                actions, values, log_probs = self.policy.decide(seen[0])
            new_obs, rewards, dones, infos = env.step(actions.cpu().numpy())
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            self._last_obs, self._last_episode_starts = new_obs, dones  # type: ignore[assignment]
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
            rollout_buffer.decide(actions, rewards, values, log_probs)
            if dones.any():
                length = length or n_steps
                self._check_end(n_steps, length, dones, infos)
                memory = None
        if not dones.all():
            raise SkipDiffError(self._advice(length))
        rollout_buffer.length = length
        rollout_buffer.episode_starts[::length] = 1
        rollout_buffer.compute_returns_and_advantage(torch.zeros(env.num_envs), dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _check_end(self, n_steps: int, length: int, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        if not dones.all() or n_steps % length or any(info.get("TimeLimit.truncated") for info in infos):
            raise SkipDiffError(
                "EpisodicPPO needs episodes of equal length that begin and end together and are never cut "
                "short, as SkipDiffVecEnv plays them: use sb3-contrib's RecurrentPPO for other episodes"
            )

    def _advice(self, length: int | None) -> str:
        many = (
            "shorter than an episode"
            if length is None
            else f"not a multiple of {length}, the number of decisions in an episode"
        )
        return f"n_steps={self.n_steps} is {many}: give a multiple of F - 1"
