"""Figures that are drawn from rows alone (matplotlib, extra ``bench``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skipdiff_env.diffusion.pretrained import write_atomically

from ..measure.results import Estimate, Results
from ..measure.tables import DIGITS, TITLES, Part, count, grid, number, write_table, written
from .claims import optimum_starts, steps
from .parts import Subject

PANELS = ("psnr", "ssim", "niqe", "lpips")
INK, SECOND, THIRD = "#1f4e79", "#c55a11", "#7f7f7f"


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure that no window system knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: Path, about: Mapping[str, str] | None = None, dpi: int = 130) -> None:
    """Write a PNG, whole or not at all; ``about`` becomes its text."""
    part = path.with_name(f".{path.name}")
    try:
        figure.savefig(part, format="png", dpi=dpi, metadata={"Software": None, **(about or {})})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def draw_coarse(folder: Path, part: Part, results: Results) -> None:
    """Figure 1: metrics of CSA alone against S, with intervals and Spearman's coefficient."""
    sizes = steps(part.samplers)
    figure = new_figure(8, 5.5)
    estimates = {m: [results.estimate(key, m) for key in part.samplers] for m in PANELS}
    rho = {m: results.spearman(part.samplers, sizes, m) for m in PANELS}
    for axes, metric in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        found = estimates[metric]
        axes.fill_between(sizes, [e.low for e in found], [e.high for e in found], color=INK, alpha=0.15)
        axes.plot(sizes, [e.mean for e in found], "o-", color=INK, markersize=4)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(s) for s in sizes], size=7)
        axes.minorticks_off()
        axes.set_title(f"{TITLES[metric]}   (Spearman's ρ = {rho[metric].mean:+.2f})", size=10)
        axes.set_xlabel("S, steps of CSA alone")
        axes.grid(alpha=0.3)
    save(figure, folder / f"{part.name}.png")
    ends = ("mean", "low", "high")
    lines = [
        [str(size), *(getattr(estimates[m][i], end) for m in PANELS for end in ends)]
        for i, size in enumerate(sizes)
    ]
    lines.append(["Spearman's ρ with S", *(getattr(rho[m], end) for m in PANELS for end in ends)])
    head = ["S", *(f"{m}{end}" for m in PANELS for end in ("", "_low", "_high"))]
    write_atomically(folder / f"{part.name}.csv", written(head, lines).encode())
    shown = [
        [str(size), *(interval(estimates[m][i], DIGITS[m]) for m in PANELS)] for i, size in enumerate(sizes)
    ]
    shown.append(["Spearman's ρ with S", *(interval(rho[m], 3) for m in PANELS)])
    text = f"# {part.title}\n\nMeans over {count(results)}, with 95 % bootstrap intervals. {part.note}\n\n"
    text += grid(["S", *(TITLES[m] for m in PANELS)], shown)
    write_atomically(folder / f"{part.name}.md", text.encode())


def interval(found: Estimate, digits: int) -> str:
    """As a cell: ``24.90 (24.61 … 25.20)``."""
    return f"{found.mean:.{digits}f} ({found.low:.{digits}f} … {found.high:.{digits}f})"


FAMILIES = (
    ("CSA alone over S", r"csa-\d+", "o-", THIRD),
    ("SkipDiff, manual starts", r"skip-10-.*", "s-", INK),
    ("SkipDiff, other step pairs", r"skip-.*", "D", INK),
    ("SkipDiff, agent", r"agent-.*", "*", "#b00000"),
    ("DDIM (η = 0)", r"ddim-.*", "^-", SECOND),
    ("DPM-Solver++(2M)", r"dpm-.*", "v-", "#548235"),
    ("uniform chain", r"ancestral-.*", "P-", "#7030a0"),
    ("CCSR's sampler", r"ccsr-\d+", "X-", "#bf9000"),
    ("CCSR, stage 1", r"ccsr-\d+@[^+]*", "<-", "#806000"),
    ("CCSR, both stages", r"ccsr-.*", ">-", "#404040"),
    ("AddSR", r"addsr-.*", "p-", "#00808b"),
)
"""Legend, pattern of the keys, marker, colour; a key belongs to the first that fits. Bicubic is far off and
stands in the title."""


def families(keys: Sequence[str]) -> dict[str, list[str]]:
    """Keys by legend, each in order of its numbers."""
    found: dict[str, list[str]] = {legend: [] for legend, *_ in FAMILIES}
    for key in keys:
        legend = next((legend for legend, fits, *_ in FAMILIES if re.fullmatch(fits, key)), None)
        if legend:
            found[legend].append(key)
    return {legend: sorted(some, key=_numbers) for legend, some in found.items() if some}


def _numbers(key: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"-(\d+)", key)]


def draw_plane(folder: Path, part: Part, results: Results, labels: Mapping[str, str]) -> None:
    """Figure 5: distortion (PSNR) against perception (LPIPS, NIQE), and the same as a table."""
    figure = new_figure(12, 6.5)
    style = {legend: (marker, colour) for legend, _, marker, colour in FAMILIES}
    groups = families(part.samplers)
    for axes, metric in zip(figure.subplots(1, 2), ("lpips", "niqe"), strict=True):
        for legend, keys in groups.items():
            marker, colour = style[legend]
            x, y = ([results.mean(key, m) for key in keys] for m in ("psnr", metric))
            size = 13 if marker == "*" else 5
            axes.plot(x, y, marker, color=colour, label=legend, markersize=size, linewidth=1, alpha=0.85)
            for key, a, b in zip(keys, x, y, strict=True):
                axes.annotate(
                    _tag(key), (a, b), textcoords="offset points", xytext=(4, 3), size=6, color=colour
                )
        axes.set_xlabel("PSNR ↑ (dB)")
        axes.set_ylabel(TITLES[metric])
        axes.grid(alpha=0.3)
        bicubic = [number(results.mean("bicubic", m), m) for m in ("psnr", metric)]
        axes.set_title(f"bicubic, outside: PSNR {bicubic[0]}, {TITLES[metric][:-2]} {bicubic[1]}", size=9)
    handles, legends = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, legends, loc="outside lower center", ncols=4, fontsize=8)
    save(figure, folder / f"{part.name}.png")
    write_table(folder, part, results, labels)


def _tag(key: str) -> str:
    numbers = [] if key.startswith("agent-") else [str(n) for n in _numbers(key)]
    if key.startswith("skip-10-"):
        return numbers[-1]
    return f"({numbers[0]},{numbers[1]})" if key.startswith("skip-") else numbers[0] if numbers else ""


def draw_starts(folder: Path, subject: Subject, results: Results, note: str = "") -> None:
    """Histogram of the optimum's starts, by NIQE and by LPIPS, beside the agent's or the fixed one."""
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
    save(figure, folder / "starts.png")
    lines = [[label, *(str(chosen.count(int(k))) for k in places)] for label, chosen in bars.items()]
    head = ["images and seeds with start", *map(str, places)]
    text = f"# Starts\n\nOver {count(results)}. {note}\n\n{grid(head, lines)}"
    write_atomically(folder / "starts.md", text.encode())
    write_atomically(folder / "starts.csv", written(head, lines).encode())
