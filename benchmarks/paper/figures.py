"""Draws the figures that are based on rows alone (matplotlib, extra ``bench``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..measure.drawing import new_figure, save_plot
from ..measure.family import Family
from ..measure.metrics import column, major
from ..measure.quality import Part, count, report
from ..measure.results import Estimate, Results
from ..measure.sampler import Sampler
from ..measure.samplers import FAMILIES
from ..measure.tables import Report, Table
from .claims import optimum_starts
from .parts import Subject

INK, SECOND, THIRD = "#1f4e79", "#c55a11", "#7f7f7f"


def draw_coarse(folder: Path, part: Part, subject: Subject, results: Results) -> None:
    """Draw Figure 1: metrics of CSA alone against S, with intervals and Spearman's coefficient."""
    sizes = [subject.samplers[key].steps for key in part.samplers]
    metrics = major()
    estimates = {m: [results.estimate(key, m.name) for key in part.samplers] for m in metrics}
    rho = {m: results.spearman(part.samplers, sizes, m.name) for m in metrics}
    rows = (len(metrics) + 1) // 2
    figure = new_figure(8, 2.75 * rows)
    for axes, metric in zip(figure.subplots(rows, 2).flat, metrics, strict=False):
        found = estimates[metric]
        axes.fill_between(sizes, [e.low for e in found], [e.high for e in found], color=INK, alpha=0.15)
        axes.plot(sizes, [e.mean for e in found], "o-", color=INK, markersize=4)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(s) for s in sizes], size=7)
        axes.minorticks_off()
        axes.set_title(f"{metric.label}   (Spearman's ρ = {rho[metric].mean:+.2f})", size=10)
        axes.set_xlabel("S, steps of CSA alone")
        axes.grid(alpha=0.3)
    save_plot(figure, folder / f"{part.name}.png")
    named = {str(size): [estimates[m][i] for m in metrics] for i, size in enumerate(sizes)}
    digits = [m.digits for m in metrics]
    lines = [[size, *map(interval, found, digits)] for size, found in named.items()]
    named["Spearman's ρ with S"] = list(rho.values())
    lines.append(["Spearman's ρ with S", *(interval(found, 3) for found in rho.values())])
    Report(
        part.name,
        part.title,
        f"Means over {count(results)}, with 95 % bootstrap intervals. {part.note}",
        [Table(["S", *(m.label for m in metrics)], lines)],
        [
            ["S", *(f"{m.name}{end}" for m in metrics for end in ("", "_low", "_high"))],
            *([name, *(v for e in found for v in (e.mean, e.low, e.high))] for name, found in named.items()),
        ],
        count(results),
    ).write(folder)


def interval(found: Estimate, digits: int) -> str:
    """Format a mean and its interval as a cell: ``24.90 (24.61 … 25.20)``."""
    return f"{found:.{digits}f}"


def draw_plane(folder: Path, part: Part, samplers: Mapping[str, Sampler], results: Results) -> None:
    """Draw Figure 5: distortion (PSNR) against perception (LPIPS, NIQE); also write it as a table.

    Bicubic lies far outside and is given in the title.
    """
    figure = new_figure(12, 6.5)
    for axes, metric in zip(figure.subplots(1, 2), (column("lpips"), column("niqe")), strict=True):
        for family, own in families(part, samplers):
            draw_family(axes, family, own, results, metric.name)
        if metric.name == "niqe":
            axes.axhline(results.mean("hr", "niqe"), color=THIRD, linestyle=":", linewidth=1)
            at = 0.01, results.mean("hr", "niqe")
            axes.annotate("the originals", at, xycoords=("axes fraction", "data"), size=7, va="bottom")
        axes.set_xlabel("PSNR ↑ (dB)")
        axes.set_ylabel(metric.label)
        axes.grid(alpha=0.3)
        psnr, other = (c.shown(results.mean("bicubic", c.name)) for c in (column("psnr"), metric))
        axes.set_title(f"bicubic, outside: PSNR {psnr}, {metric.title} {other}", size=9)
    handles, legends = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, legends, loc="outside lower center", ncols=4, fontsize=8)
    save_plot(figure, folder / f"{part.name}.png")
    report(part, results).write(folder)


def families(part: Part, samplers: Mapping[str, Sampler]) -> list[tuple[Family, list[Sampler]]]:
    """Group a part's samplers by family, for the families that are drawn; both in the catalogue's order."""
    shown = [sampler for key, sampler in samplers.items() if key in part.samplers]
    found = [(family, [s for s in shown if s.family == family.name]) for family in FAMILIES if family.mark]
    return [(family, own) for family, own in found if own]


def draw_family(
    axes: Any, family: Family, samplers: Sequence[Sampler], results: Results, metric: str
) -> None:
    """Draw the points of a family in the plane."""
    x, y = ([results.mean(sampler.key, m) for sampler in samplers] for m in ("psnr", metric))
    size = 13 if family.mark == "*" else 5
    axes.plot(
        x, y, family.mark, color=family.colour, label=family.title, markersize=size, linewidth=1, alpha=0.85
    )
    for sampler, *at in zip(samplers, x, y, strict=True):
        axes.annotate(sampler.tag, at, textcoords="offset points", xytext=(4, 3), size=6, color=family.colour)


def draw_starts(folder: Path, subject: Subject, results: Results, note: str) -> None:
    """Draw a histogram of the optimum's starts, by NIQE and by LPIPS, with the agent's or the fixed one."""
    figure = new_figure(7, 3.8)
    axes = figure.subplots()
    bars = {f"optimum by {m.upper()}": optimum_starts(results, subject, m) for m in ("niqe", "lpips")}
    for name, key in subject.agents.items():
        if key in results and name in ("NIQE", "LPIPS"):
            bars[f"agent ({name})"] = [int(start) for start in results.values(key, "start")]
    places = np.arange(1, subject.fine + 1)
    width = 0.8 / len(bars)
    colours = (THIRD, "#bfbfbf", INK, SECOND)
    for i, (label, chosen) in enumerate(bars.items()):
        share = np.array([np.mean(np.array(chosen) == k) for k in places])
        shift = (i - (len(bars) - 1) / 2) * width
        axes.bar(places + shift, share, width, label=label, color=colours[i])
    axes.axvline(subject.start, color="black", linewidth=0.8, linestyle=":", label="fixed start of the model")
    axes.set_xticks(places)
    axes.set_xlabel("start")
    axes.set_ylabel("share of images and seeds")
    figure.legend(fontsize=8, loc="outside upper center", ncols=3)
    save_plot(figure, folder / "starts.png")
    lines = [[label, *(str(chosen.count(int(k))) for k in places)] for label, chosen in bars.items()]
    head = ["images and seeds with start", *map(str, places)]
    note = f"Over {count(results)}. {note}"
    Report("starts", "Starts", note, [Table(head, lines)], [head, *lines], count(results)).write(folder)
