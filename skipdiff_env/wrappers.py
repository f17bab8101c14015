"""Wrappers for recorded episodes that make rewards relative to the mean of the episode's outcomes.

Most of the variance of a reward comes from how well an image can be enlarged at all, which no decision
changes. A recording holds every outcome of its episode, so the mean of their rewards can be subtracted. The
best actions stay the same.
"""

from __future__ import annotations

import math
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from torch import Tensor

from .envs.recorded import RecordedEnv, RecordedVectorEnv
from .errors import SkipDiffError


def _scale(env: Any, scale: float | None) -> float:
    if not isinstance(env, (RecordedEnv, RecordedVectorEnv)):
        raise SkipDiffError(
            "relative rewards need recorded episodes, all of whose outcomes are known: make "
            f"SkipDiffRecorded-v0, not {type(env).__name__}"
        )
    if scale is None:
        return env.reward_spread
    if not (isinstance(scale, (int, float, np.number)) and 0 < scale < math.inf):
        raise SkipDiffError(f"scale={scale!r} must be a finite number above 0, or None")
    return float(scale)


class RelativeReward(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Subtracts the outcomes' mean reward from the last reward of an episode, and divides all rewards by a
    scale.

    ``info["episode_return"]`` and ``info["regret"]`` are unchanged.

    Args:
        env: an environment of ``SkipDiffRecorded-v0``.
        scale: number by which rewards and costs are divided. None: the standard deviation of the rewards of
            an episode's outcomes, averaged over episodes, which makes returns of the order of 1.

    Raises:
        SkipDiffError: if ``env`` is another environment, or ``scale`` is not finite and above 0.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], scale: float | None = None) -> None:
        gymnasium.Wrapper.__init__(self, env)
        self.scale = _scale(env.unwrapped, scale)
        RecordConstructorArgs.__init__(self, scale=None if scale is None else self.scale)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a decision."""
        seen, reward, terminated, truncated, info = self.env.step(action)
        mean = info["mean_reward"] if terminated else 0.0
        return seen, (float(reward) - mean) / self.scale, terminated, truncated, info


class RelativeVectorReward(VectorWrapper[Any, Any, Any, Any, Any]):
    """:class:`RelativeReward` for batches of ``SkipDiffRecorded-v0``; the arguments are the same."""

    def __init__(self, env: VectorEnv[Any, Any, Any], scale: float | None = None) -> None:
        super().__init__(env)
        self.scale = _scale(env.unwrapped, scale)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take a decision in each copy."""
        seen, rewards, terminated, truncated, infos = self.env.step(actions)
        same_step = self.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        told = infos.get("final_info", infos) if same_step else infos
        if terminated.any():
            means = told["mean_reward"]
            if isinstance(rewards, Tensor):
                means = torch.as_tensor(means, dtype=rewards.dtype, device=rewards.device)
            rewards = rewards - means * terminated
        return seen, rewards / self.scale, terminated, truncated, infos

    def __getattr__(self, name: str) -> Any:
        """Forward any other attribute to the environment."""
        if name.startswith("_") or name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)
