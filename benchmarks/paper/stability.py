"""Measures how much the noise seed changes a result: G-STD and L-STD of every sampler.

    python -m benchmarks stability --images imagenet256_test.tar

These are the measures of content consistency of CCSR's authors. M images are enlarged under N noise seeds
each; every deviation over the seeds is that of the population (the divisor is N). **G-STD** of a metric Q is
the mean over images of √(1/N Σₙ (Qₙ - Q̄)²). **L-STD** is the mean over pixels, colours and images of
√(1/N Σₙ (xₙ - x̄)²), where x is the value of a pixel in [0, 1], and 4 pixels are cut off at every border.
Writes ``stability.md`` and ``stability.csv`` into ``benchmarks/results/<model>/<images>/``. The rows, one per
image and sampler, are kept in ``stability_rows.csv`` and used again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
from .published import CONSISTENCY

OURS, THEIRS = ("skip", "pair", "agent"), ("ccsr", "ccsr-stage-1", "ccsr-both", "refined")
"""Families of SkipDiff and of CCSR, which are compared in consistency."""
WHOLE, FEW = ("ccsr-both", "refined"), ("ccsr", "ccsr-stage-1", "addsr")
"""Families of CCSR with both stages, and those with which they are compared at :data:`STEPS` evaluations."""
STEPS = (1, 2)
CROP = 4
"""Number of pixels that L-STD leaves out at every border."""
PICTURES, SEEDS = 20, 10
"""Default numbers of images and of noise seeds."""


@dataclass(frozen=True)
class Spread:
    """The results of one sampler on one image, over the noise seeds 0 … seeds - 1."""

    model: str
    """The hash of the model that the table is about."""
    dtype: str
    image: str
    seeds: int
    sampler: str
    evaluations: float
    """Mean number of network calls."""
    deviations: Scores
    """Standard deviations over the seeds, by metric."""
    l_std: float
    """Standard deviation of a pixel in [0, 1], averaged over the picture without its border."""
    mean_psnr: float
    mean_lpips: float
    """Means over the seeds, since a picture that is always the same may also be always blurred."""

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """Everything that identifies the computation of a row."""
        return self.model, self.dtype, self.image, self.seeds, self.sampler


def spread(images: Sequence[np.ndarray], scores: Sequence[Scores]) -> dict[str, Any]:
    """Compute the values of a :class:`Spread` from one image's results.

    Args:
        images: uint8 (H, W, 3), one per seed, with sides of more than twice :data:`CROP`.
        scores: scores of the images, in the same order.
    """

    def column(name: str) -> np.ndarray:
        return np.array([found[name] for found in scores], np.float64)

    return {
        "deviations": {m.name: float(column(m.name).std()) for m in major()},
        "l_std": float((np.stack(images)[:, CROP:-CROP, CROP:-CROP] / 255).std(axis=0).mean()),
        "mean_psnr": float(column("psnr").mean()),
        "mean_lpips": float(column("lpips").mean()),
    }


def drawn(images: int, count: int, seed: int) -> list[int]:
    """Draw the numbers of ``count`` images, or of all; a larger count adds to the images of a smaller one."""
    return np.random.default_rng(seed).permutation(images)[:count].tolist()


def measure(
    model: FrozenModel,
    source: ImageSource,
    samplers: Sequence[Sampler],
    seeds: int,
    indices: Sequence[int],
    store: Path | None = None,
    progress: bool = False,
) -> list[Spread]:
    """Return the rows of every sampler and image of ``indices``; stored rows are not computed again.

    Raises:
        SkipDiffError: for fewer than two seeds, or images without originals.
    """
    if seeds < 2:
        raise SkipDiffError(f"--seeds {seeds}: a deviation needs at least 2 noise seeds")
    if source.low_resolution:
        raise SkipDiffError("the table needs HR images, which are shrunk to make the input")
    done = {row.key: row for row in read(store, Spread)} if store else {}
    dtype = f"{str(model.dtype).removeprefix('torch.')} {model.device.type}"
    rows = []
    for index in tqdm(indices, unit="image", disable=not progress):
        pair = make_pair(source, index, scale=model.scale)
        assert pair.hr is not None
        for sampler in samplers:
            key = (model.hash, dtype, image_name(pair), seeds, sampler.key)
            if key not in done:
                made = sampler.run([pair.lr] * seeds, range(seeds))
                images = [picture.image for picture in made]
                figures = spread(images, score(images, pair.hr, pair.lr, model.scale))
                calls = float(np.mean([picture.evaluations for picture in made]))
                done[key] = Spread(*key, calls, **figures)
                if store:
                    append(store, done[key])
            rows.append(done[key])
    return rows


HEAD, DIGITS = ["L-STD ↓", "of the chain's", "the paper's", "PSNR", "LPIPS"], (4, 2, 2, 2, 4)
"""The last columns; see :func:`lines`."""


def lines(rows: Sequence[Spread], samplers: Sequence[Sampler], chain: str) -> list[list[Any]]:
    """Average over images; return one line per sampler, fewest evaluations first.

    Args:
        rows: rows of all samplers.
        samplers: the samplers.
        chain: key of the full chain, by whose L-STD those of the others are divided.

    Returns:
        Key, label, evaluations, G-STDs, L-STD, its ratio to that of the chain, that ratio by CCSR's authors
        (NaN where there is none), PSNR, LPIPS.
    """
    means: dict[str, list[float]] = {}
    for sampler in samplers:
        mine = [row for row in rows if row.sampler == sampler.key]
        figures = [
            [r.evaluations, *(r.deviations.get(m.name, np.nan) for m in major()), r.l_std, r.mean_psnr]
            + [r.mean_lpips]
            for r in mine
        ]
        means[sampler.key] = np.nanmean(figures, axis=0).tolist()
    whole = means[chain][-3] if chain in means else np.nan
    return [
        [s.key, s.label, *found[:-2], found[-3] / whole, published(s), *found[-2:]]
        for s in sorted(samplers, key=lambda sampler: means[sampler.key][0])
        for found in [means[s.key]]
    ]


def published(sampler: Sampler) -> float:
    """Return the ratio of L-STD to the full chain's that CCSR's authors report; NaN for other samplers."""
    return CONSISTENCY.get(sampler.steps, np.nan) if sampler.family in WHOLE else np.nan


def table(found: Sequence[Sequence[Any]]) -> Table:
    """Tabulate the result of :func:`lines`."""
    metrics = major()
    digits = [1, *(max(3, metric.digits) for metric in metrics), *DIGITS]
    head = ["sampler", "evaluations", *(f"G-STD {m.title} ↓" for m in metrics), *HEAD]
    return Table(
        head,
        [
            [label, *(f"{v:.{n}f}" if np.isfinite(v) else "" for v, n in zip(values, digits, strict=True))]
            for _, label, *values in found
        ],
    )


def verdict(rows: Sequence[Spread], samplers: Sequence[Sampler], chain: str) -> str:
    """Say which samplers are more consistent; empty if there is nothing to compare.

    CCSR with both stages at one and two evaluations is compared with the full chain and with everything else
    that takes as few, and SkipDiff is compared with CCSR at equal evaluations. The difference of their L-STDs
    is taken image by image, with a 95 % bootstrap interval. With fewer than :data:`.results.FEWEST` images,
    none is called more consistent.
    """
    by_key = {(row.sampler, row.image): row for row in rows}
    images = list(dict.fromkeys(row.image for row in rows))

    def column(sampler: Sampler, name: str) -> np.ndarray:
        return np.array([getattr(by_key[sampler.key, image], name) for image in images])

    def compared(one: Sampler, other: Sampler) -> str:
        gap = estimate(column(one, "l_std") - column(other, "l_std"))
        winner = "neither" if gap.low <= 0 <= gap.high else one.label if gap.high < 0 else other.label
        if len(images) < FEWEST:
            winner = f"undecided, of {len(images)} image{'s' * (len(images) != 1)}"
        calls = " and ".join(dict.fromkeys(f"{column(s, 'evaluations').mean():.0f}" for s in (one, other)))
        return (
            f"{one.label} against {other.label}, {calls} evaluations: L-STD differs by {gap:+.4f}; "
            f"the more consistent is {winner}."
        )

    sentences = []
    for both in (s for s in samplers if s.family in WHOLE and s.steps in STEPS):
        others = [s for s in samplers if s.key == chain or (s.family in FEW and s.steps == both.steps)]
        sentences += [compared(both, other) for other in others]
    skips, rivals = ([s for s in samplers if s.family in families] for families in (OURS, THEIRS))
    equal = [
        compared(skip, ccsr)
        for ccsr in rivals
        for skip in skips
        if abs(column(skip, "evaluations").mean() - column(ccsr, "evaluations").mean()) <= 0.5
    ]
    if skips and rivals and not equal:
        ours, theirs = (
            ", ".join(f"{column(s, 'evaluations').mean():.4g}" for s in some) for some in (skips, rivals)
        )
        equal = [f"SkipDiff and CCSR are not compared: the one takes {ours} evaluations, the other {theirs}."]
    return "\n\n".join(sentences + equal)


def chosen(args: argparse.Namespace, model: FrozenModel) -> list[Sampler]:
    """Return the samplers to compare: those of the paper's tables, without ablations, and trained rivals."""
    fine, start = model.schedule.steps // 10, fixed_start(model, args.start)
    everything = catalogue(model, start, named_agents(args), (), args.model, trained_rivals(args))
    usual = ("csa-10", "csa-20", f"csa-{model.schedule.steps}", f"skip-10-{fine}-{start}")
    rivals = {family.name for family in FAMILIES if family.rival}
    if not args.samplers:
        return [s for key, s in everything.items() if key in usual or s.agent or s.family in rivals]
    names = {key: {key, key.partition("@")[0]} for key in everything}
    unknown = set(args.samplers).difference(*names.values())
    if unknown:
        raise SkipDiffError(f"unknown sampler {unknown.pop()!r}: use some of {', '.join(everything)}")
    return [everything[key] for key, called in names.items() if called & set(args.samplers)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments of the stability table."""
    add_common(parser)
    parser.add_argument(
        "--pictures",
        type=int,
        default=PICTURES,
        metavar="N",
        help=f"number of images, drawn at random [{PICTURES}]",
    )
    parser.add_argument("--draw", type=int, default=0, metavar="SEED", help="seed of the draw [0]")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"number of noise seeds per image [{SEEDS}]")
    parser.add_argument(
        "--samplers",
        nargs="+",
        metavar="KEY",
        help="keys of the samplers to measure, such as csa-10 ccsr-16 [all]",
    )


def run(args: argparse.Namespace) -> int:
    """Measure the samplers, or finish the measurement, and write the table."""
    model = load_pretrained(args.model, args.device, network_dtype(args))
    samplers = chosen(args, model)
    folder = args.out / model.name / folder_name(args)
    source = open_images(args)
    pool = min(len(source), args.limit or len(source))
    indices = drawn(pool, args.pictures, args.draw)
    store = folder / "stability_rows.csv"
    rows = measure(model, source, samplers, args.seeds, indices, store, progress=True)
    rests = basis(len(indices), args.seeds)
    chain = f"csa-{model.schedule.steps}"
    found = lines(rows, samplers, chain)
    weights = {" and refiner ".join(s.weights): s.label.partition(",")[0] for s in samplers if s.weights}
    others = "".join(f", {label} `{hashes}`" for hashes, label in weights.items())
    report = Report(
        "stability",
        f"Stability of {model.name} on {said(args)}",
        f"{rests}, drawn from {pool} by the seed {args.draw}; model hash `{model.hash}`{others}, "
        f"{rows[0].dtype}. G-STD of a metric Q: √(1/N Σₙ (Qₙ - Q̄)²) over the N seeds, mean over images. "
        "L-STD: √(1/N Σₙ (xₙ - x̄)²), where x is a pixel's red, green or blue in [0, 1], mean over pixels, "
        f"colours and images; {CROP} pixels are cut off at every border. *Of the chain's*: L-STD over that "
        "of the full chain. *The paper's*: the same ratio of CCSR's authors, whose chain is StableSR's. "
        "PSNR and LPIPS are means: what never changes may be blurred. Made by "
        f"`{command_line('stability', args, add_arguments)}`.",
        [table(found), verdict(rows, samplers, chain)],
        [
            ["sampler", "label", "evaluations", *(f"g_std_{m.name}" for m in major()), "l_std"]
            + ["l_std_over_chain", "paper", "psnr", "lpips"],
            *found,
        ],
        basis=rests,
    )
    report.write(folder)
    print("\n" + report.text)
    return 0
