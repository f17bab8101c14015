"""SkipDiff as Gymnasium environments: v0, with the paper's decisions to skip; v1, in which every network call
is a decision; and recorded episodes of v0, in which every step is a lookup.

Heavy libraries are imported only when one of the classes is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registration import CALL_ENV_ID, ENV_ID, RECORDED_ENV_ID, register_envs

if TYPE_CHECKING:
    from .call_env import SkipDiffusionCallEnv
    from .call_vector import SkipDiffusionCallVectorEnv
    from .recorded import RecordedEnv, RecordedVectorEnv
    from .skip_diffusion import SkipDiffusionEnv
    from .skip_diffusion_vector import SkipDiffusionVectorEnv

__all__ = [
    "CALL_ENV_ID",
    "ENV_ID",
    "RECORDED_ENV_ID",
    "RecordedEnv",
    "RecordedVectorEnv",
    "SkipDiffusionCallEnv",
    "SkipDiffusionCallVectorEnv",
    "SkipDiffusionEnv",
    "SkipDiffusionVectorEnv",
    "register_envs",
]

_LATER = {
    "RecordedEnv": ".recorded",
    "RecordedVectorEnv": ".recorded",
    "SkipDiffusionCallEnv": ".call_env",
    "SkipDiffusionCallVectorEnv": ".call_vector",
    "SkipDiffusionEnv": ".skip_diffusion",
    "SkipDiffusionVectorEnv": ".skip_diffusion_vector",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
