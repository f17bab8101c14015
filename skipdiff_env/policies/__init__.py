"""What can decide when to skip, without any reinforcement-learning library.

- :mod:`.base`: what a policy is, fixed starts, and what users may write for one
- :mod:`.network`: the skip proposal network
- :mod:`.file`: agents as files
- :mod:`.authors`: the agent that the paper's authors published
"""

from .base import FixedStart, Policy, PolicySpec, resolve_policy, shipped_policy

__all__ = ["FixedStart", "Policy", "PolicySpec", "resolve_policy", "shipped_policy"]
