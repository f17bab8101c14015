"""What every table is based on; imports none of the other packages.

- ``metrics``: what is measured; ``samplers``: every way to enlarge an image. A new one is an entry of
  ``METRICS`` or ``FAMILIES``
- ``sampler``, ``family``: what those entries are made of; ``walks``: CSA and FSR with a memory;
  ``standard``: the samplers of diffusers
- ``evaluate``: from images and samplers to rows; ``store``, ``records``: rows, kept on disk
- ``results``: means, intervals and paired differences of rows; ``quality``: tables of these; ``tables``: the
  writer of all tables
- ``options``: what commands are told in the same words; ``test_set``, ``docs``: commands
"""
