"""Remakes the paper's tables and figures with any weights and images, next to samplers in use today.

- ``parts``: which samplers a table or figure shows; ``published``: the paper's figures
- ``figures``, ``pictures``, ``portraits``: drawing; ``cost``: seconds and FLOPs (Table 3)
- ``claims``: which of the paper's claims hold here; ``few``: the results of CCSR and
  AddSR; ``page``: the page that links everything
- commands: ``command`` (``python -m benchmarks paper``), ``stability``, ``inputs``, ``plans``,
  ``precision``, ``animate``, ``demo``, ``gather``
"""
