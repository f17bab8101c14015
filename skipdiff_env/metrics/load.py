"""Turns what users write (``metric="niqe"``) into a metric."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics.base import Images, Metric, Scores
from skipdiff_env.metrics.fidelity import SSIM_WINDOW, FidelityMetric, psnr_y, ssim_y
from skipdiff_env.metrics.perceptual import FullNiqe, PyiqaMetric
from skipdiff_env.metrics.residue import BLOCK, flat_residue
from skipdiff_env.metrics.shift_tolerant import ShiftTolerantMetric

LOG = "log "
"""Prefix of the name of a metric's logarithm."""


def load_metric(
    spec: str | Callable[..., Any] | Mapping[str, float] | Metric = "niqe", device: str | torch.device = "cpu"
) -> Metric:
    """Load a metric by name, or make one from a function.

    Args:
        spec: one of

            - ``"niqe"``: needs no reference. It reads only the whole 96x96 blocks of a picture, counted
              from the top left, and is comparable only between pictures of the same size (at least
              192x192, since a single block has no covariance);
            - ``"niqe-full"``: the mean NIQE of crops anchored in the four corners, so that every pixel
              counts; equal to ``"niqe"`` where both sides are multiples of 96;
            - ``"lpips"``: LPIPS 0.1 with AlexNet; needs references;
            - ``"st-lpips"``: ST-LPIPS with AlexNet; needs references, and the package stlpips_pytorch;
            - ``"residue"``: grain in flat areas relative to the original's, see
              :func:`.residue.flat_residue`; needs references;
            - ``"psnr"``, ``"ssim"``: :func:`psnr_y` and :func:`ssim_y`; need references;
            - any other name that pyiqa knows; most of those download weights when first loaded;
            - a function ``(images, references) -> (B,) scores`` or ``(images) -> (B,) scores`` of uint8
              arrays (B, H, W, 3). Its attributes ``lower_better`` (default False), ``reference`` (default:
              whether the second parameter has no default value), ``min_size`` and ``name`` are read if
              present. Its exceptions are not caught;
            - names with weights, ``{"lpips": 1, "niqe-full": 0.5}``: the product of M^w over metrics M
              with weights w, where an M whose higher values are better is inverted, so a lower product is
              better. The product is NaN where one of the metrics is not above 0. As a name, this is
              ``"lpips,niqe-full:0.5"``;
            - ``"log "`` and one of these names: ln M, or -ln M if higher values of M are better, so lower is
              always better; the reward is the negative of this value. A difference of 0.01 corresponds to one
              per cent of M, for easy and hard pictures alike;
            - a metric, which is returned as it is.
        device: device on which ST-LPIPS and pyiqa's metrics, including NIQE and LPIPS, compute; PSNR, SSIM
            and the residue are always computed on the CPU.

    Returns:
        The metric. The same name and device give the same object; NIQE, LPIPS and ST-LPIPS are loaded at the
        first score.

    Raises:
        SkipDiffError: if ``spec`` is invalid or an unknown name, or if pyiqa or weights are not available for
            a metric that is loaded at once.
    """
    if isinstance(spec, Metric):
        return spec
    device = torch.device(device)
    metric: Metric
    if isinstance(spec, Mapping):
        metric = ProductMetric(spec, device)
    elif isinstance(spec, str) or callable(spec):
        metric = _by_name(spec, device) if isinstance(spec, str) else CallableMetric(spec, device)
    else:
        raise SkipDiffError(f"a metric is a name or a function, got {type(spec).__name__}")
    metric.restore = load_metric, (spec, str(device))
    return metric


@cache
def _by_name(name: str, device: torch.device) -> Metric:
    if name == "psnr":
        return FidelityMetric(name, device, psnr_y, min_size=1)
    if name == "ssim":
        return FidelityMetric(name, device, ssim_y, min_size=SSIM_WINDOW)
    if name == "residue":
        return FidelityMetric(name, device, flat_residue, min_size=BLOCK, lower_better=True)
    if name == "st-lpips":
        return ShiftTolerantMetric(device)
    if name == "niqe-full":
        return FullNiqe(_by_name("niqe", device))
    if name.startswith(LOG):
        return LogMetric(_by_name(name.removeprefix(LOG), device))
    if "," in name or ":" in name:
        return ProductMetric(_weights(name), device)
    return PyiqaMetric(name, device)


def _weights(text: str) -> dict[str, float]:
    """Read ``lpips,niqe-full:0.5`` as a dictionary of weights."""
    found = {}
    for part in text.split(","):
        name, _, weight = part.partition(":")
        try:
            found[name] = float(weight or 1)
        except ValueError:
            raise SkipDiffError(
                f"metric {text!r}: the weight {weight!r} of {name!r} is not a number"
            ) from None
    return found


class CallableMetric(Metric):
    """A user's function as a metric; see :func:`load_metric` for its form."""

    def __init__(self, function: Callable[..., Any], device: torch.device) -> None:
        second = _second_parameter(function)
        required = second is not None and second.default is second.empty
        super().__init__(
            device,
            name=str(getattr(function, "name", getattr(function, "__name__", type(function).__name__))),
            lower_better=bool(getattr(function, "lower_better", False)),
            reference=bool(getattr(function, "reference", required)),
            min_size=int(getattr(function, "min_size", 1)),
        )
        self._function = function
        self._takes_references = self.reference or second is not None

    def _score(self, images: Images, references: Images | None) -> Scores:
        values = self._function(images, references) if self._takes_references else self._function(images)
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu()
        scores = np.asarray(values, np.float64)
        if scores.shape != (len(images),):
            raise SkipDiffError(
                f"metric {self.name!r} must return one number per image, shape ({len(images)},), "
                f"got shape {scores.shape}"
            )
        return scores


class ProductMetric(Metric):
    """A weighted product of several metrics; see :func:`load_metric`."""

    def __init__(self, weights: Mapping[str, float], device: torch.device) -> None:
        if not weights or not all(isinstance(name, str) and weight > 0 for name, weight in weights.items()):
            raise SkipDiffError(f"the weights {dict(weights)} must map names of metrics to numbers above 0")
        self._parts = {load_metric(name, device): float(weight) for name, weight in weights.items()}
        super().__init__(
            device,
            name=" ".join(name if weight == 1 else f"{name}^{weight:g}" for name, weight in weights.items()),
            lower_better=True,
            reference=any(metric.reference for metric in self._parts),
            min_size=max(metric.min_size for metric in self._parts),
        )

    def _score(self, images: Images, references: Images | None) -> Scores:
        logarithm = np.zeros(len(images))
        for metric, weight in self._parts.items():
            logarithm -= weight * metric.worth(metric(images, references if metric.reference else None))
        return np.exp(logarithm)


class LogMetric(Metric):
    """The logarithm of another metric; see :func:`load_metric`."""

    def __init__(self, metric: Metric) -> None:
        super().__init__(
            metric.device, name=f"{LOG}{metric.name}", lower_better=True, reference=metric.reference,
            min_size=metric.min_size,
        )  # fmt: skip
        self._metric = metric

    def _score(self, images: Images, references: Images | None) -> Scores:
        return -self._metric.worth(self._metric(images, references if self.reference else None))

    def rewards(self, scores: Scores) -> Scores:
        """Return the negated scores, float64; NaN where there is no score."""
        return np.where(np.isfinite(scores), -np.asarray(scores), np.nan)


def _second_parameter(function: Callable[..., Any]) -> inspect.Parameter | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in functions have no signature
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return positional[1] if len(positional) > 1 else None
