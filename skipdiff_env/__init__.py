"""SkipDiff: reinforcement-learning environments around a frozen super-resolution diffusion model.

Importing this package registers ``SkipDiff-v0`` with Gymnasium; without an import,
``gymnasium.make("skipdiff_env:SkipDiff-v0")`` does the same.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .diffusion import load_pretrained
from .errors import SkipDiffError
from .sampler import SkipDiffSampler

if TYPE_CHECKING:
    from .oracle import find_optimum

__all__ = ["SkipDiffError", "SkipDiffSampler", "find_optimum", "load_pretrained"]

# Training needs no Gymnasium, and machines that only train need not have it.
if find_spec("gymnasium") is not None:
    from .envs.registration import register_envs

    register_envs()


def __getattr__(name: str) -> Any:
    """Load the optimum, and with it images and metrics, when it is first asked for."""
    if name == "find_optimum":
        from .oracle import find_optimum

        return find_optimum
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
