"""SkipDiff-v0: the skip decisions of a super-resolution diffusion model as a Gymnasium environment.

Nothing heavy is imported before one of the classes is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registration import ENV_ID, register_envs

if TYPE_CHECKING:
    from .skip_diffusion import SkipDiffusionEnv
    from .skip_diffusion_vector import SkipDiffusionVectorEnv

__all__ = ["ENV_ID", "SkipDiffusionEnv", "SkipDiffusionVectorEnv", "register_envs"]


def __getattr__(name: str) -> Any:
    if name == "SkipDiffusionEnv":
        from .skip_diffusion import SkipDiffusionEnv

        return SkipDiffusionEnv
    if name == "SkipDiffusionVectorEnv":
        from .skip_diffusion_vector import SkipDiffusionVectorEnv

        return SkipDiffusionVectorEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
