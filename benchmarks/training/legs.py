"""Measures what each leg of a model's training improved, and the gain from ten times as much training.

    python -m benchmarks legs --legs natural-4x runs/one runs/two --images val_set14_bsd20.tar

A leg is a shipped model, a model folder, or the folder of a run, whose ``log.jsonl`` is then also drawn. Each
leg begins from the one before it. The models of the legs enlarge the same images at every fixed start. Models
that were made for a few evaluations use their own chain, with their refiner if they have one. Writes
``legs.md``, ``legs.csv``, ``curves.csv`` and ``legs.png`` into ``benchmarks/results/<recipe>/training/``;
existing rows are used again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.chains import FewSteps, named_chain
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.diffusion.refiner import Refiner, load_refiner
from skipdiff_env.files import write_atomically
from skipdiff_env.images import ImageSource, open_source
from skipdiff_env.training.run.log import LOG, read_log

from ..measure.drawing import new_figure, save_plot
from ..measure.evaluate import Evaluation
from ..measure.family import same_scale
from ..measure.metrics import METRICS, columns
from ..measure.options import add_setting, made_by, network_dtype, with_jpeg
from ..measure.quality import count, data, data_head, estimates, means
from ..measure.records import csv_text
from ..measure.results import Estimate, Results, estimate
from ..measure.sampler import Sampler
from ..measure.samplers import catalogue, trained_chains
from ..measure.sentences import compared
from ..measure.store import Row, Store
from ..measure.tables import Report, Table

CHOICE = "lpips"
"""The metric by which each leg's best start is chosen, since a better network may need another start."""
DRAWN = ("loss", "val_loss", "denoising", "consistency", "distillation", "l1", "lpips", "vgg", "critic_loss")
"""What the left figure shows of a run, if it exists: losses and their parts."""


@dataclass(frozen=True)
class Leg:
    """The state of a training at the end of one of its legs."""

    name: str
    model: FrozenModel
    log: list[dict[str, Any]]
    """Lines of the log of the run, empty if there is none; ``minutes`` are those of the leg."""

    @property
    def record(self) -> dict[str, Any]:
        """The record of the training: that of the refiner if the model has one, else that of the model."""
        refiner = self.model.config.refiner
        return refiner.training if refiner else self.model.config.training

    @property
    def hours(self) -> float:
        """The hours of all training up to the end of this leg."""
        return float(self.record.get("hours", 0))

    @property
    def images(self) -> int:
        """The number of crops that were seen up to the end of this leg."""
        return int(self.record.get("images", 0))

    @property
    def identity(self) -> tuple[str, str]:
        """The hashes of the model and of the refiner."""
        refiner = own_refiner(self.model)
        return self.model.hash, refiner.hash if refiner else ""

    def curve(self) -> list[dict[str, float]]:
        """Return the log, with the hours of the whole training."""
        last = self.log[-1] if self.log else {}
        before = self.hours - max((line.get("minutes", 0) for line in self.log), default=0) / 60
        found, hours = [], before
        for line in self.log:
            hours = before + line["minutes"] / 60 if "minutes" in line else hours
            found.append({"hours": self.hours if line is last else hours, **line})
        return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument(
        "--legs", nargs="+", required=True, metavar="PATH",
        help="models or folders of runs, in the order in which they continue each other",
    )  # fmt: skip
    add_setting(parser)
    parser.add_argument("--jpeg", type=int, metavar="Q", help="save the LR inputs as JPEG of quality Q")


def run(args: argparse.Namespace) -> int:
    """Compute the missing rows, compare the legs and write the page."""
    legs = [open_leg(args, given, number) for number, given in enumerate(args.legs, 1)]
    if len({leg.identity for leg in legs}) < len(legs):
        raise SkipDiffError("--legs: two of them have the same weights, so leave one out")
    for leg, given in zip(legs, args.legs, strict=True):
        same_scale(leg.model, given, legs[0].model.scale)
    folder = args.out / legs[-1].record.get("recipe", legs[-1].model.name) / "training"
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / "rows.csv")
    source = with_jpeg(open_source(args.images), args.jpeg)
    results = Results([row for leg in legs for row in rows(leg, source, store, args.limit)])
    best = [best_way(results, leg) for leg in legs]
    lines = [(leg, key, estimates(results, key)) for leg, key in zip(legs, best, strict=True)]
    report = Report(
        "legs",
        f"The legs of {folder.parent.name}'s training",
        f"Means over {count(results)}, each leg at the start, or the number of evaluations of its own chain, "
        f"that gives it the best {CHOICE.upper()}. "
        f"{made_by('legs', args, add_arguments)}",
        [
            Table(
                ["leg", "hours", "crops", "start or evaluations", *(column.label for column in columns())],
                [
                    [leg.name, f"{leg.hours:.1f}", f"{leg.images}", key.rsplit("-", 1)[1], *means(found)]
                    for leg, key, found in lines
                ],
            ),
            "\n".join(f"- {sentence}" for sentence in sentences(results, legs, best)),
        ],
        [
            ["leg", "hours", "crops", "sampler", *data_head()],
            *([leg.name, leg.hours, leg.images, key, *data(found.values())] for leg, key, found in lines),
        ],
    )
    report.write(folder)
    curve: list[dict[str, Any]] = [{"leg": leg.name, **point} for leg in legs for point in leg.curve()]
    names = list(dict.fromkeys(name for line in curve for name in line))
    cells: list[list[Any]] = [names, *([line.get(name, "") for name in names] for line in curve)]
    write_atomically(folder / "curves.csv", csv_text(cells).encode())
    draw(folder / "legs.png", legs, [found for *_, found in lines])
    print("\n" + report.text)
    return 0


def open_leg(args: argparse.Namespace, given: str, number: int) -> Leg:
    """Open a leg, which is given as a model or the folder of a run."""
    folder = Path(given)
    inner = folder / "model"
    model = load_pretrained(inner if inner.is_dir() else given, args.device, network_dtype(args))
    leg = Leg(f"{number}", model, read_log(folder / LOG) if inner.is_dir() else [])
    if not leg.images:
        raise SkipDiffError(f"{given}: its config.json does not say how long it was trained")
    return leg


def own_refiner(model: FrozenModel) -> Refiner | None:
    """Return the refiner in a model's folder, if there is one."""
    if model.config.refiner is None or model.folder is None:
        return None
    return load_refiner(model.folder, model.device, model.dtype)


def ways(model: FrozenModel) -> dict[str, Sampler]:
    """Return a model's samplers by number: of the fixed start, or of the evaluations of the chain that it was
    made for."""
    chain = named_chain(model.chain, model)
    if isinstance(chain, FewSteps):
        chains = [type(chain)(steps) for steps in range(1, (chain.most or max(2, chain.steps)) + 1)]
        return {f"{s.steps}": s for s in trained_chains(model, chain.name, chains, own_refiner(model))}
    fine = model.schedule.steps // 10
    samplers = catalogue(model, fine)
    return {f"{start}": samplers[f"skip-10-{fine}-{start}"] for start in range(1, fine + 1)}


def rows(leg: Leg, source: ImageSource, store: Store, limit: int | None) -> list[Row]:
    """Evaluate every sampler of :func:`ways`, under keys that name the leg and the sampler."""
    wanted = ways(leg.model)
    names = {sampler.key: name for name, sampler in wanted.items()}
    evaluation = Evaluation(leg.model, source, [*wanted.values()], store, limit=limit)
    return [
        replace(row, sampler=f"{leg.name}-{names[row.sampler]}", model="legs")
        for row in evaluation.run(progress=True)
    ]


def best_way(results: Results, leg: Leg) -> str:
    """Return the key of the leg's sampler with the best mean of :data:`CHOICE`."""
    keys = [key for key in results.samplers if key.startswith(f"{leg.name}-")]
    return min(keys, key=lambda key: results.mean(key, CHOICE))


def sentences(results: Results, legs: Sequence[Leg], best: Sequence[str]) -> list[str]:
    """State what each leg improved, and the slope over all legs."""
    found = [
        f"*Leg {leg.name} against leg {before.name}* ({leg.hours - before.hours:.1f} hours, "
        f"{leg.images - before.images} crops): {compared(results, key, other)}"
        for before, leg, other, key in zip(legs, legs[1:], best, best[1:], strict=False)
    ]
    if len(legs) > 1:
        tens = np.log10([leg.images for leg in legs])
        gains = "; ".join(
            f"{metric.title} {slope:+.{metric.digits}f}"
            for metric in METRICS
            if (slope := per_tenfold(results, best, tens, metric.name)).images
        )
        found.append(
            f"*Ten times as many crops*, by the line through the means over the logarithm of their number: "
            f"{gains}. It is an extrapolation from {legs[0].images} to {legs[-1].images} crops."
        )
    return found


def per_tenfold(results: Results, keys: Sequence[str], tens: NDArray[np.float64], column: str) -> Estimate:
    """Estimate the least-squares slope of a column over ``tens``, log10 of the crops, with its interval.

    The slope of the means is the mean of the images' slopes, since it is linear in the values.
    """
    weights = (tens - tens.mean()) / ((tens - tens.mean()) ** 2).sum()
    return estimate(weights @ np.stack([results.values(key, column) for key in keys]))


def draw(path: Path, legs: Sequence[Leg], found: Sequence[dict[Any, Estimate]]) -> None:
    """Plot losses against hours (left), and the chosen metric of each leg against its crops (right)."""
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    for name in DRAWN:
        points = [
            (line["hours"], line[name]) for leg in legs for line in leg.curve() if line.get(name) is not None
        ]
        if points:
            left.plot(*np.transpose(points), "." if name == "loss" else "o-", markersize=3, label=name)
    left.set(xlabel="hours of training", ylabel="loss")
    if left.get_legend_handles_labels()[0]:
        left.legend()
    column = next(column for column in columns() if column.name == CHOICE)
    ends = [each[column] for each in found]
    right.errorbar(
        [leg.images for leg in legs], [e.mean for e in ends],
        yerr=np.transpose([(e.mean - e.low, e.high - e.mean) for e in ends]), fmt="o-", capsize=3,
    )  # fmt: skip
    right.set(xlabel="crops", ylabel=column.label, xscale="log")
    save_plot(figure, path)
