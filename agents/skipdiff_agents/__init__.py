"""Agents of Stable-Baselines3 that learn when to skip.

``EpisodicPPO`` with ``SPNPolicy`` trains the paper's agent; ``as_policy`` turns a trained agent into a
policy for the sampler.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .episodic import EpisodicPPO
    from .policy import SPNPolicy
    from .wrapped import as_policy

__all__ = ["EpisodicPPO", "SPNPolicy", "as_policy"]

_MODULES = {"EpisodicPPO": "episodic", "SPNPolicy": "policy", "as_policy": "wrapped"}
"""Modules that are imported when their names are first used, since they need Stable-Baselines3."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
