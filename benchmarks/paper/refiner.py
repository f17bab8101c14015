"""How much of a refiner's change pays: perception against distortion, on validation images.

    python -m benchmarks refiner --model natural-4x-real --images val_set14_bsd20.tar --jpeg 75

CCSR's chain at one and two evaluations, with shares of what the model's refiner changes, beside bicubic and
the model's SkipDiff. Writes ``refiner.md`` and ``refiner.csv`` into ``benchmarks/results/<model>/<images>/``;
rows that are there are used again.
"""

from __future__ import annotations

import argparse

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.chains import CCSR
from skipdiff_env.diffusion.refiner import load_refiner

from ..measure.evaluate import Evaluation
from ..measure.options import (
    add_setting,
    command_line,
    fixed_start,
    folder_name,
    network_dtype,
    open_images,
    rows_file,
    said,
)
from ..measure.quality import Line, Part, report
from ..measure.results import Results
from ..measure.sampler import Sampler
from ..measure.samplers import catalogue, trained_chains
from ..measure.store import Store

STEPS = (1, 2)
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments."""
    parser.add_argument("--model", default="natural-4x-real", help="a shipped model's name or a model folder")
    add_setting(parser)
    parser.add_argument("--only", metavar="PREFIX", help="only the images whose names begin with PREFIX")
    parser.add_argument("--jpeg", type=int, metavar="Q", help="LR inputs are saved as JPEG of quality Q")


def run(args: argparse.Namespace) -> int:
    """Enlarge what is missing, and write the table."""
    model = load_pretrained(args.model, args.device, network_dtype(args))
    if model.config.refiner is None:
        raise SkipDiffError(f"{args.model} has no refiner: train one with skipdiff train-refiner")
    start, chains = fixed_start(model), [CCSR(steps) for steps in STEPS]
    every = catalogue(model, start)
    found: list[Sampler] = [every["bicubic"], every[f"skip-10-{model.schedule.steps // 10}-{start}"]]
    found += trained_chains(model, "strength 0", chains)
    for strength in sorted({*STRENGTHS, model.config.refiner.strength}):
        refiner = load_refiner(args.model, model.device, model.dtype, strength)
        found += trained_chains(model, f"strength {strength:g}", chains, refiner)
    file = rows_file(args, model)
    folder = file.parent.parent / folder_name(args)
    file.parent.mkdir(parents=True, exist_ok=True)
    evaluation = Evaluation(model, open_images(args), found, Store(file), limit=args.limit)
    results = Results(evaluation.run(progress=True))
    note = (
        f"Of {model.name} on {said(args)}, in {str(model.dtype).removeprefix('torch.')}. Strength: share of "
        f"the refiner's change that counts; the model's own is {model.config.refiner.strength:g}. Made by "
        f"`{command_line('refiner', args, add_arguments)}`."
    )
    lines = tuple(Line(sampler.key, sampler.label) for sampler in found)
    made = report(Part("refiner", "The refiner's strength", lines, note), results)
    made.write(folder)
    print(made.text)
    return 0
