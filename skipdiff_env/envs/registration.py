"""Makes ``gymnasium.make("SkipDiff-v0")`` known."""

from __future__ import annotations

import gymnasium

ENV_ID = "SkipDiff-v0"


def register_envs() -> None:
    """Register the environment, once, without importing it. ``import skipdiff_env`` calls this."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            ENV_ID,
            entry_point="skipdiff_env.envs.skip_diffusion:SkipDiffusionEnv",
            vector_entry_point="skipdiff_env.envs.skip_diffusion_vector:SkipDiffusionVectorEnv",
        )
