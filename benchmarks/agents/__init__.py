"""Compares agents with fixed starts and the exact optimum.

- ``study``: the episodes and their recordings; ``choice``: the choice of an agent; ``imitation``: networks
  that learn directly from recordings; ``table``, ``plot``: tables and the plot
- commands: ``command`` (``python -m benchmarks agents``), ``calls``, ``ceilings``, ``recipe``, ``road``,
  ``spn``, ``step_cost``, ``texture``, ``training``
"""
