"""Writes the page of :mod:`.command`: a table for each kind of input, and one over all kinds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..measure.evaluate import SECONDS
from ..measure.metrics import Metric
from ..measure.quality import count
from ..measure.results import Estimate, Results
from ..measure.tables import Report, Table
from .kinds import PHOTOGRAPHS, Kind
from .verdicts import REFERENCE, choices, limit_table

SHOWN = ("psnr", "ssim", "lpips", "stlpips", "niqe", "residue")
COMPARED = ("lpips", "stlpips", "psnr", "niqe", "residue")


def write(
    folder: Path,
    images: str,
    found: Mapping[Kind, Results],
    ours: Sequence[str],
    judges: Sequence[Metric],
    programs: str,
    command: str,
) -> None:
    """Write ``README.md`` and ``README.csv``.

    Args:
        folder: folder to write to.
        images: name of the set of originals.
        found: results by kind.
        ours: our ways to enlarge, which the sentences compare with the other program.
        judges: the metrics.
        programs: models and other programs in words.
        command: command that makes the page again.
    """
    metrics = [judge for name in SHOWN for judge in judges if judge.name == name]
    photographs = next((r for kind, r in found.items() if kind.of == PHOTOGRAPHS), None)
    basis = count(photographs or next(iter(found.values())))
    threads = torch.get_num_threads()
    note = (
        f"Means over {basis} ({images}), enlarged four times; text and line art are drawn, in smaller "
        "number; ± is half of the 95 % bootstrap interval over images. LPIPS and ST-LPIPS (Ghildyal and Liu "
        "2022) are both with AlexNet; residue is the grain in the flattest tenth of the original's blocks, "
        "over the original's own (1 is right). Seconds are medians, ours in "
        f"{threads} thread{'s' * (threads != 1)}; the machine was not idle, so only large ratios count. A "
        "model's row is what a user gets without options; *auto* is the model that `--model auto` takes. The "
        f"models and programs: {programs}. Made by `{command}`."
    )
    blocks: list[str | Table] = [
        "## LPIPS by kind of input",
        overview(found, "lpips"),
        choices(found),
        *limit_table(found),
    ]
    for kind, results in found.items():
        blocks += [f"## {kind.name}", table(results, metrics), sentences(results, ours, metrics)]
    data: list[Sequence[object]] = [
        ["input", "way", *(f"{m.name}{end}" for m in metrics for end in ("", "_low", "_high")), SECONDS]
    ]
    for kind, results in found.items():
        for way in results.samplers:
            estimates = [results.estimate(way, m.name) for m in metrics]
            figures = [value for e in estimates for value in (e.mean, e.low, e.high)]
            data.append([kind.name, way, *figures, seconds(results, way)])
    Report("README", "Enlarging what people own", note, blocks, data).write(folder)


def overview(found: Mapping[Kind, Results], metric: str) -> Table:
    """Tabulate the means of one metric, kinds by ways."""
    ways = list(dict.fromkeys(way for results in found.values() for way in results.samplers))
    lines = [
        [kind.name, *(f"{r.mean(way, metric):.3f}" if way in r else "–" for way in ways)]
        for kind, r in found.items()
    ]
    return Table(["input", *ways], lines)


def table(results: Results, metrics: Sequence[Metric]) -> Table:
    """Tabulate the means of every way, with half the width of their intervals."""

    def cell(way: str, metric: Metric) -> str:
        found = results.estimate(way, metric.name)
        half = (found.high - found.low) / 2
        return metric.shown(found.mean) + (f" ± {metric.shown(half)}" if math.isfinite(half) else "")

    return Table(
        ["", *(metric.label for metric in metrics), "seconds"],
        [[way, *(cell(way, m) for m in metrics), shown_seconds(results, way)] for way in results.samplers],
    )


def seconds(results: Results, way: str) -> float:
    """Return the median time per picture; NaN if it was not measured."""
    values = results.values(way, SECONDS)
    return float(np.nanmedian(values)) if np.isfinite(values).any() else math.nan


def shown_seconds(results: Results, way: str) -> str:
    """Format the median time per picture as a cell."""
    found = seconds(results, way)
    return "–" if math.isnan(found) else f"{found:.2f}"


def sentences(results: Results, ours: Sequence[str], metrics: Sequence[Metric]) -> str:
    """Compare each of our ways with the other program: ratio of means, and paired difference."""
    if REFERENCE not in results:
        return ""
    compared = [metric for name in COMPARED for metric in metrics if metric.name == name]
    lines = []
    for way in ours:
        parts = [
            f"{m.title} {ratio(results, way, m)}{difference(results.difference(way, REFERENCE, m.name), m)}"
            for m in compared
        ]
        lines.append(f"- *{way} against {REFERENCE}*: {'; '.join(parts)}.")
    return "\n".join(lines)


def ratio(results: Results, way: str, metric: Metric) -> str:
    """Format a ratio such as ``× 1.10``, for metrics whose values can be divided."""
    if not metric.lower_better:
        return ""
    return f"× {results.mean(way, metric.name) / results.mean(REFERENCE, metric.name):.2f}, "


def difference(found: Estimate, metric: Metric) -> str:
    """Format a paired difference with its 95 % interval."""
    return f"{found:+.{metric.digits}f}"
