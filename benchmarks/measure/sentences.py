"""Words for comparisons: gains with their intervals, and by which metrics one of two samplers is better."""

from __future__ import annotations

from collections.abc import Sequence

from .metrics import Metric, column
from .results import FEWEST, Estimate, Results

COMPARED = ("psnr", "niqe", "lpips")
"""The metrics of the paper's claims."""


def compared(results: Results, rival: str, ours: str, metrics: Sequence[Metric] = ()) -> str:
    """Say by which metrics, of :data:`COMPARED` or others, a rival is better, worse, or neither."""
    names = [metric.name for metric in metrics] or COMPARED
    gains = {metric: results.gain(rival, ours, metric) for metric in names}
    few = len(results.images) < FEWEST
    named = {1: "better", -1: "worse", 0: "undecided" if few else "not told apart"}
    parts = [
        f"{named[sign]} in "
        + ", ".join(f"{name(m)} ({signed(gains[m], m)})" for m in names if gains[m].sign == sign)
        for sign in (1, -1, 0)
        if any(gain.sign == sign for gain in gains.values())
    ]
    return "; ".join(parts) + "."


def name(metric: str) -> str:
    """Return a metric's name in sentences."""
    return column(metric).title


def signed(gain: Estimate, metric: str) -> str:
    """Format a gain with its interval, where more is better."""
    return spelled(gain, f"+.{column(metric).digits}f")


def spelled(found: Estimate, form: str, unit: str = "") -> str:
    """Format a mean and its interval for a sentence."""
    return f"{found.mean:{form}}{unit}, interval {found.low:{form}} … {found.high:{form}}"
