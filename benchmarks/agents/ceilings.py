"""Measures how much there is to learn: the gap to the optimum, and how much of it some references close.

    python -m benchmarks ceilings --images natural256_train.tar --test imagenet256_test.tar

For each input (clean, mixed) and each reward (NIQE, LPIPS), on the test episodes and against the best fixed
start of the training images:

- ``optimum``: the exact best schedule of each image and noise seed, which no policy exceeds;
- ``other noise``: the start that is best for the same image under its other noise seeds. It estimates, from
  few seeds, what a fixed start gains by knowing the picture, but not the noise;
- ``known fault``: the best start for each kind of input, chosen on training images (mixed input only);
- ``imitation``: networks that are taught the right answers of the training images. Under ``reset`` there are
  two kinds, of which the better one on validation counts (see :mod:`.imitation`). ``on training`` shows how
  much of the result is learned by heart.

Only the first is an upper bound. An agent sees x_S1, which reveals the noise that was drawn, so it may
foresee what ``other noise`` cannot know. Imitation shows what one way of teaching reached, not the maximum
that any agent could reach.

Writes ``benchmarks/results/agents/<model>/ceilings.md`` and ``.csv``.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from skipdiff_agents.evaluate import Evaluator, fixed_starts
from skipdiff_env.images.mixed import KINDS, kind
from skipdiff_env.policies.base import Policy

from ..measure.options import made_by
from ..measure.tables import Report, Table
from .imitation import imitation
from .study import Study, add_study_arguments, interval, open_study, say
from .table import other_noise

NOTE = (
    "Gap: how far the optimum lies above the best fixed start, in % of its reward. The other columns: the "
    "share of that gap, on test episodes; 95 % bootstrap intervals over images (and training seeds). They "
    "are references, not upper bounds: an agent sees a latent in which the drawn noise shows, and imitation "
    "is what one way of teaching reaches."
)
SHARES = ("other noise", "known fault", "imitation", "imitation on training")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    add_study_arguments(parser)
    add = parser.add_argument
    add(
        "--inputs",
        nargs="+",
        choices=("clean", "mixed"),
        default=["clean", "mixed"],
        help="quality of inputs [both]",
    )
    add("--metrics", nargs="+", default=["niqe", "lpips"], help="metrics that are rewarded [niqe lpips]")
    add(
        "--epochs",
        type=int,
        default=100,
        help="number of times that imitation sees each training episode [100]",
    )


def run(args: argparse.Namespace) -> int:
    """Record the episodes, measure the ceilings and write the page."""
    rows = []
    for mixed in (name == "mixed" for name in args.inputs):
        for metric in args.metrics:
            study = open_study(args, metric, mixed)
            study.record()
            rows.append({"input": "mixed" if mixed else "clean", "reward": metric, **measure(study)})
            say(str(rows[-1]))
    titles = ["input", "reward", "best start", "gap", *SHARES]
    report = Report(
        "ceilings",
        f"What there is to learn on {study.model.name}",
        f"{study.describe()} {made_by('ceilings', args, add_arguments)}\n\n{NOTE}",
        [Table(titles, [[_cell(name, row[name]) for name in titles] for row in rows], left=2)],
        [
            [*titles[:3], *(f"{name} {part}" for name in titles[3:] for part in ("", "low", "high"))],
            *([*(row[n] for n in titles[:3]), *(v for n in titles[3:] for v in row[n])] for row in rows),
        ],
    )
    report.write(study.folder)
    say("\n" + report.text)
    return 0


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)
    if np.isnan(value[0]):
        return ""
    form = "{:.2%} [{:.2%}, {:.2%}]" if name == "gap" else "{:.0%} [{:.0%}, {:.0%}]"
    return form.format(*value)


def measure(study: Study) -> dict[str, Any]:
    """Return the row of one kind of input and one reward."""
    fine = study.training.process.fine_steps
    test, train = study.evaluator("test"), study.evaluator("train")
    training = study.evaluator("known")
    known = fixed_starts(training.optima(), fine)
    kinds = np.array([kind(image) for image, _ in training.pairs])
    best = int(known.mean(axis=0).argmax())
    starts = fixed_starts(test.optima(), fine)
    inputs, images = len({image for image, _ in study.test_pairs}), study.photographs("test")

    def cube(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, images, len(starts) // images)

    def chosen(values: np.ndarray, which: np.ndarray) -> np.ndarray:
        return cube(np.take_along_axis(values, which[:, None], axis=1))

    base = cube(starts[:, best])
    gap = cube(np.array([o.reward for o in test.optima()])) - base
    scale = base.mean()
    row: dict[str, Any] = {"best start": best + 1, "gap": tuple(v / scale for v in interval(gap))}
    nothing = (np.nan,) * 3
    row["other noise"] = (
        interval(chosen(starts, other_noise(starts, inputs)) - base, gap)
        if study.args.test_seeds > 1
        else nothing
    )
    row["known fault"] = nothing
    if study.training.source.degrade:
        by_kind = {name: known[kinds == name].mean(axis=0).argmax() for name in KINDS}
        told = np.array([by_kind[kind(image)] for image, _ in study.test_pairs])
        row["known fault"] = interval(chosen(starts, told) - base, gap)
    networks = [imitation(study, study.args.epochs, seed) for seed in range(study.args.seeds)]
    played = np.concatenate([cube(_rewards(test, network)) for network in networks])
    row["imitation"] = interval(played - base, gap)
    own = np.array([o.reward for o in train.optima()])
    fixed = fixed_starts(train.optima(), fine)[:, best]
    by_heart = np.concatenate([_rewards(train, network)[None] for network in networks])
    shape = (-1, len(own) // study.args.noise_seeds, study.args.noise_seeds)
    row["imitation on training"] = interval((by_heart - fixed).reshape(shape), (own - fixed).reshape(shape))
    return row


def _rewards(evaluator: Evaluator, policy: Policy) -> np.ndarray:
    return np.array([result.reward for result in evaluator(policy)])
