"""What of the paper held here, in sentences that are computed from the rows."""

from __future__ import annotations

import re

import numpy as np

from .parts import RIVALS, Subject, starts
from .results import Estimate, Results
from .tables import DIGITS, TITLES

COMPARED = ("psnr", "niqe", "lpips")
"""The metrics of the paper's claims."""


def claims(results: Results, subject: Subject) -> list[str]:
    """A sentence a claim, for those whose rows are there."""
    found = []
    if subject.skipdiff in results and subject.full in results:
        found += [better_than_full(results, subject, metric) for metric in COMPARED]
        ours, theirs = (results.mean(s, "evaluations") for s in (subject.skipdiff, subject.full))
        found.append(
            f"*Fewer evaluations*: {'yes' if ours < theirs else 'no'}, {ours:.4g} instead of {theirs:.4g}."
        )
    if all(subject.manual(k) in results for k in range(1, subject.fine + 1)):
        found.append(best_start(results, subject))
        if "NIQE" in subject.agents and subject.agents["NIQE"] in results:
            found.append(agent(results, subject))
    if subject.skipdiff in results:
        found += same_budget(results, subject)
    return found


def better_than_full(results: Results, subject: Subject, metric: str) -> str:
    """SkipDiff against all T steps."""
    gain = results.gain(subject.skipdiff, subject.full, metric)
    verdict = {1: "yes", 0: "undecided", -1: "no"}[gain.sign]
    means = [results.mean(s, metric) for s in (subject.skipdiff, subject.full)]
    digits = DIGITS[metric]
    both = " against ".join(f"{mean:.{digits}f}" for mean in means)
    margin = signed(gain, metric)
    return f"*Better {name(metric)} than the full chain*: {verdict}, {both} (paired gain {margin})."


def best_start(results: Results, subject: Subject) -> str:
    """Where the best manual start lies, by each metric."""
    best = {metric: best_manual(results, subject, metric) for metric in ("niqe", "lpips", "psnr", "ssim")}
    ends = {1, subject.fine}
    inside = [metric for metric in ("niqe", "lpips") if best[metric] not in ends]
    verdict = {2: "yes", 1: f"by {name(inside[0])} alone" if inside else "", 0: "no"}[len(inside)]
    where = ", ".join(f"{start} for {name(metric)}" for metric, start in best.items())
    return f"*The best manual start lies inside the range 1 … {subject.fine}*: {verdict}: {where}."


def best_manual(results: Results, subject: Subject, metric: str) -> int:
    """The manual start with the best mean of a metric."""
    sign = -1 if TITLES[metric].endswith("↓") else 1
    values = {k: sign * results.mean(subject.manual(k), metric) for k in range(1, subject.fine + 1)}
    return max(values, key=values.__getitem__)


def agent(results: Results, subject: Subject) -> str:
    """The agent against the best manual start, by its reward."""
    best = best_manual(results, subject, "niqe")
    gain = results.gain(subject.agents["NIQE"], subject.manual(best), "niqe")
    verdict = {1: "better", 0: "yes, as far as can be told", -1: "no, worse"}[gain.sign]
    return (
        f"*The agent equals the best manual start* (here {best}, chosen on these very images): {verdict} "
        f"(paired gain in NIQE {signed(gain, 'niqe')})."
    )


def same_budget(results: Results, subject: Subject) -> list[str]:
    """What wins and what loses against SkipDiff with at most as many evaluations."""
    budget = results.mean(subject.skipdiff, "evaluations")
    found = []
    for kind in (*RIVALS, "ccsr"):
        matches = (re.fullmatch(rf"{kind}-(\d+)", key) for key in results.samplers)
        fitting = [size for match in matches if match and (size := int(match[1])) <= budget]
        if not fitting:
            continue
        rival = f"{kind}-{max(fitting)}"
        gains = {metric: results.gain(rival, subject.skipdiff, metric) for metric in COMPARED}
        named = {1: "better", -1: "worse", 0: "not told apart"}
        parts = [
            f"{named[sign]} in "
            + ", ".join(f"{name(m)} ({signed(gains[m], m)})" for m in COMPARED if gains[m].sign == sign)
            for sign in (1, -1, 0)
            if any(gain.sign == sign for gain in gains.values())
        ]
        found.append(
            f"*{NAMES[kind]} at {max(fitting)} evaluations against SkipDiff at {budget:.4g}*: "
            + "; ".join(parts)
            + "."
        )
    return found


NAMES = {
    "ddim": "DDIM",
    "dpm": "DPM-Solver++(2M)",
    "ancestral": "The plain uniform chain",
    "ccsr": "CCSR's sampler",
}


def name(metric: str) -> str:
    """A metric's name without its arrow."""
    return TITLES[metric].split(" ")[0]


def signed(gain: Estimate, metric: str) -> str:
    """A gain with its interval, more being better."""
    digits = DIGITS[metric]
    return f"{gain.mean:+.{digits}f}, interval {gain.low:+.{digits}f} … {gain.high:+.{digits}f}"


def niqe_disagreements(results: Results) -> str:
    """Where NIQE and NIQE-full put two samplers in opposite orders, both intervals clear of zero."""
    found, pairs = [], 0
    for i, first in enumerate(results.samplers):
        for second in results.samplers[:i]:
            pairs += 1
            signs = {m: results.difference(first, second, m).sign for m in ("niqe", "niqe_full")}
            if signs["niqe"] * signs["niqe_full"] < 0:
                found.append(f"{first} and {second}")
    if not found:
        return f"NIQE and NIQE-full order no two of the {len(results.samplers)} samplers in opposite ways."
    shown = "; ".join(found[:10]) + (" …" if len(found) > 10 else "")
    return f"NIQE and NIQE-full order {len(found)} of {pairs} pairs of samplers in opposite ways: {shown}."


def optimum_starts(results: Results, subject: Subject, metric: str) -> list[int]:
    """The best start of each image and noise seed: under ``reset`` no schedule does better."""
    sign = -1 if TITLES[metric].endswith("↓") else 1
    part = starts(subject)
    values = {
        k: sign * results.values(subject.manual(k), metric)
        for k in range(1, subject.fine + 1)
        if subject.manual(k) in part.samplers
    }
    order = sorted(values)
    table = np.stack([np.nan_to_num(values[k], nan=-np.inf) for k in order])
    return [order[i] for i in table.argmax(axis=0)]
