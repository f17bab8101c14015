"""Measures tiling: seams, agreement between tile sizes, and peak memory.

        python -m benchmarks tiling [--model NAME] [--what seams memory largest largest-model]

Seams: every chain of --chains enlarges a photograph to 1024x768 in one piece and by tiles. The measures are
the mean gradient across the lines where tiles fade into each other, and the Laplacian energy where they
overlap, each divided by its value in the rest of the picture. Since no two places of a photograph are equally
rough, the same lines and areas of the untiled result are also measured, and the bound is on the ratio of the
two. Agreement is the PSNR between results.

Memory: peak resident memory of a process that enlarges a photograph by ``skipdiff upscale`` to
1024x768, and to 4096x3072, against 1.3 times the former plus six float32 images of the latter's size.

Largest (only on request, since it takes some minutes): peak memory of enlarging a JPEG of 12 megapixels to
16128x12096, against 8 GB. A network of a few thousand weights stands in for the model, since the memory is
used around it; the chain has two evaluations, like the shipped ones. Intermediate images are stored in the
folder of the result. Largest-model (half an hour): the same with the model itself and its refiner, as
``--model natural-4x-real`` enlarges JPEGs.

Writes ``tiling_seams``, ``tiling_memory`` and, for largest-model, ``tiling_largest`` (``.csv`` and ``.md``)
into ``benchmarks/results/<model>/``; the files of largest go into ``benchmarks/results/tiny-4x/``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from skipdiff_env import load_pretrained
from skipdiff_env.chains import Chain, parse, shipped_plans
from skipdiff_env.diffusion import FrozenModel, random_model, save_model, tiny_config
from skipdiff_env.images import PHOTOGRAPHS, write_image
from skipdiff_env.images.photo import Photo
from skipdiff_env.images.tiling import RAMP, spans
from skipdiff_env.upscale import Enlarger

from ..measure.options import fixed_start, made_by
from ..measure.tables import RESULTS, Report, Table

Size = tuple[int, int]
Row = dict[str, str | float]

SMALL, LARGE = (1024, 768), (4096, 3072)
LARGEST, MOST = (16128, 12096), 8e9
"""Size of a JPEG of 12 megapixels enlarged four times, and the bytes of memory that must suffice for it."""
UNLIKE = 0.05
"""Maximum relative difference between seams and the rest of the picture."""
FEW_CALLS = (3, 5, 8)
"""Numbers of calls of the plans that are tested for seams."""
AGREE = 35.0
"""Minimum PSNR between results of two tile sizes, in decibels."""

PAGES = {
    "tiling_seams": (
        "Seams between tiles",
        "A photograph enlarged by tiles and in one piece: the mean gradient where tiles fade into each "
        "other, and the Laplacian energy where they overlap, each over the same of the rest of the picture.",
    ),
    "tiling_memory": (
        "Peak memory of skipdiff upscale",
        "Resident memory of a whole process, and the bound for it.",
    ),
    "tiling_largest": (
        "The largest photograph",
        "Peak resident memory of enlarging a JPEG of 12 megapixels, and the bound for it.",
    ),
}
"""Titles of the pages, and what they show."""
COLUMNS = {
    "gradient_untiled": "gradient, untiled",
    "gradient_unlike": "gradient, relative difference",
    "laplacian": "Laplacian",
    "laplacian_untiled": "Laplacian, untiled",
    "laplacian_unlike": "Laplacian, relative difference",
    "psnr_to_untiled": "PSNR to untiled, dB",
    "psnr_to_other_tiles": "least PSNR to other tiles, dB",
    "peak_mb": "peak, MB",
    "bound_mb": "bound, MB",
    "bytes_a_pixel": "bytes per pixel of the result",
    "more_in_images": "more than the smallest, in float32 images of this size",
}
"""Names in tables of the columns of the files."""

MEASURE = (
    "import resource, sys; from skipdiff_env.cli import main; status = main(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024); sys.exit(status)"
)
"""A process that reports its own peak (Linux counts kilobytes)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    parser.add_argument(
        "--what", nargs="+", choices=["seams", "memory", "largest", "largest-model"],
        default=["seams", "memory"], help="what to measure [seams memory]",
    )  # fmt: skip
    parser.add_argument(
        "--tiles", type=int, nargs="+", default=[512, 256], help="tile sizes to compare, in pixels [512 256]"
    )
    parser.add_argument(
        "--formats", nargs="+", default=["jpg"], help="suffixes of the largest results: jpg png tif webp"
    )
    parser.add_argument(
        "--chains", nargs="+", metavar="CHAIN",
        help="chains of the seam test, as upscale --policy takes them, or a number for a start [the model's "
        "plans of 3, 5 and 8 calls, or the start that it recommends]",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")


def run(args: argparse.Namespace) -> int:
    """Measure, print and write; return 1 if a bound is exceeded."""
    model = load_pretrained(args.model, "cpu")
    good, folder, made = True, args.out / model.name, made_by("tiling", args, add_arguments)
    if "seams" in args.what:
        chains = {
            word: parse(int(word) if word.isdecimal() else word, model)
            for word in args.chains or usual_chains(model)
        }
        rows = [
            {"chain": word, **row}
            for word, chain in chains.items()
            for row in measure_seams(model, SMALL, args.tiles, chain)
        ]
        write_report(folder, "tiling_seams", rows, made)
        good &= seams_hold(rows)
    if "memory" in args.what:
        rows = measure_memory(args.model, SMALL, LARGE)
        write_report(folder, "tiling_memory", rows, made)
        good &= memory_holds(rows)
    if "largest" in args.what:
        with tempfile.TemporaryDirectory() as made:
            tiny = random_model(tiny_config())
            stand_in = save_model(Path(made) / "tiny-4x", tiny.network, tiny.config)
            rows = measure_largest(str(stand_in), args.formats, LARGEST)
        write_report(args.out / stand_in.name, "tiling_largest", rows, made)
        good &= memory_holds(rows)
    if "largest-model" in args.what:
        rows = measure_largest(args.model, args.formats, LARGEST)
        write_report(folder, "tiling_largest", rows, made)
        good &= memory_holds(rows)
    return 0 if good else 1


def photograph(width: int, height: int) -> np.ndarray:
    """Return the bundled coffee cup, cropped to 4:3 and resized."""
    whole = Image.fromarray(next(p for p in PHOTOGRAPHS if p.name == "coffee").read())
    cut = whole.crop((34, 0, 567, 400))
    return np.array(cut.resize((width, height), Image.Resampling.BICUBIC))


def usual_chains(model: FrozenModel) -> list[str]:
    """Return the model's plans of few calls or, if it has none, the start that it recommends."""
    known = shipped_plans(model)
    plans = [f"plan:{count}" for count in FEW_CALLS if count in known]
    return plans or [str(fixed_start(model))]


def measure_seams(model: FrozenModel, size: Size, tiles: Sequence[int], chain: Chain) -> list[Row]:
    """Measure a row per tile size; ``unlike``: distance of the seams' ratio from the untiled result's."""
    photo = Photo(photograph(size[0] // model.scale, size[1] // model.scale))
    multiple = model.config.unet.multiple
    whole = max(2 * 64, -(-max(size) // multiple) * multiple)
    results = {tile: Enlarger(model, chain, 0, tile)(photo, size).photo.colour for tile in (whole, *tiles)}
    rows: list[Row] = []
    for tile in tiles:
        row: Row = {"size": f"{size[0]}x{size[1]}", "tile": tile}
        found, untiled = (seam_ratios(results[key], tile, multiple) for key in (tile, whole))
        for name, ratio, control in zip(("gradient", "laplacian"), found, untiled, strict=True):
            row |= {name: ratio, f"{name}_untiled": control, f"{name}_unlike": ratio / control - 1}
        row["psnr_to_untiled"] = psnr_rgb(results[tile], results[whole])
        row["psnr_to_other_tiles"] = min(
            (psnr_rgb(results[tile], results[other]) for other in tiles if other != tile),
            default=float("inf"),
        )
        rows.append(row)
    return rows


def seams_hold(rows: Sequence[Row]) -> bool:
    """Return whether every row of :func:`measure_seams` is within its bounds."""
    return all(
        abs(float(row["gradient_unlike"])) <= UNLIKE
        and abs(float(row["laplacian_unlike"])) <= UNLIKE
        and min(float(row["psnr_to_untiled"]), float(row["psnr_to_other_tiles"])) >= AGREE
        for row in rows
    )


def seam_ratios(image: np.ndarray, tile: int, multiple: int) -> tuple[float, float]:
    """Return gradient across tile borders and Laplacian energy in overlaps, relative to those of the rest."""
    grey = image.astype(np.float64).mean(axis=2)
    laplacian = np.zeros_like(grey)
    laplacian[1:-1, 1:-1] = (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    ) ** 2
    overlap = np.zeros(grey.shape, bool)
    on_border, elsewhere = [], []
    for axis in (0, 1):
        gradient = np.abs(np.diff(grey, axis=axis))
        lines = np.zeros(gradient.shape[axis], bool)
        for span in spans(grey.shape[axis], tile, multiple)[1:]:
            for line in (span.first, span.first + RAMP // 2, span.first + RAMP):
                lines[line - 1] = True  # between this pixel and the previous one
            zone = [slice(None), slice(None)]
            zone[axis] = slice(span.first, span.first + RAMP)
            overlap[tuple(zone)] = True
        on_border.append(np.compress(lines, gradient, axis=axis).ravel())
        elsewhere.append(np.compress(~lines, gradient, axis=axis).ravel())
    border_ratio = np.concatenate(on_border).mean() / np.concatenate(elsewhere).mean()
    return float(border_ratio), float(laplacian[overlap].mean() / laplacian[~overlap].mean())


def psnr_rgb(a: np.ndarray, b: np.ndarray) -> float:
    """Return the PSNR over all three channels, in decibels."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def measure_memory(model: str, *sizes: Size) -> list[Row]:
    """Measure a row per size, smallest first; bounds are 1.3 times its peak and six float32 images."""
    rows: list[Row] = []
    for size in sizes:
        found = peak(model, size)
        image = 12 * size[0] * size[1]
        first = float(rows[0]["peak_mb"]) * 1e6 if rows else found
        rows.append(
            {
                "size": f"{size[0]}x{size[1]}",
                "peak_mb": found / 1e6,
                "bound_mb": (1.3 * first + 6 * image) / 1e6,
                "more_in_images": (found - first) / image,
            }
        )
    return rows


def measure_largest(model: str, suffixes: Sequence[str], size: Size) -> list[Row]:
    """Measure a row per file format, by a chain of two evaluations and the model's refiner, if any; the bound
    is :data:`MOST`."""
    rows: list[Row] = []
    for suffix in suffixes:
        found = peak(model, size, suffix, "--policy ccsr:2")
        rows.append(
            {
                "size": f"{size[0]}x{size[1]}",
                "format": suffix,
                "peak_mb": found / 1e6,
                "bound_mb": MOST / 1e6,
                "bytes_a_pixel": found / (size[0] * size[1]),
            }
        )
    return rows


def memory_holds(rows: Sequence[Row]) -> bool:
    """Return whether every row of :func:`measure_memory` or :func:`measure_largest` is within its bound."""
    return all(float(row["peak_mb"]) <= float(row["bound_mb"]) for row in rows)


def peak(model: str, size: Size, suffix: str = "png", chain: str = "--coarse-steps 1 --start 3") -> int:
    """Return the peak resident bytes of a fresh process that enlarges to ``size``, by the model's scale.

    Three evaluations without a coarse jump reach the step that holds the most memory: a denoising step that
    adds noise, from a latent that is not x_S1 and did not come with its x̂0. Images that are too large for
    memory are kept in the folder of the result.
    """
    scale = load_pretrained(model).scale
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.jpg"
        write_image(source, photograph(size[0] // scale, size[1] // scale))
        options = f"--scale {scale} --model {model} {chain} --tile 512 --device cpu -q".split()
        out = f"{folder}/out.{suffix}"
        command = [sys.executable, "-c", MEASURE, "upscale", str(source), "-o", out, *options]
        environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
        ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        return int(ran.stdout)


def write_report(folder: Path, name: str, rows: Sequence[Row], made: str) -> None:
    """Write rows as a table, with the command that made it, and print it."""
    shown = [{key: f"{v:.3f}" if isinstance(v, float) else str(v) for key, v in row.items()} for row in rows]
    head, lines = list(shown[0]), [list(row.values()) for row in shown]
    title, told = PAGES[name]
    table = Table([COLUMNS.get(key, key) for key in head], lines, left=0)
    report = Report(name, title, f"{told} {made}", [table], [head, *lines])
    report.write(folder)
    print(report.text, flush=True)
