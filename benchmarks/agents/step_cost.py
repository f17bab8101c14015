"""Trains one agent that observes the price of an evaluation, and decides how many are worth it.

    python -m benchmarks step-cost --images natural256_train.tar --test imagenet256_test.tar

Trains ``ppo_step_cost`` with a price drawn at random for each episode, and compares it at seven prices with
the fixed starts. The highest price is the one above which the fixed start 1 is best on the training images;
the lowest is a hundredth of it. Writes ``benchmarks/results/agents/<model>/<name>-step-cost`` ``.md``,
``.csv`` and ``.png``.
"""

from __future__ import annotations

import argparse

import numpy as np

from skipdiff_agents.evaluate import Result, fixed_starts
from skipdiff_agents.settings import BEST, read_settings
from skipdiff_env.policies.file import load_policy

from ..measure.drawing import new_figure, save_plot
from ..measure.options import made_by
from ..measure.tables import Report, Table
from .study import Study, add_study_arguments, interval, judged, open_study, say

PRICES, WIDTH = 7, 100.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add_study_arguments(parser)
    parser.add_argument("--metric", default="niqe", help="the reward's metric [niqe]")
    parser.add_argument(
        "--mixed", action="store_true", help="vary the inputs: clean, JPEG, noisy and blurred in turn"
    )


def run(args: argparse.Namespace) -> int:
    """Record the episodes, train the agent, play it and write the page."""
    study = open_study(args, args.metric, args.mixed)
    study.record()
    process = study.training.process
    train = fixed_starts(study.evaluator("train").optima(), process.fine_steps).mean(axis=0)
    highest = price_of_start_1(train)
    settings = read_settings("ppo_step_cost") | {"step_cost": [highest / WIDTH, highest]}
    settings["observation_size"] = args.size
    settings["timesteps"] = args.timesteps or settings["timesteps"]
    files = [study.train(settings, "ppo_step_cost", seed)[0].folder / BEST for seed in range(args.seeds)]
    evaluator = study.evaluator("test")
    starts = {k: evaluator(k) for k in range(1, process.fine_steps + 1)}
    prices = np.geomspace(highest / WIDTH, highest, PRICES)
    played = {price: [evaluator(load_policy(file, float(price))) for file in files] for price in prices}
    _write(study, train, starts, played)
    return 0


def price_of_start_1(rewards: np.ndarray) -> float:
    """Return the lowest price at which no start k > 1 pays; ``rewards`` (F,) are those of the starts 1 … F.

    Raises:
        ValueError: if start 1 is best even at a price of 0.
    """
    price = float(np.max((rewards[1:] - rewards[0]) / np.arange(1, len(rewards))))
    if price <= 0:
        raise ValueError("start 1 is the best and the cheapest: there is nothing to weigh")
    return price


def _means(played: list[Result]) -> list[float]:
    """Return the mean number of evaluations, reward, and scores by all metrics."""
    others = np.nanmean([r.others for r in played], axis=0)
    reward, evaluations = (float(np.mean([getattr(r, f) for r in played])) for f in ("reward", "evaluations"))
    return [evaluations, reward, *others]


def _shown(means: list[float] | np.ndarray) -> list[str]:
    """Format the result of :func:`_means` as cells."""
    forms = [".1f", ".4f", *(f".{metric.fine_digits}f" for metric in judged())]
    return [format(value, form) for value, form in zip(means, forms, strict=True)]


def _write(
    study: Study,
    train: np.ndarray,
    starts: dict[int, list[Result]],
    played: dict[float, list[list[Result]]],
) -> None:
    evaluator = study.evaluator("test")
    images = len({image for image, _ in study.test_pairs})
    base = study.training.process.coarse_steps
    fixed_means = {k: _means(results) for k, results in starts.items()}
    agent_means, lines = {}, []
    for price, by_seed in played.items():
        agent_means[price] = np.mean([_means(results) for results in by_seed], axis=0)
        best = int((train - price * np.arange(len(train))).argmax()) + 1
        own = np.array([[evaluator.paid(r, price) for r in results] for results in by_seed])
        fixed = np.array([evaluator.paid(r, price) for r in starts[best]])
        shape = (-1, images, study.args.test_seeds)
        ahead = interval((own - fixed).reshape(shape))
        optimum = evaluator.best_rewards([price]).mean() - fixed.mean()
        cells = [f"{price:.2g}", *_shown(agent_means[price]), str(best), f"{base + best - 1}"]
        lines.append([*cells, "{:+.5f} [{:+.5f}, {:+.5f}]".format(*ahead), f"{optimum:+.5f}"])
    names = ["evaluations", "reward", *(metric.title for metric in judged())]
    beside = ["best start at this price", "its evaluations", "agent − start", "optimum − start"]
    report = Report(
        f"{study.name}-step-cost",
        f"One agent, any price: {study.model.name}, {study.name}",
        f"{study.describe()} {study.args.seeds} training seeds. Price: reward an evaluation. The last two "
        "columns compare returns, reward minus price times evaluations, paired; the start is chosen on "
        f"training images. {made_by('step-cost', study.args, add_arguments)}",
        [
            Table(["price", *names, *beside], lines, left=0),
            "Fixed starts",
            Table(["start", *names], [[f"{k}", *_shown(m)] for k, m in fixed_means.items()], left=0),
            f"![The agent at every price, beside the fixed starts]({study.name}-step-cost.png)",
        ],
        [
            ["policy", "start or price", *names],
            *(["fixed start", k, *means] for k, means in fixed_means.items()),
            *(["agent", price, *means] for price, means in agent_means.items()),
        ],
    )
    report.write(study.folder)
    figure = new_figure(11, 4.2)
    axes = figure.subplots(1, 2)
    for axis, column, metric in zip(axes, (2, 3), judged(), strict=False):
        for kind, style, means in (("fixed start", "o-", fixed_means), ("agent", "s--", agent_means)):
            points = np.array([*means.values()])
            axis.plot(points[:, 0], points[:, column], style, label=kind)
        axis.set(xlabel="network evaluations an image", ylabel=metric.title)
        axis.legend()
    save_plot(figure, study.folder / f"{report.name}.png")
    say("\n" + report.text)
