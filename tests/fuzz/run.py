"""Blocks of generated trees."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from .invariants import Tree, check, trees

BLOCK = 100
"""Trees of files."""


def fuzz(model: Path, number: int) -> tuple[int, int]:
    """Check a block of trees. The same number gives the same trees.

    Returns:
        How many photographs were enlarged, and how many refused.

    Raises:
        what did not hold, with the smallest tree for which it does not.
    """
    totals = [0, 0]

    @seed(number)
    @settings(
        max_examples=BLOCK, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink), print_blob=False,
    )  # fmt: skip
    @given(trees())
    def block(tree: Tree) -> None:
        for place, number in enumerate(check(tree, model)):
            totals[place] += number

    block()
    return totals[0], totals[1]
