"""States which of the paper's claims hold here, in sentences that are computed from the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..measure.metrics import column, major
from ..measure.results import FEWEST, Results
from ..measure.samplers import FAMILIES
from ..measure.sentences import COMPARED, compared, name, signed, spelled
from .parts import Subject
from .published import CASES, COARSE_TRENDS, STARTS

WORDS = {1: "yes", 0: "undecided", -1: "no"}


def claims(results: Results, subject: Subject) -> list[str]:
    """Return a sentence for every claim whose rows exist."""
    found = []
    if subject.skipdiff in results and subject.full in results:
        found += [better_than_full(results, subject, metric) for metric in COMPARED]
        ours, theirs = (results.mean(s, "evaluations") for s in (subject.skipdiff, subject.full))
        found.append(
            f"*Fewer evaluations*: {'yes' if ours < theirs else 'no'}, {ours:.4g} instead of {theirs:.4g}."
        )
    if "csa-10" in results and subject.full in results:
        found.append(coarse_against_full(results, subject))
    if "hr" in results and subject.full in results:
        found.append(full_against_originals(results, subject))
    if subject.full in results:
        found += [pair_against_full(results, subject, key) for key in subject.pairs if key in results]
    if all(subject.manual(k) in results for k in range(1, subject.fine + 1)):
        if subject.full in results:
            found.append(start_beats_full(results, subject))
        if subject.fine > 8:
            found.append(from_start_9_to_1(results, subject))
        if subject.fine > 2:
            found.append(best_start(results, subject))
        found += [
            agent(results, subject, reward)
            for reward in ("NIQE", "LPIPS")
            if reward in subject.agents and subject.agents[reward] in results
        ]
    figure1 = subject.of("csa")
    if figure1 and all(key in results for key in figure1):
        found += [trend(results, subject, metric) for metric in COMPARED]
    if subject.skipdiff in results:
        found += same_budget(results, subject)
    return found


def other_choices(results: Results, choices: Sequence[tuple[str, str, str]]) -> list[str]:
    """Compare SkipDiff with the full chain for every other model or sampler.

    Args:
        results: results that include the rows of the ablation table.
        choices: for each, what is changed, and the keys of SkipDiff and of the full chain with that change.
    """
    return [
        f"*SkipDiff against the full chain, {what}*: {compared(results, ours, full)}"
        for what, ours, full in choices
        if ours in results and full in results
    ]


def better_than_full(results: Results, subject: Subject, metric: str) -> str:
    """Compare SkipDiff with all T steps."""
    gain = results.gain(subject.skipdiff, subject.full, metric)
    verdict = WORDS[gain.sign]
    means = [results.mean(s, metric) for s in (subject.skipdiff, subject.full)]
    digits = column(metric).digits
    both = " against ".join(f"{mean:.{digits}f}" for mean in means)
    margin = signed(gain, metric)
    return f"*Better {name(metric)} than the full chain*: {verdict}, {both} (paired gain {margin})."


def coarse_against_full(results: Results, subject: Subject) -> str:
    """Compare the second case of Table 4 with the first."""
    text = (
        f"*CSA alone (S = 10) against the full chain*: {compared(results, 'csa-10', subject.full, major())}"
    )
    if subject.paper != "faces":
        return text
    names, cases = ("psnr", "ssim", "niqe", "lpips"), (CASES["csa"][0], CASES["neither"][0])
    gains = ", ".join(
        f"{name(m)} {(theirs - ours if column(m).lower_better else ours - theirs):+.{column(m).digits}f}"
        for m, ours, theirs in zip(names, *cases, strict=True)
    )
    return f"{text} The paper's gains: {gains}."


def full_against_originals(results: Results, subject: Subject) -> str:
    """Say whether the chain's pictures have a lower NIQE than the originals, as grain can cause."""
    gap = results.difference(subject.full, "hr", "niqe")
    means = " against ".join(f"{results.mean(s, 'niqe'):.2f}" for s in (subject.full, "hr"))
    return (
        f"*The full chain has a lower NIQE than the originals themselves*: {WORDS[-gap.sign]}, {means} "
        f"(paired difference {spelled(gap, '+.2f')})."
    )


def pair_against_full(results: Results, subject: Subject, key: str) -> str:
    """Compare another step pair with all T steps."""
    spent = results.mean(key, "evaluations")
    head = f"*{subject.samplers[key].label} at {spent:.4g} evaluations against the full chain*: "
    return head + compared(results, key, subject.full)


def from_start_9_to_1(results: Results, subject: Subject) -> str:
    """Say how much Table 5 loses towards its low end."""
    high, low = subject.manual(9), subject.manual(1)
    psnr, lpips = results.difference(low, high, "psnr"), results.ratio(low, high, "lpips")
    text = f"*From start 9 to start 1*: PSNR {spelled(psnr, '+.2f', ' dB')}; LPIPS × {spelled(lpips, '.2f')}."
    if subject.paper == "faces":
        gap, factor = STARTS[1][0] - STARTS[9][0], STARTS[1][3] / STARTS[9][3]
        text += f" The paper: PSNR {gap:+.2f} dB, LPIPS × {factor:.2f}."
    return text


def start_beats_full(results: Results, subject: Subject) -> str:
    """Say whether one manual start is better than all T steps by every metric of the claims at once."""
    signs = {
        k: [results.gain(subject.manual(k), subject.full, metric).sign for metric in COMPARED]
        for k in range(1, subject.fine + 1)
    }
    winners = [str(k) for k, some in signs.items() if min(some) == 1]
    verdict = WORDS[max(min(some) for some in signs.values())]
    which = f", {', '.join(winners)} (of {subject.fine}, looked for on these very images)" if winners else ""
    return f"*Some manual start beats the full chain on PSNR, NIQE and LPIPS at once*: {verdict}{which}."


def best_start(results: Results, subject: Subject) -> str:
    """Compare the best inner manual start with the better of the two ends, by NIQE and LPIPS."""
    parts = []
    for metric in ("niqe", "lpips"):
        inner = best_manual(results, subject, metric, range(2, subject.fine))
        end = best_manual(results, subject, metric, (1, subject.fine))
        gain = results.gain(subject.manual(inner), subject.manual(end), metric)
        parts.append(
            f"{WORDS[gain.sign]} by {name(metric)} (start {inner} against {end}: paired gain "
            f"{signed(gain, metric)})"
        )
    where = ", ".join(
        f"{best_manual(results, subject, metric)} for {name(metric)}"
        for metric in ("niqe", "lpips", "psnr", "ssim")
    )
    text = "; ".join(parts)
    return f"*The best manual start lies inside the range 1 … {subject.fine}*: {text}. Best means: {where}."


def best_manual(results: Results, subject: Subject, metric: str, among: Sequence[int] | None = None) -> int:
    """Return the manual start with the best mean of a metric, of all or only ``among`` some."""
    sign = -1 if column(metric).lower_better else 1
    some = among or range(1, subject.fine + 1)
    values = {k: sign * results.mean(subject.manual(k), metric) for k in some}
    return max(values, key=values.__getitem__)


def agent(results: Results, subject: Subject, reward: str) -> str:
    """Compare the agent with the best manual start, by its reward."""
    metric = reward.lower()
    best = best_manual(results, subject, metric)
    gain = results.gain(subject.agents[reward], subject.manual(best), metric)
    verdict = {1: "better", 0: "not told apart", -1: "no, worse"}[gain.sign]
    if gain.images < FEWEST:
        verdict = "undecided"
    return (
        f"*The agent ({reward}) equals the best manual start* (here {best}, chosen on these very images): "
        f"{verdict}, paired gain in {name(metric)} {signed(gain, metric)}, which admits a loss of up to "
        f"{max(0.0, -gain.low):.{column(metric).digits}f}."
    )


def trend(results: Results, subject: Subject, metric: str) -> str:
    """Say whether a metric rises or falls with S as in the paper's Figure 1."""
    keys = subject.of("csa")
    found = results.spearman(keys, [subject.samplers[key].steps for key in keys], metric)
    verdict = WORDS[found.sign * COARSE_TRENDS[metric]]
    falls = f"{name(metric)} falls with S, which is {'better' if column(metric).lower_better else 'worse'}"
    return f"*CSA alone: {falls}*: {verdict}, Spearman's ρ {spelled(found, '+.2f')}."


def same_budget(results: Results, subject: Subject) -> list[str]:
    """List what wins and what loses against SkipDiff with at most as many evaluations, rounded."""
    budget = results.mean(subject.skipdiff, "evaluations")
    found = []
    for family in (family for family in FAMILIES if family.rival):
        keys = [key for key in (*subject.of(family.name), *family.borrows) if key in results]
        spent = {key: results.mean(key, "evaluations") for key in keys}
        fitting = [key for key, calls in spent.items() if calls <= round(budget)]
        said = family.said or family.title
        if fitting:
            rival = max(fitting, key=spent.__getitem__)
            head = f"*{said} at {spent[rival]:.4g} evaluations against SkipDiff at {budget:.4g}*: "
            found.append(head + compared(results, rival, subject.skipdiff))
        elif spent:
            least = min(spent.values())
            found.append(
                f"*{said}*: not compared, for it was run at {least:.4g} evaluations or more and SkipDiff "
                f"takes {budget:.4g}."
            )
    return found


def niqe_disagreements(results: Results) -> str:
    """Say where NIQE and NIQE-full rank two samplers oppositely, with both intervals clear of zero."""
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
    """Return the best start of each image and noise seed; under ``reset``, no schedule is better."""
    sign = -1 if column(metric).lower_better else 1
    order = range(1, subject.fine + 1)
    values = np.stack([sign * results.values(subject.manual(k), metric) for k in order])
    return [order[i] for i in np.nan_to_num(values, nan=-np.inf).argmax(axis=0)]
