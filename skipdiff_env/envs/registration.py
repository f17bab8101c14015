"""Registers ``SkipDiff-v0``, ``SkipDiff-v1`` and ``SkipDiffRecorded-v0`` with Gymnasium."""

from __future__ import annotations

import gymnasium
from gymnasium.envs.registration import EnvSpec, parse_env_id

ENV_ID, CALL_ENV_ID, RECORDED_ENV_ID = "SkipDiff-v0", "SkipDiff-v1", "SkipDiffRecorded-v0"

ENTRY_POINTS = {
    ENV_ID: ("skip_diffusion:SkipDiffusionEnv", "skip_diffusion_vector:SkipDiffusionVectorEnv"),
    CALL_ENV_ID: ("call_env:SkipDiffusionCallEnv", "call_vector:SkipDiffusionCallVectorEnv"),
    RECORDED_ENV_ID: ("recorded:RecordedEnv", "recorded:RecordedVectorEnv"),
}
"""For each id, the environment and its batched form in this package."""


def register_envs() -> None:
    """Register the environments once, without importing them. ``import skipdiff_env`` calls this."""
    for name, (single, vector) in ENTRY_POINTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=f"skipdiff_env.envs.{single}",
                vector_entry_point=f"skipdiff_env.envs.{vector}",
            )
    # v1 is a different problem and does not replace v0. Without this, Gymnasium would warn at every make of
    # v0 that it is out of date.
    gymnasium.registry[CALL_ENV_ID].name, gymnasium.registry[CALL_ENV_ID].version = CALL_ENV_ID, None


def complete(spec: EnvSpec, max_episode_steps: int) -> EnvSpec:
    """Complete the spec of an environment that Gymnasium has just made, so that environments made from it get
    the same spec.

    The name and the version are those of the id, which the registry hides for v1. The limit on the number of
    decisions is not an argument but a field, from which :func:`gymnasium.make` and :func:`gymnasium.make_vec`
    read it.
    """
    _, spec.name, spec.version = parse_env_id(spec.id)
    spec.kwargs.pop("max_episode_steps", None)
    spec.max_episode_steps = max_episode_steps
    return spec
