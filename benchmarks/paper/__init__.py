"""The paper's tables and figures on one's own weights and images, beside what people use today.

- ``parts``: which samplers a table or figure shows; ``published``: the paper's figures
- ``figures``, ``pictures``, ``portraits``: drawing; ``cost``: seconds and FLOPs (Table 3)
- ``claims``: what of the paper held here; ``page``: the page that ties all together
- commands: ``command`` (``python -m benchmarks paper``), ``stability``, ``refiner``, ``inputs``, ``recipes``,
  ``demo``
"""
