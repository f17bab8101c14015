"""Compares models with one another and with other programs on inputs as people have them.

    python -m benchmarks restore --images imagenet256_test.tar --write-inputs INPUTS
    ESRGAN/bin/python benchmarks/restore/external.py INPUTS OUTPUTS
    python -m benchmarks restore --images imagenet256_test.tar --other OUTPUTS/realesrgan-x4plus
    python -m benchmarks restore --sheet --other OUTPUTS/realesrgan-x4plus

The originals are shrunk, and then degraded by each of :data:`.kinds.KINDS`; text and line art are drawn.
Every model runs with default options. The column ST-LPIPS needs a package that is in no extra:
``pip install --no-deps stlpips_pytorch``. Writes ``README.md`` and a CSV file into
``benchmarks/results/degraded/<images>/``; existing rows are used again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import ImageSource, make_pair, open_source, shrink
from skipdiff_env.upscale.choice import AUTO

from ..measure.evaluate import Evaluation, image_name
from ..measure.family import same_scale
from ..measure.metrics import Metric, judges
from ..measure.options import BUNDLED, command_line, network_dtype
from ..measure.results import Results
from ..measure.sampler import HR, Sampler
from ..measure.store import Row, Store
from ..measure.tables import RESULTS
from .drawn import DRAWN, drawings
from .kinds import KINDS, PHOTOGRAPHS, Kind, known_kinds, saved
from .page import write
from .sheet import draw
from .ways import about_program, automatic, bicubic, default_way, input_name, other_program

FOLDER = "degraded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument(
        "--models", nargs="+", default=["natural-4x", "natural-4x-real"], metavar="NAME[=FOLDER]",
        help="names of shipped models, or model folders with the names that they get in the tables",
    )  # fmt: skip
    parser.add_argument("--images", type=Path, help="folder or tar of originals [the bundled photographs]")
    parser.add_argument("--pictures", type=int, default=50, help="number of originals, evenly spaced [50]")
    parser.add_argument("--drawings", type=int, default=10, help="number of texts, and of line drawings [10]")
    parser.add_argument(
        "--kinds",
        nargs="+",
        metavar="KIND",
        default=[kind.name for kind in KINDS],
        help="kinds of inputs to use [all]",
    )
    parser.add_argument(
        "--other", nargs="+", type=Path, default=[], metavar="FOLDER",
        help="results of another program for the inputs, in files of the same names",
    )  # fmt: skip
    parser.add_argument(
        "--write-inputs", type=Path, metavar="FOLDER", help="write the inputs to this folder and stop"
    )
    parser.add_argument("--no-auto", action="store_true", help="leave out the line for --model auto")
    parser.add_argument(
        "--sheet", action="store_true",
        help="only draw sheet.webp, with an input of each kind and its results, from bundled photographs, "
        "which may be shown freely",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="precision of the network [bfloat16 on CUDA, else float32]",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")


def run(args: argparse.Namespace) -> int:
    """Compute the missing rows and write the page."""
    kinds = known_kinds(args.kinds, KINDS)
    models = _models(args)
    first = next(iter(models.values()))
    sources = {kind: _source(args, kind) for kind in kinds}
    if args.write_inputs:
        return _write_inputs(sources, first.scale, args.write_inputs)
    stem = args.images.stem if args.images else BUNDLED
    folder = Path(args.out) / FOLDER / stem
    folder.mkdir(parents=True, exist_ok=True)
    if args.sheet:
        return _sheet(args, models, sources, folder / "sheet.webp")
    study = Study(args, models, Store(folder / "rows.csv"), judges())
    found = {kind: study.results(kind, source) for kind, source in sources.items()}
    command = command_line("restore", args, add_arguments)
    ours = [*models, *[AUTO] * (not args.no_auto)]
    write(folder, stem, found, ours, study.judges, _programs(args, models), command)
    print(f"results: {folder / 'README.md'}")
    return 0


@dataclass(frozen=True)
class Study:
    """The models, the rows and the metrics that all kinds share."""

    args: argparse.Namespace
    models: Mapping[str, FrozenModel]
    """The models by their names in tables."""
    store: Store
    judges: Sequence[Metric]

    def results(self, kind: Kind, source: ImageSource) -> Results:
        """Evaluate every way to enlarge inputs of one kind, under its label."""
        rows: list[Row] = []
        for label, model in self.models.items():
            ways = [default_way(model, label)]
            if not rows:
                others = [other_program(folder.name, folder) for folder in self.args.other]
                ways = [HR, bicubic(model), *others, *ways]
            rows += self._rows(model, source, ways)
        if not self.args.no_auto:
            rows += self._auto(kind, source, rows)
        return Results(rows)

    def _rows(self, model: FrozenModel, source: ImageSource, ways: Sequence[Sampler]) -> list[Row]:
        evaluation = Evaluation(model, source, ways, self.store, metrics=self.judges)
        labels = {way.key: way.label for way in ways}
        return [replace(row, sampler=labels[row.sampler]) for row in evaluation.run(progress=True)]

    def _auto(self, kind: Kind, source: ImageSource, rows: Sequence[Row]) -> list[Row]:
        """Return the rows of the models that ``--model auto`` chooses, picture by picture."""
        by_name, scale = (
            {(row.image, row.sampler): row for row in rows},
            next(iter(self.models.values())).scale,
        )
        found = []
        for index in range(len(source)):
            pair = make_pair(source, index, scale=scale)
            assert pair.hr is not None  # the source holds originals
            image, file = image_name(pair), kind.file(shrink(pair.hr, scale))
            found.append(replace(by_name[image, automatic(file, [*self.models])], sampler=AUTO))
        return found


def _models(args: argparse.Namespace) -> dict[str, FrozenModel]:
    found: dict[str, FrozenModel] = {}
    for given in args.models:
        label, _, folder = given.partition("=")
        model = load_pretrained(folder or label, args.device, network_dtype(args))
        found[label] = same_scale(model, folder or label, next(iter(found.values()), model).scale)
    return found


def _source(args: argparse.Namespace, kind: Kind) -> ImageSource:
    """Return the originals of a kind, with its degradation of their inputs."""
    if kind.of in DRAWN:
        return drawings(kind.of, args.drawings).degraded(kind)
    assert kind.of == PHOTOGRAPHS
    source = open_source(args.images)
    return source.take(args.pictures, every=max(1, len(source) // args.pictures)).degraded(kind)


def _programs(args: argparse.Namespace, models: Mapping[str, FrozenModel]) -> str:
    """Describe the models with their hashes, and other programs with their versions."""
    ours = [f"{label} (`{model.hash}`)" for label, model in models.items()]
    first = next(iter(models.values()))
    dtype = str(first.dtype).removeprefix("torch.")
    return "; ".join([f"{', '.join(ours)}, in {dtype} on {first.device}", *map(about_program, args.other)])


def _sheet(
    args: argparse.Namespace,
    models: Mapping[str, FrozenModel],
    sources: Mapping[Kind, ImageSource],
    path: Path,
) -> int:
    """Draw the inputs and results that the tables measure."""
    if args.images:
        raise SkipDiffError(
            "--sheet shows the bundled photographs, which may be shown freely: leave out --images"
        )
    first = next(iter(models.values()))
    ways = [bicubic(first), *(other_program(folder.name, folder) for folder in args.other)]
    ways += [default_way(model, label) for label, model in models.items()]
    draw(path, sources, {way.label: way for way in ways}, first.scale, _programs(args, models))
    print(f"picture: {path}")
    return 0


def _write_inputs(sources: Mapping[Kind, ImageSource], scale: int, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources.values():
        for index in range(len(source)):
            lr = make_pair(source, index, scale=scale).lr
            (folder / input_name(lr)).write_bytes(saved(lr, "png"))
    print(f"{sum(map(len, sources.values()))} inputs: {folder}")
    return 0
