"""Progress reports (a bar on a terminal, and a line from time to time elsewhere) and readable durations."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

QUIET_SECONDS = 20.0
"""Seconds between the lines of a report that does not go to a terminal."""

Item = TypeVar("Item")


def watched(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield items that need about the same amount of work, and report on standard error how many are done and
    the time left.

    Args:
        items: the items, which are yielded one by one.
        what: name of the work, such as ``"recording"``.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm  # here, because training does not need it

        yield from tqdm(items, what, leave=False, unit="", dynamic_ncols=True)
        return
    began = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and (done == 1 or now - told >= QUIET_SECONDS):
            told = now
            left = duration((now - began) / done * (len(items) - done))
            print(f"{what}: {done} of {len(items)}, {left} left", file=sys.stderr, flush=True)
        yield item


def duration(seconds: float) -> str:
    """Format a duration in seconds: ``0.4 s``, ``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.{1 if seconds < 9.95 else 0}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
