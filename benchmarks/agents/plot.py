"""Plots the comparison of agents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..measure.drawing import new_figure, save_plot
from .study import interval
from .table import Rows, grid, rewards


def plot(path: Path, rows: Rows, best: str, optima: np.ndarray, images: int, agents: Sequence[str]) -> None:
    """Plot reward against evaluations (left), and paired differences to the best fixed start (right)."""
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    starts = [name for name in rows if name.startswith("start ")]
    evaluations = {name: grid(rows[name], images, lambda r: r.evaluations).mean() for name in rows}
    means = {name: rewards(rows[name], images).mean() for name in rows}
    left.plot(
        [evaluations[s] for s in starts], [means[s] for s in starts], "o-", color="0.5", label="fixed starts"
    )
    for name in agents:
        left.plot(evaluations[name], means[name], "s", label=name)
    if np.isfinite(optima).all():
        left.axhline(optima.mean(), color="0.7", linestyle="--", label="optimum")
    left.set(xlabel="network evaluations an image", ylabel="reward")
    left.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    baseline = rewards(rows[best], images)
    for row, name in enumerate(agents):
        mean, low, high = (
            100 * v / baseline.mean() for v in interval(rewards(rows[name], images) - baseline)
        )
        right.errorbar(mean, row, xerr=[[mean - low], [high - mean]], fmt="s", capsize=3)
    right.axvline(0, color="0.5")
    right.set_yticks(range(len(agents)), agents, fontsize=8)
    right.set(xlabel="difference to the best fixed start, % (95 %)")
    save_plot(figure, path)
