"""States the results of CCSR and AddSR at one, two and four evaluations, in sentences computed from rows."""

from __future__ import annotations

from collections.abc import Mapping

from ..measure.metrics import column
from ..measure.results import Results
from ..measure.samplers import FAMILIES
from ..measure.sentences import COMPARED, compared
from .parts import Subject

BUDGETS = (1, 2, 4)
STAGE_1, BOTH, STUDENT, SAME = "ccsr-stage-1", "ccsr-both", "addsr", "ccsr"
"""Families: CCSR's first stage, both, AddSR's student, and CCSR's sampler on the model itself."""


LIMITS = {
    (BOTH, 2): {"lpips": 0.185, "niqe": 5.2, "psnr": 25.8},
    (STUDENT, 4): {"lpips": 0.205, "niqe": 4.6, "psnr": 25.0},
}
"""Limits for the means of natural-4x's few-step models on the pictures of :data:`AIMED_AT`, by family and
number of evaluations: upper limits or, if more is better, lower limits."""
AIMED_AT = "imagenet256_test"


def few_steps(results: Results, subject: Subject, images: str) -> list[str]:
    """Return the sentences for which there are rows.

    Args:
        results: the rows.
        subject: subject that the samplers belong to.
        images: name of the set of images, see :data:`AIMED_AT`.
    """
    found = first_stage(results, subject)
    for family in (BOTH, STUDENT):
        for budget in BUDGETS:
            key = at(results, subject, family, budget)
            found += [beside_others(results, subject, key, budget)] if key else []
    if images == AIMED_AT:
        keys = {at(results, subject, *which): limits for which, limits in LIMITS.items()}
        found += [reached(results, subject, key, limits) for key, limits in keys.items() if key]
    student = at(results, subject, STUDENT, 1)
    if student and "bicubic" in results:
        found.append(f"*AddSR at 1 evaluation against bicubic*: {compared(results, student, 'bicubic')}")
    return found


def at(results: Results, subject: Subject, family: str, evaluations: int) -> str:
    """Return the key of a family's sampler with this number of evaluations; empty if it has no rows."""
    keys = (key for key in subject.of(family) if key in results)
    return next((key for key in keys if results.mean(key, "evaluations") == evaluations), "")


def first_stage(results: Results, subject: Subject) -> list[str]:
    """Say what CCSR's first stage changes under CCSR's own sampler."""
    found = []
    for budget in BUDGETS:
        ours, same = (at(results, subject, family, budget) for family in (STAGE_1, SAME))
        if ours and same:
            found.append(
                f"*CCSR, stage 1 against the same sampler on the model itself, at {_calls(budget)}*: "
                f"{compared(results, ours, same)}"
            )
    return found


def beside_others(results: Results, subject: Subject, key: str, budget: int) -> str:
    """Say which samplers at equal evaluations are better than this one by a metric of the claims."""
    others = [
        (family.title, other)
        for family in FAMILIES
        if family.rival and family.name != subject.samplers[key].family
        for other in [at(results, subject, family.name, budget)]
        if other
    ]
    better = [
        f"{title} in {', '.join(column(m).title for m in metrics)}"
        for title, other in others
        if (metrics := [m for m in COMPARED if results.gain(other, key, m).sign == 1])
    ]
    head = f"*{subject.samplers[key].label}, beside {len(others)} others at {_calls(budget)}*: "
    return head + (f"worse than {'; '.join(better)}." if better else "none is better by any of the three.")


def reached(results: Results, subject: Subject, key: str, limits: Mapping[str, float]) -> str:
    """Say which limits a sampler keeps."""
    found = []
    for metric, limit in limits.items():
        mean, shown = results.mean(key, metric), column(metric)
        kept = mean <= limit if shown.lower_better else mean >= limit
        found.append(
            f"{shown.title} {mean:.{shown.digits}f} ({'kept' if kept else 'missed'}: at "
            f"{'most' if shown.lower_better else 'least'} {limit:g})"
        )
    return f"*Limits of {subject.samplers[key].label}*: {'; '.join(found)}."


def _calls(budget: int) -> str:
    return f"{budget} evaluation{'s' * (budget > 1)}"
