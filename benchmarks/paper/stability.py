"""How much of a result is the noise seed's doing: G-STD and L-STD of every sampler.

    python -m benchmarks stability --images imagenet256_test.tar --seeds 10

CCSR's measures of content consistency. Every image is enlarged under several noise seeds. **G-STD** of a
metric: its standard deviation over the seeds, mean over images. **L-STD**: the standard deviation of each
pixel's value over the seeds (8-bit units), mean over pixels, colours and images. Writes ``stability.csv`` (a
row an image and sampler) and ``stability.md`` into ``benchmarks/results/<model>/<images>/``, and resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import ImageSource, make_pair

from ..measure.evaluate import image_name
from ..measure.metrics import major, score
from ..measure.options import (
    add_common,
    command_line,
    fixed_start,
    folder_name,
    named_agents,
    network_dtype,
    open_images,
    said,
    trained_rivals,
)
from ..measure.records import Scores, append, read
from ..measure.results import FEWEST, estimate
from ..measure.sampler import Sampler
from ..measure.samplers import FAMILIES, catalogue
from ..measure.tables import Report, Table, basis

OURS, THEIRS = ("skip", "pair", "agent"), ("ccsr", "ccsr-stage-1", "ccsr-both", "refined")
"""Families of SkipDiff and of CCSR, whose consistency is compared."""


@dataclass(frozen=True)
class Spread:
    """One image and one sampler, over the noise seeds 0 … seeds - 1."""

    model: str
    """The hash of the model that the table is about."""
    dtype: str
    image: str
    seeds: int
    sampler: str
    evaluations: float
    """Mean number of network calls."""
    deviations: Scores
    """Standard deviations over the seeds (unbiased variance), by metric."""
    pixels: float
    """Standard deviation of a pixel, mean over the picture, in 8-bit units."""
    mean_psnr: float
    mean_lpips: float
    """Means over the seeds: a picture that is always the same may be always the same blur."""

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """What makes a row the same computation."""
        return self.model, self.dtype, self.image, self.seeds, self.sampler


def spread(images: Sequence[np.ndarray], scores: Sequence[Scores]) -> dict[str, Any]:
    """What a :class:`Spread` says of one image's results.

    Args:
        images: uint8 (H, W, 3), one a seed, at least 2.
        scores: theirs, one a seed.
    """

    def column(name: str) -> np.ndarray:
        return np.array([found[name] for found in scores], np.float64)

    return {
        "deviations": {m.name: float(column(m.name).std(ddof=1)) for m in major()},
        "pixels": float(np.stack(images).astype(np.float64).std(axis=0, ddof=1).mean()),
        "mean_psnr": float(column("psnr").mean()),
        "mean_lpips": float(column("lpips").mean()),
    }


def measure(
    model: FrozenModel,
    source: ImageSource,
    samplers: Sequence[Sampler],
    seeds: int,
    limit: int | None = None,
    store: Path | None = None,
    progress: bool = False,
) -> list[Spread]:
    """The rows of every image and sampler; those that the store holds are not made again.

    Raises:
        SkipDiffError: for less than two seeds, or images without originals.
    """
    if seeds < 2:
        raise SkipDiffError(f"--seeds {seeds}: a deviation needs at least 2 noise seeds")
    if source.low_resolution:
        raise SkipDiffError("the table needs HR images, which are shrunk to make the input")
    done = {row.key: row for row in read(store, Spread)} if store else {}
    dtype = f"{str(model.dtype).removeprefix('torch.')} {model.device.type}"
    rows = []
    for index in tqdm(range(min(len(source), limit or len(source))), unit="image", disable=not progress):
        pair = make_pair(source, index, scale=model.scale)
        assert pair.hr is not None
        for sampler in samplers:
            key = (model.hash, dtype, image_name(pair), seeds, sampler.key)
            if key not in done:
                made = [sampler.run(pair.lr, seed) for seed in range(seeds)]
                images = [picture.image for picture in made]
                figures = spread(images, score(images, pair.hr, pair.lr, model.scale))
                calls = float(np.mean([picture.evaluations for picture in made]))
                done[key] = Spread(*key, calls, **figures)
                if store:
                    append(store, done[key])
            rows.append(done[key])
    return rows


def table(rows: Sequence[Spread], labels: Mapping[str, str]) -> Table:
    """Means over images, a line a sampler, fewest evaluations first."""
    metrics = major()
    head = ["sampler", "evaluations", *(f"G-STD {m.title} ↓" for m in metrics), "L-STD ↓", "PSNR", "LPIPS"]
    digits = [1, *(max(3, metric.digits) for metric in metrics), 2, 2, 4]
    means = {}
    for key in dict.fromkeys(row.sampler for row in rows):
        figures = [
            [
                r.evaluations,
                *(r.deviations.get(m.name, np.nan) for m in metrics),
                r.pixels,
                r.mean_psnr,
                r.mean_lpips,
            ]
            for r in rows
            if r.sampler == key
        ]
        means[key] = np.nanmean(figures, axis=0)
    lines = [
        [labels.get(key, key), *(f"{value:.{n}f}" for value, n in zip(means[key], digits, strict=True))]
        for key in sorted(means, key=lambda key: means[key][0])
    ]
    return Table(head, lines)


def verdict(rows: Sequence[Spread], samplers: Sequence[Sampler]) -> str:
    """The sentences on SkipDiff and CCSR at equal evaluations; empty where one of them is not measured.

    The difference of their L-STDs is taken image by image, with a 95 % bootstrap interval. Of less than
    :data:`.results.FEWEST` images none is called the more consistent.
    """
    by_key = {(row.sampler, row.image): row for row in rows}
    images = list(dict.fromkeys(row.image for row in rows))

    def column(sampler: Sampler, name: str) -> np.ndarray:
        return np.array([getattr(by_key[sampler.key, image], name) for image in images])

    skips, rivals = ([s for s in samplers if s.family in families] for families in (OURS, THEIRS))
    sentences = []
    for ccsr in rivals:
        for skip in skips:
            if abs(column(skip, "evaluations").mean() - column(ccsr, "evaluations").mean()) > 0.5:
                continue
            gap = estimate(column(skip, "pixels") - column(ccsr, "pixels"))
            winner = "neither" if gap.low <= 0 <= gap.high else skip.label if gap.high < 0 else ccsr.label
            if len(images) < FEWEST:
                winner = f"undecided, of {len(images)} image{'s' * (len(images) != 1)}"
            calls = column(ccsr, "evaluations").mean()
            sentences.append(
                f"{skip.label} against {ccsr.label}, {calls:.0f} evaluations: L-STD differs by "
                f"{gap.mean:+.2f} ({gap.low:+.2f} … {gap.high:+.2f}); the more consistent is {winner}."
            )
    if skips and rivals and not sentences:
        ours, theirs = (
            ", ".join(f"{column(s, 'evaluations').mean():.4g}" for s in some) for some in (skips, rivals)
        )
        return f"SkipDiff and CCSR are not compared: the one takes {ours} evaluations, the other {theirs}."
    return "\n\n".join(sentences)


def chosen(args: argparse.Namespace, model: FrozenModel) -> list[Sampler]:
    """The samplers to compare: all of the paper's tables but the ablations, and the trained rivals."""
    fine, start = model.schedule.steps // 10, fixed_start(model, args.start)
    everything = catalogue(model, start, named_agents(args), (), args.model, trained_rivals(args))
    usual = ("csa-10", "csa-20", f"csa-{model.schedule.steps}", f"skip-10-{fine}-{start}")
    rivals = {family.name for family in FAMILIES if family.rival}
    wanted = args.samplers or [
        key for key, s in everything.items() if key in usual or s.agent or s.family in rivals
    ]
    unknown = [key for key in wanted if key not in everything]
    if unknown:
        raise SkipDiffError(f"unknown sampler {unknown[0]!r}: use some of {', '.join(everything)}")
    return [everything[key] for key in wanted]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the stability table."""
    add_common(parser)
    parser.add_argument("--seeds", type=int, default=10, help="noise seeds an image (default: 10)")
    parser.add_argument("--samplers", nargs="+", metavar="KEY", help="only these, such as csa-10 ccsr-16")


def run(args: argparse.Namespace) -> int:
    """Measure, or finish measuring, and write the table."""
    model = load_pretrained(args.model, args.device, network_dtype(args))
    samplers = chosen(args, model)
    folder = args.out / model.name / folder_name(args)
    source = open_images(args)
    rows = measure(model, source, samplers, args.seeds, args.limit, folder / "stability.csv", progress=True)
    rests = basis(len({row.image for row in rows}), args.seeds)
    report = Report(
        "stability",
        f"Stability of {model.name} on {said(args)}",
        f"{rests}, model hash `{model.hash}`, {rows[0].dtype}. G-STD: standard deviation of a metric over "
        "the seeds, mean over images; L-STD: of a pixel, in 8-bit units, mean over pixels and images. The "
        "last columns are means: what never changes may be blurred. Made by "
        f"`{command_line('stability', args, add_arguments)}`.",
        [table(rows, {sampler.key: sampler.label for sampler in samplers}), verdict(rows, samplers)],
        basis=rests,
    )
    report.write(folder)
    print("\n" + report.text)
    return 0
