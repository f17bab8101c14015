"""Agents beside every fixed schedule and the exact optimum.

- ``study``: which episodes, recorded where; ``choice``: which agent is chosen; ``imitation``: networks that
  recordings teach; ``table``, ``plot``: showing them
- commands: ``command`` (``python -m benchmarks agents``), ``ceilings``, ``step_cost``, ``training``, ``spn``
"""
