"""Models beside one another on clean inputs and on JPEGs: which of them a photograph should be given.

    python -m benchmarks inputs --models natural-4x natural-4x-real --images imagenet256_test.tar --jpeg 75

Every model enlarges every image at its own fixed start, and where it has a refiner by the chain that this is
meant for, too, from the clean LR and from the LR saved as JPEG.
Writes ``inputs.md`` and ``inputs.csv`` into ``benchmarks/results/<last model>/<images>/``; rows that are
there are used again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.diffusion.pretrained import write_atomically
from skipdiff_env.images import open_source

from ..measure.evaluate import Evaluation
from ..measure.options import add_setting, fixed_start, network_dtype, rows_file, with_jpeg
from ..measure.results import Results
from ..measure.rivals import same_scale, with_own_refiner
from ..measure.samplers import Sampler, catalogue
from ..measure.store import METRICS, Row, Store
from ..measure.tables import TITLES, count, grid, number, written
from .claims import compared

SHOWN = (*METRICS, "evaluations")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments."""
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL", help="names or model folders")
    parser.add_argument("--jpeg", type=int, nargs="+", default=[75], metavar="Q", help="qualities [75]")
    add_setting(parser)


def run(args: argparse.Namespace) -> int:
    """Enlarge what is missing, compare, write."""
    models = [load_pretrained(given, args.device, network_dtype(args)) for given in args.models]
    names = [model.name for model in models]
    if len({*names}) < len(names):
        raise SkipDiffError(f"--models: two are called alike, so that rows cannot be told apart: {names}")
    for model, given in zip(models, args.models, strict=True):
        same_scale(model, given, models[0].scale)
    ways = [_ways(model, given) for model, given in zip(models, args.models, strict=True)]
    tables = {quality: _rows(args, models, ways, quality) for quality in (None, *args.jpeg)}
    folder = rows_file(args, models[-1]).parent
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        (_said(quality), sampler, [results.estimate(sampler, column) for column in SHOWN])
        for quality, results in tables.items()
        for sampler in results.samplers
    ]
    shown = [
        [f"{said}: {sampler}", *(number(e.mean, c) for e, c in zip(found, SHOWN, strict=True))]
        for said, sampler, found in lines
    ]
    verdicts = [
        verdict(results, _said(quality), new, old)
        for quality, results in tables.items()
        for old, new in _pairs([[*way] for way in ways])
    ]
    text = (
        f"# {' and '.join(names)}, by input\n\nMeans over {count(tables[None])}, in "
        f"{str(models[0].dtype).removeprefix('torch.')}; every model at its own fixed start, and where it "
        "has a refiner by the chain that this is meant for.\n\n"
        + grid(["", *(TITLES[column] for column in SHOWN)], shown)
        + "\n"
        + "\n".join(f"- {sentence}" for sentence in verdicts)
        + "\n"
    )
    head = ["input", "sampler", *(f"{c}{end}" for c in SHOWN for end in ("", "_low", "_high"))]
    cells = [
        [said, sampler, *(value for e in found for value in (e.mean, e.low, e.high))]
        for said, sampler, found in lines
    ]
    write_atomically(folder / "inputs.csv", written(head, cells).encode())
    write_atomically(folder / "inputs.md", text.encode())
    print("\n" + text)
    return 0


def verdict(results: Results, said: str, new: str, old: str) -> str:
    """A sentence on one line of the table against another one."""
    return f"*{said}: {new} against {old}*: {compared(results, new, old)}"


def _pairs(names: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """What sentences compare: each model's last line with the former model's, and with its own first."""
    last = [own[-1] for own in names]
    return [*zip(last, last[1:], strict=False), *((own[0], own[-1]) for own in names if len(own) > 1)]


def _ways(model: FrozenModel, given: str) -> dict[str, Sampler]:
    """SkipDiff at the model's start, and what its refiner is meant for, by the names that the table gives."""
    start = fixed_start(model)
    sampler = catalogue(model, start)[f"skip-10-{model.schedule.steps // 10}-{start}"]
    found = {f"{model.name}, start {start}": sampler}
    refined = with_own_refiner(given, model).values()
    return found | {f"{model.name}, {s.label.rpartition(', ')[2]} and refiner": s for s in refined}


def _rows(
    args: argparse.Namespace,
    models: Sequence[FrozenModel],
    ways: Sequence[Mapping[str, Sampler]],
    quality: int | None,
) -> Results:
    """Bicubic and every model on inputs of one kind, each under a name that a reader knows."""
    source, found = with_jpeg(open_source(args.images), quality), []
    for model, way in zip(models, ways, strict=True):
        named = {sampler.key: name for name, sampler in way.items()}
        samplers = [*way.values()]
        if model is models[0]:
            bicubic = catalogue(model, fixed_start(model))["bicubic"]
            samplers, named = [bicubic, *samplers], {**named, bicubic.key: "bicubic"}
        file = rows_file(args, model)
        file.parent.mkdir(parents=True, exist_ok=True)
        evaluation = Evaluation(model, source, samplers, Store(file), limit=args.limit)
        rows: list[Row] = evaluation.run(progress=True)
        found += [replace(row, sampler=named[row.sampler]) for row in rows]
    return Results(found)


def _said(quality: int | None) -> str:
    return "clean" if quality is None else f"JPEG {quality}"
