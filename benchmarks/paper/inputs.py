"""Compares models on clean inputs and on JPEGs, to show which of them suits a photograph.

    python -m benchmarks inputs --models natural-4x natural-4x-real --images imagenet256_test.tar --jpeg 75

Every model enlarges every image, from the clean LR and from the LR saved as JPEG, at its own fixed start. A
model with a refiner also uses the chain that the refiner is meant for.
Writes ``inputs.md`` and ``inputs.csv`` into ``benchmarks/results/<last model>/<images>/``; existing rows are
used again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import open_source

from ..measure.evaluate import Evaluation
from ..measure.family import same_scale
from ..measure.metrics import columns
from ..measure.options import add_setting, fixed_start, made_by, network_dtype, rows_file, with_jpeg
from ..measure.quality import count, data, data_head, estimates, means
from ..measure.results import Results
from ..measure.sampler import HR, Sampler
from ..measure.samplers import catalogue
from ..measure.sentences import compared
from ..measure.store import Row, Store
from ..measure.tables import Report, Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="MODEL",
        help="names of shipped models, or model folders",
    )
    parser.add_argument(
        "--jpeg", type=int, nargs="+", default=[75], metavar="Q", help="JPEG qualities of the inputs [75]"
    )
    add_setting(parser)


def run(args: argparse.Namespace) -> int:
    """Compute the missing rows, compare the models and write the page."""
    models = [load_pretrained(given, args.device, network_dtype(args)) for given in args.models]
    names = [model.name for model in models]
    if len({*names}) < len(names):
        raise SkipDiffError(
            f"--models: two have the same name, so that rows cannot be told apart: rename one of {names}"
        )
    for model, given in zip(models, args.models, strict=True):
        same_scale(model, given, models[0].scale)
    ways = [_ways(model, given) for model, given in zip(models, args.models, strict=True)]
    tables = {quality: _rows(args, models, ways, quality) for quality in (None, *args.jpeg)}
    lines = [
        (_said(quality), sampler, estimates(results, sampler))
        for quality, results in tables.items()
        for sampler in results.samplers
    ]
    verdicts = [
        verdict(results, _said(quality), new, old)
        for quality, results in tables.items()
        for old, new in _pairs([[*way] for way in ways])
    ]
    report = Report(
        "inputs",
        f"{' and '.join(names)}, by input",
        f"Means over {count(tables[None])}, in {str(models[0].dtype).removeprefix('torch.')}; SkipDiff "
        "of every model at its own fixed start and, if it has a refiner, the chain that the refiner was made "
        "for. "
        f"{made_by('inputs', args, add_arguments)}",
        [
            Table(
                ["", *(column.label for column in columns())],
                [[f"{said}: {sampler}", *means(found)] for said, sampler, found in lines],
            ),
            "\n".join(f"- {sentence}" for sentence in verdicts),
        ],
        [
            ["input", "sampler", *data_head()],
            *([said, sampler, *data(found.values())] for said, sampler, found in lines),
        ],
    )
    report.write(rows_file(args, models[-1]).parent)
    print("\n" + report.text)
    return 0


def verdict(results: Results, said: str, new: str, old: str) -> str:
    """Compare one line of the table with another in a sentence."""
    return f"*{said}: {new} against {old}*: {compared(results, new, old)}"


def _pairs(names: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Return the pairs to compare: each model's last line with the one before, and with its own first."""
    last = [own[-1] for own in names]
    return [*zip(last, last[1:], strict=False), *((own[0], own[-1]) for own in names if len(own) > 1)]


def _ways(model: FrozenModel, given: str) -> dict[str, Sampler]:
    """Return SkipDiff at the model's start, and the chain of its refiner, by their names in the table."""
    start = fixed_start(model)
    every = catalogue(model, start, folder=given)
    found = {f"{model.name}, start {start}": every[f"skip-10-{model.schedule.steps // 10}-{start}"]}
    for sampler in (sampler for sampler in every.values() if sampler.family == "refined"):
        steps = f"{sampler.steps} step{'s' * (sampler.steps > 1)}"
        found[f"{model.name}, {steps} and refiner"] = sampler
    return found


def _rows(
    args: argparse.Namespace,
    models: Sequence[FrozenModel],
    ways: Sequence[Mapping[str, Sampler]],
    quality: int | None,
) -> Results:
    """Evaluate bicubic and every model on inputs of one kind, under names for readers.

    Only clean inputs get rows for the originals, which are the same for all.
    """
    source, found = with_jpeg(open_source(args.images), quality), []
    for model, way in zip(models, ways, strict=True):
        named = {sampler.key: name for name, sampler in way.items()}
        samplers = [*way.values()]
        if model is models[0]:
            bicubic = catalogue(model, fixed_start(model))["bicubic"]
            beside = [HR, bicubic] if quality is None else [bicubic]
            samplers, named = [*beside, *samplers], {**named, **{s.key: s.label for s in beside}}
        file = rows_file(args, model)
        file.parent.mkdir(parents=True, exist_ok=True)
        evaluation = Evaluation(model, source, samplers, Store(file), limit=args.limit)
        rows: list[Row] = evaluation.run(progress=True)
        found += [replace(row, sampler=named[row.sampler]) for row in rows]
    return Results(found)


def _said(quality: int | None) -> str:
    return "clean" if quality is None else f"JPEG {quality}"
