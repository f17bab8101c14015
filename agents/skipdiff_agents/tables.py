"""The one writer of Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table as text."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: int = 1
    """So many columns stand to the left, the others, which hold figures, to the right."""

    def markdown(self) -> str:
        """As Markdown, without an end of line."""
        rule = "|" + "---|" * self.left + "---:|" * (len(self.head) - self.left)
        head, *lines = ("| " + " | ".join(cells) + " |" for cells in (self.head, *self.lines))
        return "\n".join([head, rule, *lines])
