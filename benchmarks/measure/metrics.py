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
    """A number that every row has, as tables show it."""

    name: str
    """In files of rows."""
    title: str
    digits: int
    """After the point. With 0 of them, a mean that is not whole gets one."""
    lower_better: bool

    @property
    def label(self) -> str:
        """The head of its column."""
        return self.title

    def shown(self, value: float) -> str:
        """A figure with its digits; a dash where there is none."""
        if not math.isfinite(value):
            return "–"
        return f"{value:.{self.digits or int(value != round(value))}f}"


@dataclass(frozen=True)
class Metric(Column):
    """How good a result is."""

    of: str | Callable[..., Any]
    """Of SR pictures and their originals: anything that :func:`skipdiff_env.metrics.load_metric` takes."""
    note: str = ""
    """What pages say of how it is computed."""
    on_input: bool = False
    """It compares the results, shrunk again, with their LR inputs."""
    minor: bool = False
    """It stands in tables that show all means, and not where few metrics are compared closely."""
    fine: int | None = None
    """Digits where policies are compared that differ by little; None: as many as elsewhere."""

    @property
    def label(self) -> str:
        """Title, and an arrow to where it is better."""
        return f"{self.title} {'↓' if self.lower_better else '↑'}"

    @property
    def fine_digits(self) -> int:
        """See :attr:`fine`."""
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
"""What is measured, in the order of the columns."""
SECOND_JUDGE = Metric("stlpips", "ST-LPIPS", 4, True, "st-lpips", "ST-LPIPS with AlexNet")
"""A perceptual distance that no training has used; its weights are in a package of their own."""
EVALUATIONS = Column("evaluations", "evaluations", 0, True)


def columns(metrics: Sequence[Metric] = METRICS) -> list[Column]:
    """What tables of means show."""
    return [*metrics, EVALUATIONS]


def column(name: str) -> Column:
    """The column of that name."""
    return next(column for column in columns() if column.name == name)


def judges() -> list[Metric]:
    """All metrics of the tables, and the second judge where its weights are."""
    try:
        load_metric(SECOND_JUDGE.of)(*[np.zeros((1, 64, 64, 3), np.uint8)] * 2)
    except SkipDiffError as error:
        print(f"without {SECOND_JUDGE.title}: {error}")
        return [*METRICS]
    return [*METRICS, SECOND_JUDGE]


def major() -> list[Metric]:
    """The metrics that tables show which compare a few closely."""
    return [metric for metric in METRICS if not metric.minor]


def score(
    images: Sequence[np.ndarray],
    hr: np.ndarray,
    lr: np.ndarray,
    scale: int,
    metrics: Sequence[Metric] = METRICS,
) -> list[dict[str, float]]:
    """Every metric of SR images of one original, by name; all uint8 (H, W, 3), ``lr`` (h, w, 3)."""
    whole = np.stack(images), np.stack([hr] * len(images))
    small = np.stack([shrink(image, scale) for image in images]), np.stack([lr] * len(images))
    found = {m.name: load_metric(m.of)(*(small if m.on_input else whole)) for m in metrics}
    return [{name: float(values[i]) for name, values in found.items()} for i in range(len(images))]
