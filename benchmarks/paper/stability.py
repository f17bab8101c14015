"""How much of a result is the noise seed's doing: G-STD and L-STD of every sampler.

    python -m benchmarks stability --images imagenet256_test.tar --seeds 10

CCSR's measures of content consistency. Every image is enlarged under several noise seeds. **G-STD** of a
metric: its standard deviation over the seeds, mean over images. **L-STD**: the standard deviation of each
pixel's value over the seeds (8-bit units), mean over pixels, colours and images. Writes ``stability.csv`` (a
row an image and sampler) and ``stability.md`` into ``benchmarks/results/<model>/<images>/``, and resumes.
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
from skipdiff_env.diffusion.pretrained import write_atomically
from skipdiff_env.images import ImageSource, make_pair

from ..measure.evaluate import image_name
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
from ..measure.records import append, read
from ..measure.results import FEWEST
from ..measure.rivals import rivals
from ..measure.samplers import Sampler, catalogue
from ..measure.store import METRICS, score

SHOWN = ("psnr", "ssim", "niqe", "lpips")
TITLES = {"psnr": "PSNR", "ssim": "SSIM", "niqe": "NIQE", "lpips": "LPIPS"}


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
    psnr: float
    ssim: float
    niqe: float
    lpips: float
    """Standard deviations over the seeds (unbiased variance) of the metrics so named."""
    pixels: float
    """Standard deviation of a pixel, mean over the picture, in 8-bit units."""
    mean_psnr: float
    mean_lpips: float
    """Means over the seeds: a picture that is always the same may be always the same blur."""

    @property
    def key(self) -> tuple[str, str, str, int, str]:
        """What makes a row the same computation."""
        return self.model, self.dtype, self.image, self.seeds, self.sampler


def spread(images: Sequence[np.ndarray], scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """Deviations over seeds of one image's results.

    Args:
        images: uint8 (H, W, 3), one a seed, at least 2.
        scores: their :data:`.store.METRICS`, a row a seed.
    """
    columns = dict(zip(METRICS, np.asarray(scores, np.float64).T, strict=True))
    pixels = np.stack(images).astype(np.float64).std(axis=0, ddof=1).mean()
    deviations = {name: float(columns[name].std(ddof=1)) for name in SHOWN}
    means = {f"mean_{name}": float(columns[name].mean()) for name in ("psnr", "lpips")}
    return {**deviations, "pixels": float(pixels), **means}


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
                columns: dict[str, Any] = {"evaluations": calls, **figures}
                done[key] = Spread(*key, **columns)
                if store:
                    append(store, done[key])
            rows.append(done[key])
    return rows


def table(rows: Sequence[Spread], labels: dict[str, str]) -> str:
    """Means over images, a line a sampler, fewest evaluations first."""
    titles = [
        "sampler",
        "evaluations",
        *(f"G-STD {TITLES[name]} ↓" for name in SHOWN),
        "L-STD ↓",
        "PSNR",
        "LPIPS",
    ]
    lines = ["| " + " | ".join(titles) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    columns = ("evaluations", *SHOWN, "pixels", "mean_psnr", "mean_lpips")
    means = {
        key: [float(np.nanmean([getattr(row, c) for row in rows if row.sampler == key])) for c in columns]
        for key in dict.fromkeys(row.sampler for row in rows)
    }
    digits = (1, 3, 4, 3, 4, 2, 2, 4)
    for key in sorted(means, key=lambda key: means[key][0]):
        cells = [f"{value:.{n}f}" for value, n in zip(means[key], digits, strict=True)]
        lines.append("| " + " | ".join([labels.get(key, key), *cells]) + " |")
    return "\n".join(lines) + "\n"


def verdict(rows: Sequence[Spread], samplers: Sequence[Sampler]) -> str:
    """The sentences on SkipDiff and CCSR at equal evaluations; empty where one of them is not measured.

    The difference of their L-STDs is taken image by image, with a 95 % bootstrap interval. Of less than
    :data:`.results.FEWEST` images none is called the more consistent.
    """
    by_key = {(row.sampler, row.image): row for row in rows}
    images = list(dict.fromkeys(row.image for row in rows))

    def column(sampler: Sampler, name: str) -> np.ndarray:
        return np.array([getattr(by_key[sampler.key, image], name) for image in images])

    skips = [s for s in samplers if s.key.startswith(("skip-", "agent-"))]
    rivals = [s for s in samplers if s.key.startswith("ccsr-")]
    sentences = []
    for ccsr in rivals:
        for skip in skips:
            if abs(column(skip, "evaluations").mean() - column(ccsr, "evaluations").mean()) > 0.5:
                continue
            gap = column(skip, "pixels") - column(ccsr, "pixels")
            draws = np.random.default_rng(0).integers(0, len(gap), (2000, len(gap)))
            low, high = np.quantile(gap[draws].mean(axis=1), (0.025, 0.975))
            winner = "neither" if low <= 0 <= high else skip.label if high < 0 else ccsr.label
            if len(images) < FEWEST:
                winner = f"undecided, of {len(images)} image{'s' * (len(images) != 1)}"
            calls = column(ccsr, "evaluations").mean()
            sentences.append(
                f"{skip.label} against {ccsr.label}, {calls:.0f} evaluations: L-STD differs by "
                f"{gap.mean():+.2f} ({low:+.2f} … {high:+.2f}); the more consistent is {winner}."
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
    everything = catalogue(model, start, named_agents(args))
    everything |= rivals(
        *trained_rivals(args), model.device, model.dtype, scale=model.scale, budgets=[9 + start]
    )
    wanted = args.samplers or [
        key
        for key in everything
        if key in ("csa-10", "csa-20", f"csa-{model.schedule.steps}", f"skip-10-{fine}-{start}")
        or key.startswith(("agent-", "ddim-", "dpm-", "ancestral-", "ccsr-", "addsr-"))
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
    labels = {sampler.key: sampler.label for sampler in samplers}
    count = len({row.image for row in rows})
    text = (
        f"# Stability of {model.name} on {said(args)}\n\n{count} image{'s' * (count != 1)}, "
        f"{args.seeds} noise seeds each, model hash `{model.hash}`, {rows[0].dtype}. G-STD: standard "
        "deviation of a metric over the seeds, mean over images; L-STD: of a pixel, in 8-bit units, mean "
        "over pixels and images. The last columns are means: what never changes may be blurred. Made by "
        f"`{command_line('stability', args, add_arguments)}`.\n\n"
        + table(rows, labels)
        + "\n"
        + verdict(rows, samplers)
        + "\n"
    )
    write_atomically(folder / "stability.md", text.encode())
    print("\n" + text)
    return 0
