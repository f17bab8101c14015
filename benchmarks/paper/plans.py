"""Compares a model's plans with SkipDiff's fixed start, and with standard samplers at equal evaluations.

Plans that only efforts run were chosen for more detail; they are also compared with SkipDiff with 20 coarse
steps.

    python -m benchmarks plans --model natural-4x --images imagenet256_test.tar

Writes ``plans.md`` and ``plans.csv`` into ``benchmarks/results/<model>/<images>/``; rows are kept with those
of ``paper``, and existing rows are not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.chains import shipped_plans

from ..measure.evaluate import Evaluation
from ..measure.metrics import METRICS, column
from ..measure.options import (
    add_common,
    fixed_start,
    folder_name,
    made_by,
    network_dtype,
    open_images,
    rows_file,
)
from ..measure.results import Estimate, Results
from ..measure.sampler import HR, Sampler
from ..measure.samplers import catalogue
from ..measure.store import Store
from ..measure.tables import Report, Table, basis

EFFORT = "effort"
"""The family of plans that only efforts run."""
FINER = "skip-20-"
"""Beginning of the key of SkipDiff with 20 coarse steps."""
STANDARD = ("ddim", "ddim-half", "dpm", "ancestral", "ccsr")
"""Families with which a plan is compared at equal evaluations."""
JUDGES = ("psnr", "lpips", "niqe_full")
"""A plan is beaten by a sampler that is better by two of these metrics and not worse by the third."""
ABSOLUTE = ("psnr", "ssim")
"""Metrics that are compared by their difference; the others are compared by their ratio."""
LIMITS = {"psnr": -0.10, "ssim": -0.005, "lpips": 1.02, "niqe_full": 1.04, "residue": 1.1}
"""Limits, relative to the fixed start, within which a plan counts as equally good."""
LOOSER = {8: 1.02, 6: 1.05, 5: 1.07}
"""Allowed ratio of LPIPS, by the maximum number of evaluations of a plan."""


@dataclass(frozen=True)
class Against:
    """A plan compared with SkipDiff: differences (for :data:`ABSOLUTE`) or ratios of means, by metric."""

    sampler: Sampler
    found: dict[str, Estimate]

    def fails(self, lpips: float) -> list[str]:
        """Return the metrics by which it exceeds :data:`LIMITS`, with this ratio of LPIPS instead."""
        limits = LIMITS | {"lpips": lpips}
        return [
            name for name, limit in limits.items()
            if (self.found[name].mean < limit if name in ABSOLUTE else self.found[name].mean > limit)
        ]  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add_common(parser)
    parser.add_argument("--seeds", type=int, default=1, help="number of noise seeds per image [1]")


def run(args: argparse.Namespace) -> int:
    """Compute the missing rows and write the page."""
    model = load_pretrained(args.model, args.device, network_dtype(args))
    start, counts = fixed_start(model, args.start), set(shipped_plans(model))
    if not counts:
        raise SkipDiffError(f"{args.model} comes with no plans: make them with 'skipdiff find-plan'")
    every = catalogue(model, start, budgets=counts, folder=args.model)
    plans = [sampler for sampler in every.values() if sampler.family in ("plan", EFFORT)]
    reference = every[f"skip-10-{model.schedule.steps // 10}-{start}"]
    rivals = [s for s in every.values() if s.family in STANDARD and s.steps in counts]
    source, store = open_images(args), Store(rows_file(args, model))
    seeds = range(args.seeds)
    finer = next((s for key, s in every.items() if s.family == "pair" and key.startswith(FINER)), None)
    finer = finer if any(plan.family == EFFORT for plan in plans) else None
    compared = [HR, reference, *filter(None, [finer]), *plans, *rivals]
    evaluation = Evaluation(model, source, compared, store, seeds, args.limit, complete=True)
    results = Results(evaluation.run(progress=True))
    made = f"{made_by('plans', args, add_arguments)} Model `{model.hash}`."
    page = report(results, reference, plans, rivals, made, finer)
    page.write(args.out / model.name / folder_name(args))
    print(page.text)
    return 0


def report(
    results: Results, reference: Sampler, plans: Sequence[Sampler], rivals: Sequence[Sampler], made: str,
    finer: Sampler | None = None,
) -> Report:  # fmt: skip
    """Report means, gains and losses of plans, and what beats them; ``finer`` is for plans of efforts."""
    references = [reference, *filter(None, [finer])]
    shown = [HR, *references, *plans, *sorted(rivals, key=lambda rival: rival.steps)]
    head = ["", *(metric.label for metric in METRICS), "evaluations"]
    means = Table(
        head,
        [
            [s.label, *(m.shown(results.mean(s.key, m.name)) for m in METRICS), str(spent(results, s))]
            for s in shown
        ],
    )
    against = [Against(plan, compared(results, plan.key, reference.key)) for plan in plans]
    note = (
        f"Means over {basis(len(results.images), len(results.seeds))}. Residue: grain in flat areas over the "
        f"original's. {made}"
    )
    blocks: list[str | Table] = [
        means,
        f"Plans against {reference.label}, with 95 % bootstrap intervals over images: differences of PSNR "
        "and SSIM, ratios of the other means.",
        paired(against),
        *sentences(against),
        *beaten(results, plans, rivals),
    ]
    if finer:
        own = [
            Against(plan, compared(results, plan.key, finer.key)) for plan in plans if plan.family == EFFORT
        ]
        blocks += [f"Efforts against {finer.label}, in the same way:", paired(own)]
    data = [["sampler", *(m.name for m in METRICS), "evaluations"]] + [
        [s.key, *(results.mean(s.key, m.name) for m in METRICS), spent(results, s)] for s in shown
    ]
    return Report("plans", "Plans", note, blocks, data, basis(len(results.images), len(results.seeds)))


def paired(against: Sequence[Against]) -> Table:
    """Tabulate each plan's differences and ratios."""
    head = ["", *(column(name).title for name in LIMITS)]
    return Table(head, [[a.sampler.label, *map(_interval, a.found.values())] for a in against])


def spent(results: Results, sampler: Sampler) -> int:
    """Return the number of evaluations of a sampler that takes the same number for every picture."""
    return round(results.mean(sampler.key, "evaluations"))


def compared(results: Results, plan: str, reference: str) -> dict[str, Estimate]:
    """Estimate paired differences or ratios of means, by metric."""
    found = {}
    for name in LIMITS:
        if name in ABSOLUTE:
            found[name] = results.difference(plan, reference, name)
        else:
            found[name] = results.ratio(plan, reference, name)
    return found


def sentences(against: Sequence[Against]) -> list[str]:
    """Say with how few evaluations plans still count as equally good."""
    found = []
    for most, lpips in LOOSER.items():
        limits = ", ".join(f"{column(name).title} {_limit(name, lpips)}" for name in LIMITS)
        some = [a for a in against if a.sampler.steps <= most]
        good = [a for a in some if not a.fails(lpips)]
        if good:
            fewest = min(good, key=lambda a: a.sampler.steps)
            text = f"yes, from {fewest.sampler.steps} evaluations on"
        elif some:
            near = min(some, key=lambda a: len(a.fails(lpips)))
            text = f"no; nearest is the plan of {near.sampler.steps} evaluations, beyond the limit in "
            text += ", ".join(column(name).title for name in near.fails(lpips))
        else:
            text = "there is no such plan"
        found.append(f"*As good as the fixed start in at most {most} evaluations* ({limits}): {text}.")
    return found


def beaten(results: Results, plans: Sequence[Sampler], rivals: Sequence[Sampler]) -> list[str]:
    """List the standard samplers that beat each plan at equal evaluations, see :data:`JUDGES`."""
    found = []
    for plan in plans:
        some = [rival for rival in rivals if rival.steps == plan.steps]
        ahead = []
        for rival in some:
            signs = [results.gain(rival.key, plan.key, name).sign for name in JUDGES]
            if signs.count(1) >= 2 and min(signs) >= 0:
                ahead.append(rival.label)
        if some:
            text = f"beaten by {', '.join(ahead)}" if ahead else f"beaten by none of {len(some)}"
            found.append(f"- {plan.label}: {text}")
    *firsts, last = (column(name).title for name in JUDGES)
    what = f"{', '.join(firsts)} and {last}"
    said = (
        f"A plan counts as beaten if a standard sampler with as many evaluations is better in two of {what}, "
        "with paired intervals that exclude zero, and not worse in the third:"
    )
    return [said, "\n".join(found)] if found else []


def _interval(found: Estimate) -> str:
    sign = "+" if np.isfinite(found.mean) and found.low < 0.5 else ""
    return f"{found:{sign}.3f}"


def _limit(name: str, lpips: float) -> str:
    limit = lpips if name == "lpips" else LIMITS[name]
    return f"≥ {limit:+g}" if name in ABSOLUTE else f"≤ × {limit:g}"
