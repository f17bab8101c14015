"""Chains, which lead from noise and a condition to a picture.

A chain is called with a model, a condition and noise keys, and returns a :class:`Final`. This package
needs neither Gymnasium nor pyiqa, so models can be trained with it where these are missing.

- :mod:`.skipdiff`: coarse skip approximation and fine skip refinement under a policy, and CSA alone
- :mod:`.plan`: chains of fixed calls, each with its own told level
- :mod:`.ccsr`, :mod:`.addsr`: two related systems that need few evaluations
- :mod:`.detail`: scales the detail of a chain's picture
- :mod:`.parse`: turns what users write into a chain, and defines the default chain
"""

from .addsr import AddSR
from .base import Chain, Final, OnState, Refined, State
from .ccsr import CCSR
from .detail import with_detail
from .few_steps import FewSteps
from .parse import (
    CHAINS,
    EFFORTS,
    NORMAL,
    ChainSpec,
    default_for,
    efforts,
    named_chain,
    parse,
    parse_skipdiff,
    usual_coarse_steps,
)
from .plan import Plan, skipdiff_plan, uniform
from .shipped import shipped_plans
from .skipdiff import CSA, SkipDiff

__all__ = [
    "CCSR",
    "CHAINS",
    "CSA",
    "EFFORTS",
    "NORMAL",
    "AddSR",
    "Chain",
    "ChainSpec",
    "FewSteps",
    "Final",
    "OnState",
    "Plan",
    "Refined",
    "SkipDiff",
    "State",
    "default_for",
    "efforts",
    "named_chain",
    "parse",
    "parse_skipdiff",
    "shipped_plans",
    "skipdiff_plan",
    "uniform",
    "usual_coarse_steps",
    "with_detail",
]
