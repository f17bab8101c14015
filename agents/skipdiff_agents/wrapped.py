"""Agents of Stable-Baselines3 and sb3-contrib as policies for the sampler, ``upscale`` and comparisons.

Nothing is exported, and the agent may have any architecture: its own ``predict`` decides. ``skipdiff-agent
export`` writes files for machines without Stable-Baselines3.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

from skipdiff_env.errors import SkipDiffError, not_negative
from skipdiff_env.policies.file import as_seen

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

KNOWN = ("latent", "step", "step_cost")
"""The keys of a dictionary observation that a policy can see; a sampler's policies do not see the LR
image."""


class AgentPolicy:
    """A policy (see :mod:`skipdiff_env.policies`) that asks an agent; made by :func:`as_policy`."""

    def __init__(self, agent: BaseAlgorithm, step_cost: float, deterministic: bool) -> None:
        self.agent, self.step_cost, self.deterministic = agent, step_cost, deterministic
        space = agent.observation_space
        self._parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
        latent = self._parts["latent"] if self._parts else space
        assert latent.shape is not None
        self.side = latent.shape[-1]
        weights = hashlib.blake2b(digest_size=8)
        for weight in agent.policy.state_dict().values():
            weights.update(weight.detach().cpu().numpy().tobytes())
        self.settings: dict[str, Any] = {
            "policy": type(agent).__name__, "policy_hash": weights.hexdigest(),
        }  # fmt: skip
        if step_cost:
            self.settings["step_cost"] = step_cost

    def check_steps(self, fine_steps: int) -> None:
        """Raise a SkipDiffError if the agent counts its decisions and was trained for another F."""
        step = self._parts.get("step")
        if isinstance(step, spaces.Discrete) and step.n != fine_steps:
            raise SkipDiffError(
                f"the agent counts its decisions and was trained for F = {step.n}: use fine_steps={step.n}"
            )

    def __call__(self, latent: Tensor, memory: Any) -> tuple[np.ndarray, Any]:
        """Map latents (B, 3, H, W) of any size and memory (None at first) to actions (B,) and memory."""
        decisions, state = memory or (0, None)
        seen = as_seen(latent.float(), self.side).cpu().numpy()
        starts = np.full(len(seen), decisions == 0)
        observed = self._dictionary(seen, decisions) if self._parts else seen
        actions, state = self.agent.predict(observed, state, starts, self.deterministic)
        return actions, (decisions + 1, state)

    def _dictionary(self, seen: np.ndarray, decisions: int) -> dict[str, np.ndarray]:
        found = {
            "latent": seen,
            "step": np.full(len(seen), decisions),
            "step_cost": np.full((len(seen), 1), self.step_cost, np.float32),
        }
        # Our own extractors also receive the LR image, but ignore it.
        return {
            name: found[name] if name in found else np.zeros((len(seen), *space.shape), np.float32)  # type: ignore[misc]
            for name, space in self._parts.items()
        }


def as_policy(agent: BaseAlgorithm, step_cost: float = 0.0, deterministic: bool = True) -> AgentPolicy:
    """Turn an agent trained on ``SkipDiff-v0`` into a policy for the sampler, ``upscale`` or comparisons.

    Args:
        agent: an agent of Stable-Baselines3 or sb3-contrib, with or without a memory, trained on
            ``observation="latent"``, or on ``latent``, ``step`` and ``step_cost`` of the dictionary.
        step_cost: price per evaluation, for agents that were trained with prices.
        deterministic: whether to take the more probable action instead of drawing one.

    Raises:
        SkipDiffError: if the agent was trained for something else, or needs observations that a policy does
            not see; if the price is negative or not finite, or the agent was not trained with prices.
    """
    step_cost = not_negative("step_cost", step_cost)
    space, actions = agent.observation_space, agent.action_space
    if not (isinstance(actions, spaces.Discrete) and actions.n == 2):
        raise SkipDiffError(
            f"the agent's actions are {actions}, not Discrete(2): it is not an agent for SkipDiff-v0"
        )
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"latent": space}
    latent = parts.get("latent")
    shape = None if latent is None else latent.shape
    if shape is None or len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise SkipDiffError(
            f"the agent sees {space}, not a square latent (3, n, n): train it on SkipDiff-v0 without "
            "flattening"
        )
    unknown = sorted(set(parts) - {*KNOWN, *(["lr"] if _ignores_lr(agent) else [])})
    if unknown:
        raise SkipDiffError(
            f"the agent sees {unknown[0]!r}, which a sampler does not show its policies: train it on "
            'gymnasium.wrappers.FilterObservation(env, ["latent", "step"]), or with ClockExtractor'
        )
    if agent.get_vec_normalize_env() is not None:
        raise SkipDiffError(
            "the agent sees observations that VecNormalize scaled: train it without VecNormalize"
        )
    if step_cost and "step_cost" not in parts:
        raise SkipDiffError(
            f"step_cost={step_cost} was given, but this agent was not trained with prices: leave it out"
        )
    return AgentPolicy(agent, step_cost, deterministic)


def _ignores_lr(agent: BaseAlgorithm) -> bool:
    from .policy import ClockExtractor

    return any(isinstance(module, ClockExtractor) for module in agent.policy.modules())
