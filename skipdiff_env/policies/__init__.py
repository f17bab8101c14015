"""Policies, which decide when to skip, without any reinforcement-learning library.

- :mod:`.base`: the interface of policies, fixed starts, random skips, and the agent in a model's folder
- :mod:`.network`: the skip proposal network
- :mod:`.file`: reading and writing agents as files
- :mod:`.authors`: the agent that the paper's authors published
"""

from .base import CoinFlip, FixedStart, Policy, PolicySpec, shipped_policy

__all__ = ["CoinFlip", "FixedStart", "Policy", "PolicySpec", "shipped_policy"]
