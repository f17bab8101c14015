"""Makes tables of quality: samplers by metrics, with means and their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .metrics import METRICS, Column, Metric, columns
from .results import Estimate, Results
from .tables import Report, Table, basis


@dataclass(frozen=True)
class Line:
    """A line of a table."""

    sampler: str
    """Key of the sampler."""
    label: str
    published: str = ""
    """The paper's figures, for a column of their own."""


@dataclass(frozen=True)
class Part:
    """A table, or the samplers that a figure shows."""

    name: str
    """Name of the files."""
    title: str
    lines: tuple[Line, ...]
    note: str = ""

    @property
    def samplers(self) -> list[str]:
        """The keys of its samplers, each once."""
        return list(dict.fromkeys(line.sampler for line in self.lines))


def estimates(results: Results, sampler: str, metrics: Sequence[Metric] = METRICS) -> dict[Column, Estimate]:
    """Estimate the mean of every column that tables show."""
    return {column: results.estimate(sampler, column.name) for column in columns(metrics)}


def means(found: dict[Column, Estimate]) -> list[str]:
    """Format means as cells of a table."""
    return [column.shown(estimate.mean) for column, estimate in found.items()]


def intervals(found: dict[Column, Estimate]) -> list[str]:
    """Format the intervals of the metrics as cells."""
    return [
        f"{m.shown(e.low)} … {m.shown(e.high)}" if e.images else "–"
        for m, e in found.items()
        if isinstance(m, Metric)
    ]


def data_head(metrics: Sequence[Metric] = METRICS) -> list[str]:
    """Return the names of the columns of :func:`data`."""
    return [f"{column.name}{end}" for column in columns(metrics) for end in ("", "_low", "_high")]


def data(found: Iterable[Estimate]) -> list[float]:
    """Return mean and interval of every column as plain numbers."""
    return [value for estimate in found for value in (estimate.mean, estimate.low, estimate.high)]


def count(results: Results) -> str:
    """State the number of images and noise seeds."""
    return basis(len(results.images), len(results.seeds))


def report(part: Part, results: Results, metrics: Sequence[Metric] = METRICS) -> Report:
    """Report the means and their intervals."""
    published = any(line.published for line in part.lines)
    lines = [(line, estimates(results, line.sampler, metrics)) for line in part.lines]
    head = ["", *(column.label for column in columns(metrics))]
    shown = Table(
        [*head, *["the paper: PSNR / SSIM / NIQE / LPIPS"] * published],
        [[line.label, *means(found), *[line.published] * published] for line, found in lines],
    )
    spread = Table(head[:-1], [[line.label, *intervals(found)] for line, found in lines])
    return Report(
        part.name,
        part.title,
        f"Means over {count(results)}. {part.note}".strip(),
        [shown, "95 % bootstrap intervals of the means:", spread],
        [
            ["sampler", "label", *data_head(metrics), "paper"],
            *([line.sampler, line.label, *data(found.values()), line.published] for line, found in lines),
        ],
        count(results),
    )
