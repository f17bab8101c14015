"""The search for a model's best fixed plans; see :func:`find_plan`."""

from .efforts import choose_efforts
from .search import FoundPlan, PlanSearch, find_plan
from .shapes import shaped_plan

__all__ = ["FoundPlan", "PlanSearch", "choose_efforts", "find_plan", "shaped_plan"]
