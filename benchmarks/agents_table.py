"""The table and the verdict of ``python -m benchmarks agents``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from skipdiff_agents.evaluate import Result

from .agents_study import interval

Rows = dict[str, list[list[Result]]]
"""By policy, for each training seed (one if there is none), a result for each episode."""

COLUMNS: dict[str, tuple[Callable[[Result], float], str]] = {
    "NIQE ↓": (lambda r: r.others[0], ".3f"),
    "LPIPS ↓": (lambda r: r.others[1], ".4f"),
    "PSNR ↑": (lambda r: r.others[2], ".2f"),
    "SSIM ↑": (lambda r: r.others[3], ".4f"),
    "evaluations": (lambda r: float(r.evaluations), ".1f"),
}


def grid(by_seed: Sequence[Sequence[Result]], images: int, of: Callable[[Result], float]) -> np.ndarray:
    """(training seeds, images, noise seeds) of a number."""
    return np.array([[of(r) for r in played] for played in by_seed]).reshape(len(by_seed), images, -1)


def rewards(by_seed: Sequence[Sequence[Result]], images: int) -> np.ndarray:
    """As :func:`grid`, of the reward."""
    return grid(by_seed, images, lambda r: r.reward)


def table(rows: Rows, best: str, optima: np.ndarray, images: int, minutes: Mapping[str, float]) -> str:
    """A line for each policy; differences and shares are paired with the policy ``best``."""
    baseline = rewards(rows[best], images)
    optimum = optima.reshape(1, images, -1)
    titles = ["policy", "reward", "difference to best start", *COLUMNS, "regret", "gap closed", "minutes"]
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for name, by_seed in rows.items():
        own = rewards(by_seed, images)
        cells = [name, "{:.4f} [{:.4f}, {:.4f}]".format(*interval(own))]
        cells.append("" if name == best else "{:+.2%} [{:+.2%}, {:+.2%}]".format(*_relative(own, baseline)))
        for of, form in COLUMNS.values():
            cells.append(format(np.nanmean(grid(by_seed, images, of)), form))
        cells.append(f"{(optimum - own).mean():.4f}")
        gap = np.broadcast_to(optimum - baseline, own.shape)
        closed = interval(own - baseline, gap)
        cells.append("" if name == best else "{:.0%} [{:.0%}, {:.0%}]".format(*closed))
        cells.append(f"{minutes[name]:.1f}" if name in minutes else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _relative(own: np.ndarray, baseline: np.ndarray) -> tuple[float, float, float]:
    """Paired difference in units of the baseline's mean."""
    mean, low, high = interval(own - baseline)
    scale = baseline.mean()
    return mean / scale, low / scale, high / scale


def verdict(rows: Rows, best: str, agents: Sequence[str], images: int) -> str:
    """Whether learning beat the best fixed start, in a sentence or two."""
    if not agents:
        return "No agent was trained."
    baseline = rewards(rows[best], images)
    found = {name: _relative(rewards(rows[name], images), baseline) for name in agents}
    shown = {name: "{:+.2%} [{:+.2%}, {:+.2%}]".format(*numbers) for name, numbers in found.items()}
    ahead = [name for name, (_, low, _) in found.items() if low > 0]
    level = [name for name, (_, low, _) in found.items() if low >= -0.01]
    top = max(found, key=lambda name: found[name][0])
    if ahead:
        text = "Learning beat the best fixed start: " + ", ".join(f"{n} by {shown[n]}" for n in ahead) + "."
    else:
        text = (
            "Learning did not beat the best fixed start: no agent's interval lies above zero. "
            f"The nearest is {top}, {shown[top]}."
        )
    within = ", ".join(level) or "no agent"
    return f"{text} At most 1 % behind it, by the lower bound: {within}."
