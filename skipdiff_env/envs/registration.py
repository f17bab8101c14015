"""Makes ``gymnasium.make("SkipDiff-v0")`` and ``"SkipDiff-v1"`` known."""

from __future__ import annotations

import gymnasium

ENV_ID, CALL_ENV_ID = "SkipDiff-v0", "SkipDiff-v1"

ENTRY_POINTS = {
    ENV_ID: ("skip_diffusion:SkipDiffusionEnv", "skip_diffusion_vector:SkipDiffusionVectorEnv"),
    CALL_ENV_ID: ("call_env:SkipDiffusionCallEnv", "call_vector:SkipDiffusionCallVectorEnv"),
}
"""By id, the environment and its batched form, in this room."""


def register_envs() -> None:
    """Register the environments, once, without importing them. ``import skipdiff_env`` calls this."""
    for name, (single, vector) in ENTRY_POINTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(
                name,
                entry_point=f"skipdiff_env.envs.{single}",
                vector_entry_point=f"skipdiff_env.envs.{vector}",
            )
