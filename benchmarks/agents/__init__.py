"""Compares agents with every fixed schedule and the exact optimum.

- ``study``: the episodes and their recordings; ``choice``: the choice of an agent; ``imitation``: networks
  that learn from recordings; ``table``, ``plot``: tables and the plot
- commands: ``command`` (``python -m benchmarks agents``), ``ceilings``, ``step_cost``, ``training``, ``spn``
"""
