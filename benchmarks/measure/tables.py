"""Tables of rows as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skipdiff_env.diffusion.pretrained import write_atomically

from .results import Results
from .store import METRICS

RESULTS = Path(__file__).parents[1] / "results"
"""Where every command writes, unless told otherwise."""
TITLES = {
    "psnr": "PSNR ↑",
    "ssim": "SSIM ↑",
    "niqe": "NIQE ↓",
    "niqe_full": "NIQE-full ↓",
    "lpips": "LPIPS ↓",
    "consistency": "LR consistency ↑",
    "evaluations": "evaluations",
}
DIGITS = {"psnr": 2, "ssim": 4, "niqe": 2, "niqe_full": 2, "lpips": 4, "consistency": 2, "evaluations": 0}


@dataclass(frozen=True)
class Line:
    """A line of a table."""

    sampler: str
    label: str = ""
    """Empty: the sampler's own."""
    paper: str = ""
    """The paper's figures, in a column of their own."""


@dataclass(frozen=True)
class Part:
    """A table, or the samplers that a figure needs."""

    name: str
    """Of files and of ``--tables``."""
    title: str
    lines: tuple[Line, ...]
    note: str = ""

    @property
    def samplers(self) -> list[str]:
        """Keys, each once."""
        return list(dict.fromkeys(line.sampler for line in self.lines))


def number(value: float, column: str) -> str:
    """A figure with its column's digits; a dash where there is none."""
    digits = DIGITS[column]
    if column == "evaluations" and value != round(value):
        digits = 1
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left, the others to the right."""
    rule = "|---" + "|---:" * (len(head) - 1) + "|"
    rows = [head, *lines]
    written = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([written[0], rule, *written[1:]]) + "\n"


def markdown(part: Part, results: Results, labels: Mapping[str, str]) -> str:
    """A page: the means, then their intervals."""
    paper = any(line.paper for line in part.lines)
    columns = (*METRICS, "evaluations")
    means, intervals = [], []
    for line in part.lines:
        name = line.label or labels[line.sampler]
        found = {column: results.estimate(line.sampler, column) for column in columns}
        means.append([name, *(number(found[c].mean, c) for c in columns), *([line.paper] if paper else [])])
        intervals.append(
            [name, *(f"{number(found[c].low, c)} … {number(found[c].high, c)}" for c in METRICS)]
        )
    head = ["", *(TITLES[c] for c in columns)]
    text = f"# {part.title}\n\nMeans over {count(results)}. {part.note}\n\n"
    text += grid([*head, *(["the paper: PSNR / SSIM / NIQE / LPIPS"] if paper else [])], means)
    return text + "\n95 % bootstrap intervals of the means:\n\n" + grid(["", *head[1:-1]], intervals)


def count(results: Results) -> str:
    """How many images and noise seeds."""
    images, seeds = len(results.images), len(results.seeds)
    return f"{images} image{'s' * (images != 1)}, {seeds} noise seed{'s' * (seeds != 1)} each"


def comma_separated(part: Part, results: Results, labels: Mapping[str, str]) -> str:
    """The same for programs: mean and interval of every column."""
    columns = (*METRICS, "evaluations")
    head = ["sampler", "label", *(f"{c}{end}" for c in columns for end in ("", "_low", "_high")), "paper"]
    lines: list[list[object]] = []
    for line in part.lines:
        found = [results.estimate(line.sampler, column) for column in columns]
        cells = [value for e in found for value in (e.mean, e.low, e.high)]
        lines.append([line.sampler, line.label or labels[line.sampler], *cells, line.paper])
    return written(head, lines)


def written(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """CSV text."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()


def write_table(folder: Path, part: Part, results: Results, labels: Mapping[str, str]) -> None:
    """``<name>.md`` and ``<name>.csv``."""
    write_atomically(folder / f"{part.name}.md", markdown(part, results, labels).encode())
    write_atomically(folder / f"{part.name}.csv", comma_separated(part, results, labels).encode())
