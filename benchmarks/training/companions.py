"""Measures the worth of each part of CCSR's and AddSR's training, by short trainings side by side.

    python -m benchmarks companions --data natural256_train.tar --val val_set14_bsd20.tar --minutes 60

Trains CCSR's first stage, its refiner and AddSR's student by their recipes, and variants in which one part is
changed or left out. Every training takes the same time on one thread, of which the last quarter is the
cool-down. The models are measured on validation images, at one and two evaluations of CCSR's chain, and at
one and four of AddSR's. Finished variants are not trained again, and existing rows are used again. Writes
``companions.md`` and ``companions.csv`` into ``benchmarks/results/<model>/``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.chains import CCSR, AddSR, FewSteps
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.diffusion.refiner import load_refiner
from skipdiff_env.images import open_source

from ..measure.evaluate import Evaluation
from ..measure.metrics import EVALUATIONS, Metric, judges
from ..measure.options import command_line, fixed_start
from ..measure.results import Results
from ..measure.sampler import Sampler
from ..measure.samplers import catalogue, trained_chains
from ..measure.store import Row, Store
from ..measure.tables import Report, Table, basis
from .side_by_side import COOLING, SHORT, Short, add_short_arguments

CCSR_CHAINS = (CCSR(1), CCSR(2))
ADDSR_CHAINS = (AddSR(1), AddSR(4))


@dataclass(frozen=True)
class Variant:
    """A training, and the chains that its model is measured by."""

    program: Literal["ddpm", "refiner", "addsr"]
    changes: tuple[str, ...] = ()
    """Changes to the recipe."""
    chains: tuple[FewSteps, ...] = CCSR_CHAINS
    plain: bool = False
    """Whether the refiner is for the model itself, without CCSR's first stage."""
    of: str = ""
    """Name of the variant with which it is compared, line by line."""


UNTRAINED, STAGE_1, REFINER, STUDENT = "no further training", "stage 1", "refiner", "student"
VARIANTS = {
    STAGE_1: Variant("ddpm", of=UNTRAINED),
    "stage 1 with consistency in one step of four": Variant("ddpm", ("consistency.every=4",), of=STAGE_1),
    REFINER: Variant("refiner"),
    "refiner without the adversarial part": Variant("refiner", ("refiner.adversarial.weight=0",), of=REFINER),
    "refiner without stage 1": Variant("refiner", plain=True, of=REFINER),
    "refiner on features of VGG16": Variant("refiner", ("refiner.lpips=0", "refiner.vgg=0.5"), of=REFINER),
    STUDENT: Variant("addsr", chains=(*ADDSR_CHAINS, AddSR(4, 0.0))),
    "student without self-refinement": Variant(
        "addsr", ("addsr.self_refinement=0",), (AddSR(1), AddSR(4, 0.0)), of=STUDENT
    ),
    "student with constant weights": Variant("addsr", ("addsr.adaptive=false",), ADDSR_CHAINS, of=STUDENT),
    "student of a teacher under LR": Variant("addsr", ("addsr.teacher=lr",), ADDSR_CHAINS, of=STUDENT),
}
"""The variants by name."""
RECIPES = {"ddpm": "ccsr-natural-4x", "refiner": "ccsr-refiner-4x", "addsr": "addsr-natural-4x"}
COMPARED = ("lpips", "stlpips", "niqe", "psnr", "residue", "consistency")
"""Metrics whose differences are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument(
        "--model",
        default="natural-4x",
        help="AddSR's teacher, from which stage 1 and the students start [natural-4x]",
    )
    parser.add_argument(
        "--ccsr", default="ccsr-natural-4x", metavar="MODEL", help="CCSR's first stage [ccsr-natural-4x]"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"variants to train, of {', '.join(VARIANTS)} [all]"
    )
    add_short_arguments(parser, minutes=30.0, runs="runs/companions")


def run(args: argparse.Namespace) -> int:
    """Train the missing variants, measure them and write the page."""
    torch.set_num_threads(1)
    unknown = set(args.only or ()) - set(VARIANTS)
    if unknown:
        raise SkipDiffError(f"unknown variant {unknown.pop()!r}: use some of {', '.join(VARIANTS)}")
    study = Study(args, judges())
    model, stage_1 = (load_pretrained(name, args.device) for name in (args.model, args.ccsr))
    study.measure(model, [catalogue(model, fixed_start(model))["bicubic"]])
    study.measure(model, trained_chains(model, UNTRAINED, CCSR_CHAINS))
    study.measure(stage_1, trained_chains(stage_1, "the given stage 1", CCSR_CHAINS))
    for name in args.only or VARIANTS:
        study.train(name, VARIANTS[name])
    study.report(model, stage_1).write(args.out / model.name)
    print((args.out / model.name / "companions.md").read_text(encoding="utf-8"))
    return 0


class Study:
    """The variants, their rows, and the report on them.

    Args:
        args: arguments of the command.
        metrics: the metrics to measure.
    """

    def __init__(self, args: argparse.Namespace, metrics: Sequence[Metric]) -> None:
        self.args, self.metrics = args, metrics
        self._source, self._store = open_source(args.val), Store(args.runs / "rows.csv")
        self._rows: list[Row] = []
        self._labels: list[str] = []
        """Labels of the lines."""
        self._steps: dict[str, int] = {}
        """Number of training steps, by the label of a line."""
        self._pairs: list[tuple[str, str]] = []
        """Labels of a variant's line and of the line with which it is compared."""

    def measure(self, model: FrozenModel, samplers: Sequence[Sampler], steps: int | None = None) -> None:
        """Add the rows of samplers under their labels."""
        evaluation = Evaluation(
            model, self._source, samplers, self._store, limit=self.args.limit, metrics=self.metrics,
            complete=True,
        )  # fmt: skip
        labels = {sampler.key: sampler.label for sampler in samplers}
        self._rows += [replace(row, sampler=labels[row.sampler]) for row in evaluation.run(progress=True)]
        self._labels += labels.values()
        self._steps |= dict.fromkeys(labels.values(), steps) if steps is not None else {}

    def train(self, name: str, variant: Variant) -> None:
        """Train a variant unless it is finished, and add its rows."""
        args = self.args
        init = args.ccsr if variant.program == "refiner" and not variant.plain else args.model
        # The recipe of stage 1 names the model whose architecture it shares.
        own = (f"model={init}",) if variant.program == "ddpm" else ()
        short = Short(
            RECIPES[variant.program], (*args.set, *own, *variant.changes), args.data, args.minutes,
            args.device, init, variant.program,
        )  # fmt: skip
        folder = short.trained(name, args.runs)
        model = load_pretrained(folder, args.device)
        refiner = load_refiner(folder, model.device) if variant.program == "refiner" else None
        record = model.config.refiner if refiner else model.config
        assert record is not None  # a refiner was trained
        samplers = trained_chains(model, name, variant.chains, refiner)
        self.measure(model, samplers, record.training["legs"][-1]["steps"])
        for sampler in samplers:
            label = next((x for x in self._labels if x.startswith(f"{variant.of}, {sampler.steps} ")), "")
            if variant.of and label:
                self._pairs.append((sampler.label, label))

    def report(self, model: FrozenModel, stage_1: FrozenModel) -> Report:
        """Return the page."""
        args, results = self.args, Results(self._rows)
        columns = [*self.metrics, EVALUATIONS]
        shown, data = [], []
        for label in results.samplers:
            found = [results.estimate(label, column.name) for column in columns]
            steps = str(self._steps.get(label, ""))
            cells = [column.shown(e.mean) for column, e in zip(columns, found, strict=True)]
            shown.append([label, steps, *cells])
            data.append([label, steps, *(value for e in found for value in (e.mean, e.low, e.high))])
        names = [f"{column.name}{end}" for column in columns for end in ("", "_low", "_high")]
        changed = "; ".join(
            f"{name}: `{' '.join(VARIANTS[name].changes)}`"
            for name in args.only or VARIANTS
            if VARIANTS[name].changes
        )
        note = (
            f"{args.minutes:g} minutes of training each on one thread, the last {COOLING:.0%} cooling down; "
            f"means over {basis(len(results.images), 1)} of {args.val.stem}. The teacher and the start of "
            f"students: {model.name} `{model.hash}`; CCSR's first stage: {stage_1.name} `{stage_1.hash}`. "
            f"Common changes of the recipes: `{' '.join([*SHORT, *args.set])}`. "
            f"{'; '.join(m.note for m in self.metrics if m.note)}. A refiner that learns from LPIPS is not "
            "judged by it: the other columns are judges that it has not seen. Made by "
            f"`{command_line('companions', args, add_arguments)}`."
        )
        blocks: list[str | Table] = [Table(["", "steps", *(c.label for c in columns)], shown)]
        if changed:
            blocks.append(f"What is changed: {changed}.")
        return Report(
            "companions",
            "Parts of CCSR's and AddSR's trainings",
            note,
            [*blocks, *self._differences(results)],
            [["line", "steps", *names], *data],
        )

    def _differences(self, results: Results) -> list[str | Table]:
        """Tabulate the differences between every variant and the one that it modifies, image by image."""
        metrics = [metric for name in COMPARED for metric in self.metrics if metric.name == name]

        lines = [
            [
                f"{one} − {other}",
                *(f"{results.difference(one, other, m.name):+.{m.digits}f}" for m in metrics),
            ]
            for one, other in self._pairs
        ]
        head = "Differences, paired by image, with 95 % bootstrap intervals:"
        return [head, Table(["", *(metric.title for metric in metrics)], lines)] if lines else []
