"""Verdicts on the figures of :mod:`.command`: the limits for a model for real photographs, and the quality of
the choices of ``--model auto``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from skipdiff_env.upscale.choice import AUTO, REAL, USUAL

from ..measure.results import Results
from ..measure.tables import Table
from .kinds import CLEAN, Kind

REFERENCE = "realesrgan-x4plus"
"""The program with which our models are compared, if its results exist."""
LPIPS_LIMITS = {"JPEG 75": 1.10, "JPEG 40": 1.15, "noise 12": 1.3, "blur 1.2": 1.3}
"""Maximum ratio of LPIPS to that of the other program, by kind of input."""
TITLES = {"lpips": "LPIPS", "stlpips": "ST-LPIPS", "psnr": "PSNR", "niqe": "NIQE", "residue": "residue"}
NIQE_LIMIT, RESIDUE_LIMIT, CLEAN_LIMIT = 1.1, 1.1, 1.15
"""Maxima of NIQE over the other program's, of the residue, and of LPIPS of clean input over natural-4x's."""


@dataclass(frozen=True)
class Limit:
    """A figure and its limit."""

    value: float
    limit: float
    most: bool = True
    """Whether the limit is a maximum, and not a minimum."""

    @property
    def kept(self) -> bool:
        """Whether the figure is within the limit."""
        return self.value <= self.limit if self.most else self.value >= self.limit

    def shown(self, form: str) -> str:
        """Format figure and verdict, such as ``× 1.06, kept``."""
        return f"{form.format(self.value)}, {'kept' if self.kept else '**missed**'}"


def limits(results: Results, kind: str) -> dict[str, Limit]:
    """Compare natural-4x-real with the other program on one kind of :data:`LPIPS_LIMITS`, by metric.

    ST-LPIPS, which no loss has seen, has the limit of LPIPS; it is left out if it was not measured.
    """

    def ratio(metric: str) -> float:
        return results.mean(REAL, metric) / results.mean(REFERENCE, metric)

    judges = [name for name in ("lpips", "stlpips") if not np.isnan(ratio(name))]
    return {
        **{name: Limit(ratio(name), LPIPS_LIMITS[kind]) for name in judges},
        "psnr": Limit(results.difference(REAL, REFERENCE, "psnr").mean, 0.0, most=False),
        "niqe": Limit(ratio("niqe"), NIQE_LIMIT),
        "residue": Limit(results.mean(REAL, "residue"), RESIDUE_LIMIT),
    }


def limit_table(found: Mapping[Kind, Results]) -> list[str | Table]:
    """Tabulate the limits of ``natural-4x-real``, kept or missed; empty if there is nothing to compare."""
    forms = {
        "lpips": "× {:.2f}",
        "stlpips": "× {:.2f}",
        "psnr": "{:+.2f} dB",
        "niqe": "× {:.2f}",
        "residue": "{:.2f}",
    }
    held = {
        f"{kind.name} (LPIPS at most × {LPIPS_LIMITS[kind.name]:.2f})": limits(results, kind.name)
        for kind, results in found.items()
        if kind.name in LPIPS_LIMITS and {REAL, REFERENCE} <= {*results.samplers}
    }
    shown = [name for name in forms if any(name in line for line in held.values())]
    lines = [
        [said, *(line[name].shown(forms[name]) if name in line else "–" for name in shown)]
        for said, line in held.items()
    ]
    blocks: list[str | Table] = []
    if lines:
        blocks += [
            f"Limits for {REAL} beside {REFERENCE}: LPIPS and ST-LPIPS as stated in the first column, no "
            f"lower PSNR, NIQE at most × {NIQE_LIMIT}, and a residue of at most {RESIDUE_LIMIT}.",
            Table(["", *(TITLES[name] for name in shown)], lines),
        ]
    clean = next((results for kind, results in found.items() if kind.name == CLEAN), None)
    if clean and {REAL, USUAL} <= {*clean.samplers}:
        forced = Limit(clean.mean(REAL, "lpips") / clean.mean(USUAL, "lpips"), CLEAN_LIMIT)
        blocks.append(
            f"On clean input, LPIPS of {REAL} over that of {USUAL}: {forced.shown('× {:.2f}')} (the limit is "
            f"× {CLEAN_LIMIT})."
        )
    return blocks


def choices(found: Mapping[Kind, Results]) -> str:
    """Say how often ``auto`` chooses the model with the lower LPIPS, and the cost of its choices; empty if
    ``auto`` has no rows."""
    models = USUAL, REAL
    some = {kind: results for kind, results in found.items() if {AUTO, *models} <= {*results.samplers}}
    if not some:
        return ""
    taken = {kind: results.values(AUTO, "lpips") for kind, results in some.items()}
    best = {kind: np.minimum(*(r.values(m, "lpips") for m in models)) for kind, r in some.items()}
    ours, least = (np.concatenate([*table.values()]) for table in (taken, best))
    text = (
        f"*auto* takes the model with the lower LPIPS for {np.mean(ours <= least):.0%} of these inputs, and "
        f"its mean LPIPS lies {ours.mean() / least.mean() - 1:.1%} above that of the better model of each."
    )
    clean = next((kind for kind in some if kind.name == CLEAN), None)
    if clean:
        loss = taken[clean].mean() / some[clean].mean(USUAL, "lpips") - 1
        text += f" With it, the LPIPS of clean input changes by {loss:+.1%}."
    return text
