"""Writes Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of text cells."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: int = 1
    """Number of left-aligned columns; the others, which hold figures, are right-aligned."""

    def markdown(self) -> str:
        """Format the table as Markdown, without a newline at the end."""
        rule = "|" + "---|" * self.left + "---:|" * (len(self.head) - self.left)
        head, *lines = ("| " + " | ".join(cells) + " |" for cells in (self.head, *self.lines))
        return "\n".join([head, rule, *lines])
