"""What every table rests on; knows none of the other rooms.

- ``samplers``: every way to enlarge an image; ``standard``: those of diffusers; ``rivals``: those with
  weights of their own
- ``evaluate``: from images and samplers to rows; ``store``, ``records``: rows, kept on disk
- ``results``: means, intervals and paired differences of rows; ``tables``: writing them down
- ``options``: what commands are told in the same words; ``test_set``, ``docs``: commands
"""
