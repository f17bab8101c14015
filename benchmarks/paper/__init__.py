"""The paper's tables and figures on one's own weights and images, beside what people use today.

- ``samplers``: every way to enlarge an image; ``standard``: those of diffusers
- ``store``: a row for each (model, image, noise seed, sampler), kept on disk
- ``results``: means, intervals and paired differences of rows; ``published``: the paper's figures
- ``parts``: which samplers a table or figure needs; ``tables``, ``figures``, ``pictures``: drawing them
- ``cost``: seconds and FLOPs (Table 3); ``claims``: what of the paper held here
- ``page``: the index page; ``command``: ``python -m benchmarks paper``
"""
