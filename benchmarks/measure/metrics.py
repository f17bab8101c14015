"""The metrics of all tables: an entry of :data:`METRICS` is a column of the rows and of every table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skipdiff_env import SkipDiffError
from skipdiff_env.images import shrink
from skipdiff_env.metrics import load_metric


@dataclass(frozen=True)
class Column:
    """A number that every row has, and its form in tables."""

    name: str
    """Its name in files of rows."""
    title: str
    digits: int
    """Number of decimals; if it is 0, a mean that is not a whole number gets one."""
    lower_better: bool

    @property
    def label(self) -> str:
        """The head of the column."""
        return self.title

    def shown(self, value: float) -> str:
        """Format a value with its decimals; a dash if there is no value."""
        if not math.isfinite(value):
            return "–"
        return f"{value:.{self.digits or int(value != round(value))}f}"


@dataclass(frozen=True)
class Metric(Column):
    """A measure of the quality of a result."""

    of: str | Callable[..., Any]
    """The metric, in any form that :func:`skipdiff_env.metrics.load_metric` takes."""
    note: str = ""
    """Description of its computation, for the pages."""
    on_input: bool = False
    """Whether it compares the results, shrunk again, with their LR inputs."""
    minor: bool = False
    """Whether only tables of all means show it, and not those that compare a few metrics closely."""
    fine: int | None = None
    """Number of decimals where policies are compared that differ little; None: as many as elsewhere."""

    @property
    def label(self) -> str:
        """The title, and an arrow in the direction of better values."""
        return f"{self.title} {'↓' if self.lower_better else '↑'}"

    @property
    def fine_digits(self) -> int:
        """The number of decimals, see :attr:`fine`."""
        return self.digits if self.fine is None else self.fine


METRICS = [
    Metric("psnr", "PSNR", 2, False, "psnr", "PSNR and SSIM on luma (BT.601)"),
    Metric("ssim", "SSIM", 4, False, "ssim"),
    Metric(
        "niqe", "NIQE", 2, True, "niqe", fine=3,
        note="NIQE as pyiqa computes it, which reads whole 96-pixel blocks from the top left",
    ),
    Metric(
        "niqe_full", "NIQE-full", 2, True, "niqe-full", minor=True,
        note="NIQE-full the mean over crops anchored in all corners",
    ),
    Metric("lpips", "LPIPS", 4, True, "lpips", "LPIPS with AlexNet"),
    Metric(
        "consistency", "LR consistency", 2, False, "psnr", on_input=True, minor=True,
        note="LR consistency: PSNR of the result, shrunk again, against its input",
    ),
    Metric(
        "residue", "residue", 2, True, "residue", minor=True,
        note="residue: grain in flat areas over the original's, 1 being right",
    ),
]  # fmt: skip
"""All metrics, in the order of the columns."""
SECOND_JUDGE = Metric("stlpips", "ST-LPIPS", 4, True, "st-lpips", "ST-LPIPS with AlexNet")
"""A perceptual distance that no training has used; its weights are in a package of their own."""
EVALUATIONS = Column("evaluations", "evaluations", 0, True)


def columns(metrics: Sequence[Metric] = METRICS) -> list[Column]:
    """Return the columns of tables of means."""
    return [*metrics, EVALUATIONS]


def column(name: str) -> Column:
    """Return the column of this name."""
    return next(column for column in columns() if column.name == name)


def judges() -> list[Metric]:
    """Return all metrics of the tables, and the second judge if its weights are installed."""
    try:
        load_metric(SECOND_JUDGE.of)(*[np.zeros((1, 64, 64, 3), np.uint8)] * 2)
    except SkipDiffError as error:
        print(f"without {SECOND_JUDGE.title}: {error}")
        return [*METRICS]
    return [*METRICS, SECOND_JUDGE]


def major() -> list[Metric]:
    """Return the metrics for tables that compare a few metrics closely."""
    return [metric for metric in METRICS if not metric.minor]


def score(
    images: Sequence[np.ndarray],
    hr: np.ndarray,
    lr: np.ndarray,
    scale: int,
    metrics: Sequence[Metric] = METRICS,
) -> list[dict[str, float]]:
    """Score SR images of one original by every metric; all uint8 (H, W, 3), ``lr`` (h, w, 3)."""
    whole = np.stack(images), np.stack([hr] * len(images))
    small = np.stack([shrink(image, scale) for image in images]), np.stack([lr] * len(images))
    found = {m.name: load_metric(m.of)(*(small if m.on_input else whole)) for m in metrics}
    return [{name: float(values[i]) for name, values in found.items()} for i in range(len(images))]
