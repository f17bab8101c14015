"""Measures how much of a refiner's change pays: perception against distortion, on validation images.

    python -m benchmarks refiner --model natural-4x-real --images val_set14_bsd20.tar --jpeg 75

Runs CCSR's chain with one and two evaluations and several strengths (shares of the refiner's change), and
compares it with bicubic and the model's SkipDiff. With the model's own strength, it also measures the
effect of giving back parts of the input: back-projection of everything that the result lacks, or only of its
coarsest colours. Writes ``refiner.md`` and ``refiner.csv`` into ``benchmarks/results/<model>/<images>/``;
existing rows are used again.

For a model without a refiner that was made for a few calls, such as AddSR's student, only the second part
applies (``given-back.md``). Inputs of all four kinds (``--mixed``) are meant for models of real photographs.

With ``--choose``, the strength with the lowest LPIPS among those within the given limits
(``--choose psnr=25.8 niqe=5.2``), at the model's number of evaluations, becomes the model's default.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skipdiff_env import SkipDiffError, SkipDiffSampler, load_pretrained
from skipdiff_env.chains import CCSR, FewSteps, named_chain
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.diffusion.folder import CONFIG, read_config, write_config
from skipdiff_env.diffusion.pretrained import model_folder
from skipdiff_env.diffusion.refiner import load_refiner
from skipdiff_env.images import mixed_quality

from ..measure.evaluate import Evaluation
from ..measure.metrics import METRICS, Column, judges
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
from ..measure.sampler import Picture, Sampler, each
from ..measure.samplers import catalogue, trained_chains, without_calls
from ..measure.store import Store

STEPS = (1, 2)
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
GIVEN_BACK: dict[str, dict[str, Any]] = {
    "back-projected": {"clean": 0.0},
    "colours of the input": {"colour_fix": True},
}
"""Ways of giving back parts of the input to a finished picture, see :class:`.SkipDiffSampler`."""
GIVEN_BACK_NOTE = "*Back-projected*: the result shrinks to the input; *colours of the input*: in large areas."
MOST = 4
"""Maximum number of evaluations that is tried for a chain that can have any number."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument("--model", default="natural-4x-real", help="a shipped model's name or a model folder")
    add_setting(parser)
    parser.add_argument("--only", metavar="PREFIX", help="use only images whose names begin with PREFIX")
    parser.add_argument("--jpeg", type=int, metavar="Q", help="save the LR inputs as JPEG of quality Q")
    parser.add_argument(
        "--mixed", action="store_true", help="vary the inputs: clean, JPEG, noisy and blurred in turn"
    )
    parser.add_argument(
        "--strengths", nargs="+", type=float, default=list(STRENGTHS), metavar="S", help="strengths to try"
    )
    parser.add_argument(
        "--choose", nargs="*", metavar="METRIC=LIMIT",
        help="write the strength with the lowest LPIPS within these limits into the model's config.json",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Compute the missing rows, write the table, and choose a strength if asked to."""
    model = load_pretrained(args.model, args.device, network_dtype(args))
    if model.config.refiner is None:
        return _given_back_alone(args, model)
    limits, start = [limit(word) for word in args.choose or ()], fixed_start(model)
    own, every = model.config.refiner.strength, catalogue(model, start)
    by_share = shares(model, args.model, {*args.strengths, own})
    found: list[Sampler] = [every["bicubic"], every[f"skip-10-{model.schedule.steps // 10}-{start}"]]
    found += [sampler for samplers in by_share.values() for sampler in samplers]
    found += given_back(model, by_share[own], [CCSR(steps) for steps in STEPS])
    results, folder = measured(args, model, found)
    choice = ""
    if args.choose is not None:
        usual = [s for samplers in by_share.values() for s in samplers if s.steps == evaluations(model)]
        best = chosen(results, usual, limits)
        own = dict(zip((s.key for s in usual), by_share, strict=True))[best]
        write_strength(model_folder(args.model), own)
        choice = f" It was chosen here, for the least LPIPS{within(limits)}."
    note = (
        f"Of {model.name} on {inputs(args)}, in {str(model.dtype).removeprefix('torch.')}. Strength: share "
        f"of the refiner's change that counts; the model's own is {own:g}.{choice} {GIVEN_BACK_NOTE}"
    )
    return _written(args, folder, Part("refiner", "The refiner's strength", lines_of(found), note), results)


def _given_back_alone(args: argparse.Namespace, model: FrozenModel) -> int:
    """Write the table of a model without a refiner that was made for a few calls.

    Raises:
        SkipDiffError: if the model was made for a longer chain, or a strength is to be chosen.
    """
    chain = named_chain(model.chain, model)
    if not isinstance(chain, FewSteps) or args.choose is not None:
        raise SkipDiffError(f"{args.model} has no refiner: train one with skipdiff train-refiner")
    chains = [type(chain)(steps) for steps in range(1, (chain.most or MOST) + 1)]
    plain = trained_chains(model, chain.name, chains)
    found = [*without_calls(model), *plain, *given_back(model, plain, chains)]
    results, folder = measured(args, model, found)
    precision = str(model.dtype).removeprefix("torch.")
    note = f"Of {model.name} on {inputs(args)}, in {precision}. {GIVEN_BACK_NOTE}"
    part = Part("given-back", "What giving back of the input does", lines_of(found), note)
    return _written(args, folder, part, results)


def inputs(args: argparse.Namespace) -> str:
    """Describe the images and their degradation in words."""
    return said(args) + (", inputs of mixed quality" if args.mixed else "")


def measured(
    args: argparse.Namespace, model: FrozenModel, samplers: Sequence[Sampler]
) -> tuple[Results, Path]:
    """Evaluate every sampler on the images; return the results and their folder."""
    file = rows_file(args, model)
    folder = file.parent.parent / (folder_name(args) + "-mixed" * args.mixed)
    file.parent.mkdir(parents=True, exist_ok=True)
    images = mixed_quality(open_images(args)) if args.mixed else open_images(args)
    evaluation = Evaluation(model, images, samplers, Store(file), limit=args.limit, metrics=judges())
    return Results(evaluation.run(progress=True)), folder


def lines_of(samplers: Sequence[Sampler]) -> tuple[Line, ...]:
    """Return a line for each sampler."""
    return tuple(Line(sampler.key, sampler.label) for sampler in samplers)


def _written(args: argparse.Namespace, folder: Path, part: Part, results: Results) -> int:
    made = f"{part.note} Made by `{command_line('refiner', args, add_arguments)}`."
    page = report(replace(part, note=made), results, judges())
    page.write(folder)
    print(page.text)
    return 0


def shares(model: FrozenModel, folder: str, strengths: Collection[float]) -> dict[float, list[Sampler]]:
    """Return CCSR's chains by the share of the refiner's change, where 0 is without a refiner."""
    chains = [CCSR(steps) for steps in STEPS]
    found = {0.0: trained_chains(model, "strength 0", chains)}
    for share in sorted(strengths):
        refiner = load_refiner(folder, model.device, model.dtype, share)
        found[share] = trained_chains(model, f"strength {share:g}", chains, refiner)
    return found


def given_back(model: FrozenModel, plain: Sequence[Sampler], chains: Sequence[FewSteps]) -> list[Sampler]:
    """Return the samplers ``plain`` of these chains, and variants that give back some of the input, with the
    model's own refiner if it has one."""

    def with_options(sampler: Sampler, chain: FewSteps, name: str, options: dict[str, Any]) -> Sampler:
        refiner = model.folder if model.config.refiner else None
        enlarge = SkipDiffSampler(model, refiner=refiner, **options)

        def run(lr: np.ndarray, seed: int) -> Picture:
            return Picture(enlarge(lr, chain, seed).images[0], chain.steps)

        key, label = f"{sampler.key}+{name.replace(' ', '-')}", f"{sampler.label}, {name}"
        return replace(sampler, key=key, label=label, run=each(run))

    return [
        with_options(sampler, chain, *given)
        for given in GIVEN_BACK.items()
        for sampler, chain in zip(plain, chains, strict=True)
    ]


# -- the choice

Limit = tuple[Column, float]
"""A metric, and the lower limit of its mean, or the upper limit if less is better."""


def limit(word: str) -> Limit:
    """Parse a limit such as ``psnr=25.8``.

    Raises:
        SkipDiffError: if there is no such metric, or the limit is not a number.
    """
    name, _, number = word.partition("=")
    metric = next((metric for metric in METRICS if metric.name == name), None)
    try:
        if metric is None:
            raise ValueError
        return metric, float(number)
    except ValueError:
        known = ", ".join(metric.name for metric in METRICS)
        raise SkipDiffError(f"--choose {word}: write METRIC=LIMIT, with one of the metrics {known}") from None


def within(limits: Sequence[Limit]) -> str:
    """Describe limits in words."""
    said = (f"{m.title} of at {'most' if m.lower_better else 'least'} {value:g}" for m, value in limits)
    return f" with {' and '.join(said)}" if limits else ""


def evaluations(model: FrozenModel) -> int:
    """Return the number of evaluations of the chain that the model runs, as far as there is a line for it."""
    chain = named_chain(model.chain, model)
    return min(chain.steps, max(STEPS)) if isinstance(chain, CCSR) else max(STEPS)


def chosen(results: Results, samplers: Sequence[Sampler], limits: Sequence[Limit]) -> str:
    """Return the key of the sampler with the lowest LPIPS among those whose means are within the limits.

    Raises:
        SkipDiffError: if there is none.
    """
    sign = {metric.name: -1 if metric.lower_better else 1 for metric, _ in limits}
    fit = [
        sampler.key
        for sampler in samplers
        if all(sign[m.name] * (results.mean(sampler.key, m.name) - value) >= 0 for m, value in limits)
    ]
    if not fit:
        raise SkipDiffError(f"--choose: no strength has {within(limits).removeprefix(' with ')}: loosen it")
    return min(fit, key=lambda key: results.mean(key, "lpips"))


def write_strength(folder: Path, strength: float) -> None:
    """Make a strength the default of the model in a folder."""
    config = read_config(folder / CONFIG)
    assert config.refiner is not None  # there is one
    write_config(folder / CONFIG, replace(config, refiner=replace(config.refiner, strength=strength)))
