"""The basis of every table; it imports none of the benchmarks' other packages.

- ``metrics``: the metrics; ``samplers``: every way to enlarge an image. A new one is an entry of ``METRICS``
  or ``FAMILIES``
- ``sampler``, ``family``: the classes of those entries; ``walks``: CSA and FSR with a memory; ``standard``:
  the samplers of diffusers
- ``evaluate``: computes rows from images and samplers; ``store``, ``records``: keep rows on disk
- ``results``: means, intervals and paired differences of rows; ``quality``: tables of these;
  ``sentences``: comparisons in words; ``tables``: the writer of all tables; ``drawing``: plots and pictures
- ``options``: options that several commands share; ``test_set``, ``tutorials``, ``docs``: commands
"""
