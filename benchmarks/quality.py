"""Metrics of several ways to enlarge the same images with the same weights, a row an image.

Rows are kept in a CSV file as they are made; a row that is there for the same model hash, image
content, noise seed and method is never computed again, so a run resumes where it stopped.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch

from skipdiff_env import SkipDiffSampler
from skipdiff_env.diffusion import FrozenModel, image_key, to_uint8
from skipdiff_env.images import ImageSource, make_pair, shrink
from skipdiff_env.latent_cache import CachedProcess, LatentCache
from skipdiff_env.metrics import load_metric, psnr_y, ssim_y

COLUMNS = ("psnr", "ssim", "niqe", "lpips", "consistency", "evaluations", "seconds")
"""What a table shows. Consistency: PSNR (Y) of the result, shrunk again, against its LR input."""

Enlarge = Callable[[np.ndarray, int], tuple[np.ndarray, int, float]]
"""(LR image uint8 (h, w, 3), noise seed) → (SR image uint8 (H, W, 3), network evaluations, seconds)."""


@dataclass(frozen=True)
class Row:
    """One image, one noise seed, one method."""

    model: str
    image: str
    seed: int
    method: str
    psnr: float
    ssim: float
    niqe: float
    lpips: float
    consistency: float
    evaluations: int
    seconds: float

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What makes a row the same computation."""
        return self.model, self.image, self.seed, self.method


def standard_methods(model: FrozenModel, starts: Sequence[int] = ()) -> dict[str, Enlarge]:
    """Bicubic, the full chain, CSA alone (S = 10) and (10, 10) with each of ``starts``.

    Several starts share their latents (CSA above all), and are then not timed: their seconds are NaN.
    """
    steps = model.schedule.steps
    starts = starts or [model.config.start or 7]
    skipdiff = SkipDiffSampler(model, 10)
    if len(starts) > 1:
        skipdiff.process = CachedProcess(model, 10, cache=LatentCache(max_bytes=2**28))

    def bicubic(lr: np.ndarray, seed: int) -> tuple[np.ndarray, int, float]:
        began = time.perf_counter()
        batch = torch.from_numpy(lr).permute(2, 0, 1)[None]
        image = to_uint8(model.condition(batch))[0].permute(1, 2, 0).cpu().numpy()
        return image, 0, time.perf_counter() - began

    def sampled(sampler: SkipDiffSampler, policy: int | None = None) -> Enlarge:
        def enlarge(lr: np.ndarray, seed: int) -> tuple[np.ndarray, int, float]:
            out = sampler(lr, policy=policy, seed=seed)
            shared = sampler is skipdiff and len(starts) > 1
            return out.images[0], out.trace[0].evaluations, math.nan if shared else out.trace[0].seconds

        return enlarge

    return {
        "bicubic": bicubic,
        f"full DDPM ({steps} steps)": sampled(SkipDiffSampler(model, steps, fine_steps=0)),
        "CSA alone (S = 10)": sampled(SkipDiffSampler(model, 10, fine_steps=0)),
        **{f"CSA + FSR, start {start}": sampled(skipdiff, start) for start in starts},
    }


def evaluate(
    model: FrozenModel,
    source: ImageSource,
    methods: dict[str, Enlarge],
    seeds: Sequence[int] = (0,),
    limit: int | None = None,
    store: Path | None = None,
    keep: Callable[[str, str, np.ndarray], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """All rows of a set of HR images.

    Args:
        model: where LR images get their scale and rows their hash.
        source: HR images, taken whole.
        methods: what to compare, by name.
        seeds: noise seeds of every image.
        limit: take the first so many images alone.
        store: CSV file to resume from and append to.
        keep: called with (image name, method, SR image), to look at; only for rows that are computed.
        progress: called with a line before every row that is computed.
    """
    done = {row.key: row for row in read_rows(store)} if store else {}
    rows = []
    count = min(len(source), limit or len(source))
    for index in range(count):
        pair = make_pair(source, index, scale=model.scale)
        if pair.hr is None:
            raise ValueError("a quality table needs HR images")
        identity = f"{Path(pair.name).stem}-{image_key(pair.lr):016x}"
        for seed in seeds:
            for method, enlarge in methods.items():
                key = (model.hash, identity, seed, method)
                if key not in done:
                    if progress:
                        progress(f"{index + 1}/{count} {pair.name}, seed {seed}: {method}")
                    image, evaluations, seconds = enlarge(pair.lr, seed)
                    scores = score(image, pair.hr, pair.lr, model.scale)
                    done[key] = Row(*key, *scores, evaluations, seconds)
                    if keep:
                        keep(pair.name, method, image)
                    if store:
                        append_row(store, done[key])
                rows.append(done[key])
    return rows


def score(
    image: np.ndarray, hr: np.ndarray, lr: np.ndarray, scale: int
) -> tuple[float, float, float, float, float]:
    """PSNR, SSIM, NIQE, LPIPS and consistency of one SR image, all uint8 (H, W, 3)."""
    sr, reference = image[None], hr[None]
    return (
        float(psnr_y(sr, reference)[0]),
        float(ssim_y(sr, reference)[0]),
        float(load_metric("niqe")(sr)[0]),
        float(load_metric("lpips")(sr, reference)[0]),
        float(psnr_y(shrink(image, scale)[None], lr[None])[0]),
    )


def read_rows(path: Path) -> list[Row]:
    """Rows of a CSV file; none if it is not there. A last line cut short by a kill is cut off."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text, encoding="utf-8")
    types = {"str": str, "int": int, "float": float}
    records = csv.DictReader(text.splitlines())
    return [Row(**{f.name: types[str(f.type)](record[f.name]) for f in fields(Row)}) for record in records]


def append_row(path: Path, row: Row) -> None:
    """Add one row, with the header if the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def bootstrap(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of the values that are not NaN."""
    finite = np.array([value for value in values if np.isfinite(value)])
    means = np.random.default_rng(0).choice(finite, (draws, len(finite))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Means a method, of the values that are not NaN; NaN where there are none."""
    means: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        chosen = [row for row in rows if row.method == method]
        means[method] = {}
        for column in COLUMNS:
            values = [v for row in chosen if math.isfinite(v := getattr(row, column))]
            means[method][column] = float(np.mean(values)) if values else math.nan
    return means


def markdown(summary: dict[str, dict[str, float]], timed: bool = True) -> str:
    """A table of the means, with or without the seconds."""
    titles = ("method", "PSNR ↑", "SSIM ↑", "NIQE ↓", "LPIPS ↓", "LR consistency ↑", "evaluations", "seconds")
    digits = dict(zip(COLUMNS, (2, 4, 2, 4, 2, 0, 2), strict=True))
    shown = COLUMNS if timed else COLUMNS[:-1]
    lines = ["| " + " | ".join(titles[: len(shown) + 1]) + " |", "|---" + "|---:" * len(shown) + "|"]
    for method, means in summary.items():
        cells = [f"{means[c]:.{digits[c]}f}" if math.isfinite(means[c]) else "–" for c in shown]
        lines.append("| " + " | ".join([method, *cells]) + " |")
    return "\n".join(lines) + "\n"
