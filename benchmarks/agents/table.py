"""Makes the tables and the verdict of ``python -m benchmarks agents``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from skipdiff_agents.evaluate import Result
from skipdiff_env.images.mixed import KINDS

from ..measure.tables import Table
from .choice import Trained
from .study import SHARES, Scale, interval, judged

Rows = dict[str, list[list[Result]]]
"""The results by policy, training seed (one if there is none) and episode."""

OTHER_NOISE = "best start under the other noise"
"""The row of the start that is best for the same picture under its other noise seeds."""
IMITATION = "imitation of the optimum"
"""The row of a network that was taught the right answers."""


def columns() -> dict[str, tuple[Callable[[Result], float], str]]:
    """Return the columns of the tables: for each title, the function of a result, and its format."""
    found: dict[str, tuple[Callable[[Result], float], str]] = {}
    for i, metric in enumerate(judged()):
        found[metric.label] = (partial(_other, i), f".{metric.fine_digits}f")
    return found | {"evaluations": (lambda r: float(r.evaluations), ".1f")}


def _other(index: int, result: Result) -> float:
    return result.others[index]


def grid(by_seed: Sequence[Sequence[Result]], images: int, of: Callable[[Result], float]) -> np.ndarray:
    """Return a number of every result, (training seeds, images, noise seeds)."""
    return np.array([[of(r) for r in played] for played in by_seed]).reshape(len(by_seed), images, -1)


def rewards(by_seed: Sequence[Sequence[Result]], images: int) -> np.ndarray:
    """Return the reward of every result, as :func:`grid` does."""
    return grid(by_seed, images, lambda r: r.reward)


def table(
    rows: Rows, best: str, optima: np.ndarray, images: int, trained: Mapping[str, Sequence[Trained]],
    scale: Scale = SHARES,
) -> Table:  # fmt: skip
    """Tabulate the policies, one per line; differences and shares are paired with the policy ``best``.

    Args:
        rows: the results, with the images in one order and the noise seeds of an image together.
        best: the row of the best fixed start.
        optima: the optimum's reward in each episode, NaN where it is not known.
        images: number of images.
        trained: result of each training seed, by row.
        scale: how rewards are compared.
    """
    baseline = rewards(rows[best], images)
    optimum = optima.reshape(1, images, -1)
    lines = []
    for name, by_seed in rows.items():
        own = rewards(by_seed, images)
        cells = [name, _cell(interval(own), ".4f")]
        cells.append("" if name == best else _cell(scale.difference(own, baseline), "+.2%"))
        cells += [_mean(grid(by_seed, images, of), form) for of, form in columns().values()]
        cells.append(_mean(optimum - own, ".4f"))
        gap = np.broadcast_to(optimum - baseline, own.shape)
        cells.append("" if name == best else _cell(interval(own - baseline, gap), ".0%"))
        runs = trained.get(name, [])
        cells.append(f"{np.mean([run.minutes for run in runs]):.1f}" if runs else "")
        sampled = max((run.decisions for run in runs), default=0)
        cells.append(f"{sampled:,}" if sampled else "")
        lines.append(cells)
    titles = ["policy", "reward", "difference to best start", *columns(), "regret", "gap closed", "minutes"]
    return Table([*titles, "decisions"], lines)


def intervals(rows: Rows, optima: np.ndarray, images: int) -> Table:
    """Tabulate the 95 % intervals of the columns for which :func:`table` gives only means."""
    optimum = optima.reshape(1, images, -1)
    lines = []
    for name, by_seed in rows.items():
        cells = [name]
        for of, form in columns().values():
            values = grid(by_seed, images, of)
            cells.append(_cell(interval(values), form) if np.isfinite(values).any() else "")
        cells.append(_cell(interval(optimum - rewards(by_seed, images)), ".4f"))
        lines.append(cells)
    return Table(["policy", *columns(), "regret"], lines)


def other_noise(starts: np.ndarray, images: int) -> np.ndarray:
    """Return the start that is best on the mean of the image's other noise seeds.

    Its gain over one start for all images is due to the picture, and not to the noise that was drawn.

    Args:
        starts: rewards, (episodes, starts), with the noise seeds of an image together.
        images: number of images, where each degraded version counts as an image.

    Returns:
        The column numbers, (episodes,).
    """
    by_image = starts.reshape(images, -1, starts.shape[1])
    return (by_image.sum(axis=1, keepdims=True) - by_image).argmax(axis=2).ravel()


def under_other_noise(rows: Rows, images: int) -> list[Result]:
    """Return the results of the starts of :func:`other_noise`, chosen among the starts that have rows."""
    starts = [by_seed[0] for name, by_seed in rows.items() if name.startswith("start ")]
    found = other_noise(np.array([[r.reward for r in played] for played in starts]).T, images)
    return [starts[start][episode] for episode, start in enumerate(found)]


def by_kind(rows: Rows, best: str, images: int, shown: Sequence[str], scale: Scale = SHARES) -> Table:
    """Tabulate, for each kind of input, paired differences to the row ``best``, to show where adapting pays.

    Args:
        rows, best, images: as in :func:`table`; each image occurs in every kind.
        shown: the rows to show, below the starts that are best for each kind in hindsight.
        scale: how rewards are compared.
    """
    parts = {
        kind: {
            name: [[r for r in played if r.image.endswith(f", {kind}")] for played in by_seed]
            for name, by_seed in rows.items()
        }
        for kind in KINDS
    }
    starts = [name for name in rows if name.startswith("start ")]
    lines: list[list[str]] = [["best start in hindsight"], *([name] for name in shown)]
    for part in parts.values():
        baseline = rewards(part[best], images)
        found = max(starts, key=lambda name: rewards(part[name], images).mean())
        for line, name in zip(lines, (found, *shown), strict=True):
            cell = _cell(scale.difference(rewards(part[name], images), baseline), "+.2%")
            line.append(f"{name}: {cell}" if name == found else cell)
    return Table(["difference to best start", *KINDS], lines)


def _mean(values: np.ndarray, form: str) -> str:
    return format(np.nanmean(values), form) if np.isfinite(values).any() else ""


def _cell(numbers: tuple[float, float, float], form: str) -> str:
    """Format a mean and its interval; empty for a share of a gap that does not exist."""
    mean, low, high = (format(number, form) for number in numbers)
    return f"{mean} [{low}, {high}]" if np.isfinite(numbers).all() else ""


def verdict(
    rows: Rows, best: str, images: int, chosen: str, on_validation: tuple[float, float, float], paper: str,
    scale: Scale = SHARES,
) -> str:  # fmt: skip
    """Say whether learning beat the best fixed start.

    The verdict is about the agent that was chosen before any test image was played, and about the paper's:
    among many agents, one may be ahead by chance.

    Args:
        rows, best, images: as in :func:`table`.
        chosen: the row of the agent that was chosen on validation.
        on_validation: difference of its reward to that of the best start on validation.
        paper: the row of the paper's agent, which is left out if it does not exist.
        scale: how rewards are compared.
    """
    baseline = rewards(rows[best], images)
    mean, low, high = found = scale.difference(rewards(rows[chosen], images), baseline)
    shown = _cell(found, "+.2%")
    if low > 0:
        text = f"Learning beat the best fixed start: {shown} {scale.unit}."
    elif high < 0:
        text = f"Learning did worse than the best fixed start: {shown} {scale.unit}."
    else:
        text = f"Learning did not beat the best fixed start: {shown} {scale.unit}."
    text += f" This is the agent {chosen}, where it was {_cell(on_validation, '+.2%')}"
    text += f"; its lower bound on the test images is {'at least' if low >= -0.01 else 'below'} −1 %."
    if IMITATION in rows:
        text += " " + _share_of_imitation(rows, baseline, images, chosen, scale)
    if paper in rows:
        text += f" The paper's agent ({paper}), over all training seeds: "
        ours = rewards(rows[paper], images)
        text += _cell(scale.difference(ours, baseline), "+.2%")
        each = (f"{scale.difference(one[None], baseline)[0]:+.2%}" for one in ours)
        text += f"; seed by seed {', '.join(each)}."
    return text + " The rows of the other agents are exploratory: of many, one may be ahead by chance."


def _share_of_imitation(rows: Rows, baseline: np.ndarray, images: int, chosen: str, scale: Scale) -> str:
    """Say what share of the gain of imitation over the best start the chosen agent reaches."""
    taught = rewards(rows[IMITATION], images)
    gained = scale.difference(taught, baseline)
    text = f"Imitation of the optimum gains {_cell(gained, '+.2%')} over the best start"
    if gained[1] <= 0:
        return text + ", which may be nothing, so that there is no share of it to tell."
    each = taught.mean(axis=0, keepdims=True) - baseline
    share = interval(rewards(rows[chosen], images) - baseline, each)
    return text + f"; the chosen agent gains {_cell(share, '.0%')} of that."
