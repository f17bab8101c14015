"""SkipDiff: reinforcement-learning environments around a frozen super-resolution diffusion model.

Importing this package registers ``SkipDiff-v0``, ``SkipDiff-v1`` and ``SkipDiffRecorded-v0`` with Gymnasium.
``gymnasium.make("skipdiff_env:SkipDiff-v0")`` imports the package itself.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import SkipDiffError

if TYPE_CHECKING:
    from .diffusion import load_pretrained
    from .envs import (
        SkipDiffusionCallEnv,
        SkipDiffusionCallVectorEnv,
        SkipDiffusionEnv,
        SkipDiffusionVectorEnv,
    )
    from .latent_cache import LatentCache
    from .metrics import load_metric
    from .oracle import find_optimum
    from .plan_oracle import find_optimal_plan
    from .planning import find_plan
    from .sampler import SkipDiffSampler

__all__ = [
    "LatentCache",
    "SkipDiffError",
    "SkipDiffSampler",
    "SkipDiffusionCallEnv",
    "SkipDiffusionCallVectorEnv",
    "SkipDiffusionEnv",
    "SkipDiffusionVectorEnv",
    "__version__",
    "find_optimal_plan",
    "find_optimum",
    "find_plan",
    "load_metric",
    "load_pretrained",
]

_LATER = {
    "LatentCache": ".latent_cache",
    "SkipDiffSampler": ".sampler",
    "SkipDiffusionCallEnv": ".envs",
    "SkipDiffusionCallVectorEnv": ".envs",
    "SkipDiffusionEnv": ".envs",
    "SkipDiffusionVectorEnv": ".envs",
    "find_optimal_plan": ".plan_oracle",
    "find_optimum": ".oracle",
    "find_plan": ".planning",
    "load_metric": ".metrics",
    "load_pretrained": ".diffusion",
}
"""Names that are imported on first use, and their modules; these need torch or Gymnasium."""

# Gymnasium may be missing on machines that only train models, since that does not need it.
if find_spec("gymnasium") is not None:
    from .envs.registration import register_envs

    register_envs()


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
