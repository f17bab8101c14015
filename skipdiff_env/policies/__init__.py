"""What can decide when to skip, without any reinforcement-learning library.

- :mod:`.base`: what a policy is, fixed starts, chance, and the agent in a model's folder
- :mod:`.network`: the skip proposal network
- :mod:`.file`: agents as files
- :mod:`.authors`: the agent that the paper's authors published
"""

from .base import CoinFlip, FixedStart, Policy, PolicySpec, shipped_policy

__all__ = ["CoinFlip", "FixedStart", "Policy", "PolicySpec", "shipped_policy"]
