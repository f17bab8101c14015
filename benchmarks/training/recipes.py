"""Compares choices of a training recipe by short runs side by side.

    python -m benchmarks recipes --data natural256_train.tar --val val_set14_bsd20.tar --minutes 6

Trains every variant of a recipe from the same weights, random or of ``--init``, for the same time on one
thread, of which the last quarter is the cool-down, and measures it on validation images. Finished variants
are not trained again. Writes ``benchmarks/results/<recipe>/recipes.md``; the models stay in ``--runs``, for
``python -m benchmarks paper --tables ablation --variants``.
"""

from __future__ import annotations

import argparse

import torch

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.images import open_source
from skipdiff_env.training import load_recipe

from ..measure.evaluate import Evaluation
from ..measure.metrics import METRICS
from ..measure.options import command_line
from ..measure.results import Results
from ..measure.samplers import catalogue
from ..measure.store import Store
from ..measure.tables import Report, Table
from .side_by_side import COOLING, SHORT, Short, add_short_arguments

VARIANTS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "noise prediction": ("model.prediction=noise",),
    "image target": ("model.target=image", "model.residual_scale=1.0"),
    "L1 loss": ("loss.norm=l1",),
    "min-SNR weights, γ = 5": ("loss.min_snr=5",),
    "patches of 4": ("model.unet.patch_size=4",),
    "crops of 64, batch 18": ("data.crop=64", "batch=18"),
    "narrower, two blocks a level": ("model.unet.channels=40", "model.unet.res_blocks=2"),
    "AdamW": ("optimiser.kind=adamw",),
}
"""The changes of each variant; crops and batch always have the same number of pixels per step."""
SOURCES: dict[str, tuple[str, ...]] = {
    "all sources alike": ("data.weights={ffhq_: 1, celebahq_: 1}",),
    "the sharpest sources alone": ("data.weights={celeba_: 0, yonsei_: 0}",),
}
"""Further variants of face-8x, which draws its sources with unequal frequency."""
START = 7
"""The paper's start."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument("--recipe", default="natural-4x", help="name or file of the recipe [natural-4x]")
    add_short_arguments(parser, minutes=6.0, runs="runs/recipes")
    parser.add_argument("--init", metavar="MODEL", help="model whose weights to start from [random weights]")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"variants to train, of {', '.join(VARIANTS | SOURCES)} [those before {next(iter(SOURCES))}]",
    )


def run(args: argparse.Namespace) -> int:
    """Train the missing variants, measure them and write the page."""
    torch.set_num_threads(1)
    every = VARIANTS | SOURCES
    unknown = set(args.only or ()) - set(every)
    if unknown:
        raise SkipDiffError(f"unknown variant {unknown.pop()!r}: use some of {', '.join(every)}")
    recipe = load_recipe(args.recipe, overrides=args.set)
    source = open_source(args.val)
    store = Store(args.runs / recipe.name / "rows.csv")
    rows: list[list[str]] = []
    for name in args.only or VARIANTS:
        change = (*args.set, *every[name])
        short = Short(args.recipe, change, args.data, args.minutes, args.device, args.init)
        folder = short.trained(name, args.runs / recipe.name)
        dtype = torch.bfloat16 if recipe.precision == "bfloat16" else None
        model = load_pretrained(folder, args.device, dtype)
        samplers = catalogue(model, min(START, model.schedule.steps // 10))
        fine = model.schedule.steps // 10
        keys = ["bicubic"] * (not rows) + ["csa-10", f"skip-10-{fine}-{min(START, fine)}"]
        evaluation = Evaluation(model, source, [samplers[key] for key in keys], store, limit=args.limit)
        results = Results(evaluation.run(progress=True))
        steps = (model.config.training or {})["steps"]
        for key in keys:
            figures = [metric.shown(results.mean(key, metric.name)) for metric in METRICS]
            what = ("", "") if key == "bicubic" else (f"{name}: ", f"{steps}")
            rows.append([what[0] + samplers[key].label, what[1], *figures])
    shown = args.only or VARIANTS
    changes = "; ".join(f"{name}: `{' '.join(every[name])}`" for name in shown if every[name])
    began = f"the weights of {args.init}" if args.init else "random weights"
    report = Report(
        "recipes",
        f"Variants of the recipe {recipe.name}",
        f"{args.minutes:g} minutes each on one thread, from {began}, the last {COOLING:.0%} cooling down; "
        f"{len(evaluation.images)} images of {args.val.stem}, one noise seed. Common changes: "
        f"`{' '.join([*SHORT, *args.set])}`. Made by `{command_line('recipes', args, add_arguments)}`.",
        [Table(["", "steps", *(m.label for m in METRICS)], rows), f"What is changed: {changes}."],
    )
    report.write(args.out / recipe.name)
    print("\n" + report.text)
    return 0
