"""Tests whether bfloat16 changes the figures of the tables, on the same pictures in both precisions.

    python -m benchmarks precision --model face-8x --images faces128_val.tar

Enlarges some random pictures by SkipDiff from the fixed start and by the full chain, in float32 and
in bfloat16, and compares them pair by pair. It needs a processor with AVX512-BF16 or AMX, or a GPU. Writes
``precision.md`` and ``precision.csv`` into ``benchmarks/results/<model>/<images>/``; rows are kept with those
of ``paper``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from skipdiff_env import load_pretrained
from skipdiff_env.images import open_source

from ..measure.evaluate import Evaluation
from ..measure.metrics import METRICS
from ..measure.options import fixed_start, made_by, picked, rows_file
from ..measure.results import Results
from ..measure.sampler import Sampler
from ..measure.samplers import catalogue
from ..measure.store import Store
from ..measure.tables import RESULTS, Report, Table, basis
from .stability import drawn

EXACT, FAST = torch.float32, torch.bfloat16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    parser.add_argument("--images", type=Path, help="folder or tar of HR images [the bundled ones]")
    parser.add_argument("--count", type=int, default=24, metavar="N", help="number of random pictures [24]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")


def run(args: argparse.Namespace) -> int:
    """Compute the missing rows, compare the precisions and write the page."""
    source = open_source(args.images)
    source = picked(source, sorted(drawn(len(source), args.count, 0)))
    rows = []
    for dtype in (EXACT, FAST):
        model = load_pretrained(args.model, args.device, dtype)
        start, top = fixed_start(model), model.schedule.steps
        every = catalogue(model, start)
        samplers = [every[f"skip-10-{top // 10}-{start}"], every[f"csa-{top}"]]
        file = rows_file(args, model)
        found = Evaluation(model, source, samplers, Store(file)).run(progress=True)
        rows += [replace(row, sampler=named(row.sampler, dtype)) for row in found]
    made = f"{made_by('precision', args, add_arguments)} Model `{model.hash}`."
    page = report(Results(rows), samplers, made)
    page.write(file.parent)
    print(page.text)
    return 0


def named(key: str, dtype: torch.dtype) -> str:
    """Return a sampler's key with a precision."""
    return f"{key} {str(dtype).removeprefix('torch.')}"


def report(results: Results, samplers: list[Sampler], made: str) -> Report:
    """Report the differences between bfloat16 and float32."""
    head = ["", "", *(metric.title for metric in METRICS)]
    lines: list[list[str]] = []
    data: list[list[Any]] = [["sampler", "precision", *(metric.name for metric in METRICS)]]
    for sampler in samplers:
        for dtype in (EXACT, FAST):
            key = named(sampler.key, dtype)
            means = [results.mean(key, metric.name) for metric in METRICS]
            shown = [metric.shown(mean) for metric, mean in zip(METRICS, means, strict=True)]
            lines.append([sampler.label, key.split()[1], *shown])
            data.append([sampler.key, key.split()[1], *means])
        exact, fast = (named(sampler.key, dtype) for dtype in (EXACT, FAST))
        found = [results.difference(fast, exact, metric.name) for metric in METRICS]
        shown = [f"{f:+.{metric.digits + 1}f}" for f, metric in zip(found, METRICS, strict=True)]
        lines.append([sampler.label, "difference", *shown])
    number = basis(len(results.images), len(results.seeds))
    note = (
        f"Means over {number}, and paired differences, bfloat16 minus float32, with 95 % bootstrap intervals "
        f"over images. {made}"
    )
    title = "The network in bfloat16 and in float32"
    return Report("precision", title, note, [Table(head, lines, left=2)], data, number)
