"""Tests which choices in the recipe of the paper's agent let it learn, by changing one at a time.

    python -m benchmarks agent-recipe --model face-8x --images faces128_train.tar --only faces128 \\
        --train-images 40 --every 16 --noise-seeds 2 --valid faces128_val.tar --valid-images 8 --valid-seeds 2

Records the episodes, trains the agent of ``recurrent_ppo.yaml`` and its variants with every seed, and shows
both ways of playing: with actions drawn at random, as agents learn, and with the more probable action, as
they are used. Finished agents are not trained again, and the page is rewritten after every agent.
Writes ``benchmarks/results/agents/<model>/recipe.md``, ``.csv`` and ``.png``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skipdiff_agents.settings import read_settings
from skipdiff_agents.train import LOG, PLAYED

from ..measure.drawing import new_figure, save_plot
from ..measure.options import made_by
from ..measure.tables import Report, Table
from .study import Study, add_study_arguments, open_study, say

RECIPE, LETTER = "recurrent_ppo", "paper"
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "gamma 0.95": {"arguments": {"gamma": 0.95}},
    "gamma 1": {"arguments": {"gamma": 1.0}},
    "entropy 0.01": {"arguments": {"ent_coef": 0.01}},
    "entropy 0.05 to 0.005": {"arguments": {"ent_coef_end": 0.005}},
    "rewards as paid": {"relative_rewards": False},
    "no price": {"step_cost": 0.0},
    "GRU 256": {"policy": {"hidden_size": 256}},
    "batch norm": {"policy": {"norm": "batch"}},
    "4 environments": {"num_envs": 4},
}
"""The changes that each variant makes to the settings."""
NEAR = 0.015
"""An agent counts as having learned when its reward is at most this share below that of the best start."""
LOG_COLUMNS = ("variant", "training_seed", "timesteps", "minutes", "reward", "evaluations")


@dataclass(frozen=True)
class Curve:
    """An agent in the course of its training."""

    variant: str
    seed: int
    evaluated: list[dict[str, float]]
    """Rows of ``evaluations.csv``: validation episodes, played with the more probable actions."""
    played: list[dict[str, float]]
    """Rows of ``played.csv``: training episodes, played with actions drawn at random."""

    @property
    def best(self) -> float:
        """The highest validation reward, less prices, which is that of the kept agent."""
        return max(row["reward"] for row in self.evaluated)

    def reached(self, reward: float) -> float:
        """Return the number of decisions until an evaluation reached this reward; NaN if none did."""
        return next((row["timesteps"] for row in self.evaluated if row["reward"] >= reward), np.nan)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add_study_arguments(parser, test=False)
    parser.add_argument("--metric", default="niqe", help="the reward's metric [niqe]")
    parser.add_argument(
        "--variants", nargs="*", default=list(VARIANTS), metavar="NAME", choices=VARIANTS,
        help=f"variants of the recipe to train [{', '.join(VARIANTS)}]",
    )  # fmt: skip
    parser.add_argument(
        "--letter-hours",
        type=float,
        default=0,
        metavar="H",
        help="also train the paper's own recipe, and a variant of it that has the number of the decision as "
        "an input instead of a memory, for the recipe's number of decisions or at most H hours each [0]",
    )


def run(args: argparse.Namespace) -> int:
    """Record the episodes, train the agents, and write the page after each."""
    letter = read_settings(LETTER)
    # Recorded in any case, so that the paper's recipe can be added later.
    study = open_study(args, args.metric, sizes=[letter["observation_size"]])
    study.record()
    curves: list[Curve] = []
    for seed in range(args.seeds):
        for name in args.variants:
            settings = changed(read_settings(RECIPE), VARIANTS[name])
            settings |= {"timesteps": args.timesteps or settings["timesteps"], "observation_size": args.size}
            curves.append(_trained(study, settings, name, seed))
            write(study, curves)
    if args.letter_hours:
        shape = {name: letter["policy"][name] for name in ("hidden_size", "norm")}
        clock = letter | {"algorithm": "PPO", "policy": shape}
        for name, settings in (("the paper's recipe", letter), ("the paper's recipe with a clock", clock)):
            curves.append(_trained(study, settings, name, 0, 60 * args.letter_hours))
            write(study, curves)
    return 0


def changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with ``changes``; nested tables are merged."""
    result = deepcopy(dict(settings))
    for name, value in changes.items():
        result[name] = result[name] | value if isinstance(value, dict) else value
    return result


def _trained(
    study: Study, settings: dict[str, Any], variant: str, seed: int, minutes: float | None = None
) -> Curve:
    label = "recipe-" + variant.replace(" ", "_").replace("'", "")
    run, _ = study.train(settings, label, seed, minutes)
    return Curve(variant, seed, _table(run.folder / LOG), whole_rounds(_table(run.folder / PLAYED)))


def whole_rounds(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Leave out a last row that is the mean of only the few episodes after the last full round."""
    few = len(rows) > 1 and 2 * (rows[-1]["timesteps"] - rows[-2]["timesteps"]) < rows[0]["timesteps"]
    return rows[:-1] if few else rows


def _table(file: Path) -> list[dict[str, float]]:
    with open(file, newline="", encoding="utf-8") as opened:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(opened)]


def write(study: Study, curves: list[Curve]) -> None:
    """Write the page with the results so far."""
    start, valid = study.best_start(), study.evaluator("valid")
    fixed = {k: float(np.mean([r.reward for r in valid(k)])) for k in (start, "denoise", "skip")}
    goal = fixed[start]
    lines = []
    by_variant = {c.variant: [d for d in curves if d.variant == c.variant] for c in curves}
    for name, runs in by_variant.items():
        ahead = [curve.best / goal - 1 for curve in runs]
        reached = [curve.reached(goal * (1 - NEAR)) for curve in runs]
        drawn = np.mean([curve.played[-1]["reward"] for curve in runs])
        minutes = np.mean([curve.evaluated[-1]["minutes"] for curve in runs])
        decisions = max(curve.evaluated[-1]["timesteps"] for curve in runs)
        when = ", ".join("never" if np.isnan(n) else f"{n / 1000:.0f}k" for n in reached)
        lines.append(
            [name, f"{np.mean([c.best for c in runs]):.4f}", ", ".join(f"{a:+.1%}" for a in ahead), when,
             f"{drawn:.4f}", f"{decisions:.0f}", f"{minutes:.1f}"]
        )  # fmt: skip
    said = (
        f"Validation reward of start {start}, the best on training pictures: {goal:.4f}; of always denoising "
        f"{fixed['denoise']:.4f}, of always skipping {fixed['skip']:.4f}. The reward of agents is that of "
        "the best evaluation, always the more probable action, less the price of its evaluations. By chance: "
        "the reward on training episodes, while learning, at the end."
    )
    near = f"decisions to within {NEAR:.1%}"
    heads = ["variant", "reward", "to the start, by seed", near, "by chance", "decisions", "minutes"]
    data: list[list[Any]] = [list(LOG_COLUMNS)]
    for curve in curves:
        data += [
            [curve.variant, curve.seed, *(row.get(c, "") for c in LOG_COLUMNS[2:])] for row in curve.evaluated
        ]
    title = f"The recipe of the paper's agent on {study.model.name}"
    report = Report(
        "recipe",
        title,
        f"{study.describe()} {made_by('agent-recipe', study.args, add_arguments)}",
        [said, Table(heads, lines), *_skips(by_variant), "![The reward while learning](recipe.png)"],
        data,
    )
    report.write(study.folder)
    _plot(study.folder / "recipe.png", by_variant, goal)
    say("\n" + report.text)


def _skips(by_variant: Mapping[str, list[Curve]]) -> list[str | Table]:
    """Tabulate the share of skips at each level in the course of training each variant's first agent."""
    said = (
        "Share of skips at each level over training, with seed 0: by chance while learning, and in brackets "
        "of the more probable action on validation episodes."
    )
    blocks: list[str | Table] = [said]
    for name, curves in by_variant.items():
        blocks += [f"{name}:", _skip_table(curves[0].played)]
    return blocks


def _skip_table(rows: list[dict[str, float]]) -> Table:
    levels = [int(name.removeprefix("skip_")) for name in rows[0] if name.startswith("skip_")]
    shown = [rows[round(i)] for i in np.linspace(0, len(rows) - 1, min(len(rows), 8))]
    lines = [
        [f"{row['timesteps']:.0f}", f"{row['reward']:.4f}"]
        + [f"{row[f'skip_{t}']:.2f} ({row[f'held_out_skip_{t}']:.2f})" for t in levels]
        for row in shown
    ]
    return Table(["decisions", "by chance", *(f"level {t}" for t in levels)], lines, left=0)


def _plot(path: Path, by_variant: dict[str, list[Curve]], goal: float) -> None:
    """Plot rewards on validation episodes (more probable actions) and on training episodes (random ones)."""
    figure = new_figure(11, 4.2)
    axes = figure.subplots(1, 2)
    for name, runs in by_variant.items():
        for axis, rows in zip(axes, ("evaluated", "played"), strict=True):
            first = axis.plot([], [], label=name)[0].get_color()
            for curve in runs:
                points = getattr(curve, rows)
                axis.plot([r["timesteps"] for r in points], [r["reward"] for r in points], color=first, lw=1)
    axes[0].axhline(goal, color="0.5", linestyle="--", label="best start")
    for axis, title in zip(
        axes, ("the more probable action, validation", "by chance, training"), strict=True
    ):
        axis.set(xlabel="decisions", ylabel="reward", title=title)
    axes[0].legend(fontsize=7, loc="upper center", bbox_to_anchor=(1.0, -0.15), ncols=6)
    save_plot(figure, path)
