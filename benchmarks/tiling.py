"""Tiling: seams, agreement between tile sizes, and peak memory.

        python -m benchmarks tiling [--model NAME] [--what seams memory]

Seams: a photograph is enlarged to 1024x768 in one piece and by tiles. Printed are the mean gradient
across the lines where tiles fade into each other, and the Laplacian energy where they overlap, over
the same of the rest of the picture; beside it the same lines and areas of the untiled result, since no
two places of a photograph are equally rough. Agreement is PSNR between results.

Memory: peak resident memory of a process that enlarges a photograph by ``skipdiff upscale`` to
1024x768, and to 4096x3072, against 1.3 times the former plus six float32 images of the latter's size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from skipdiff_env import load_pretrained
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.images import PHOTOGRAPHS, write_image
from skipdiff_env.images.photo import Photo
from skipdiff_env.images.tiling import RAMP, spans
from skipdiff_env.upscale import Enlarger

SMALL, LARGE = (1024, 768), (4096, 3072)

MEASURE = (
    "import resource, sys; from skipdiff_env.cli import main; status = main(sys.argv[1:]); "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024); sys.exit(status)"
)
"""A process that reports its own peak (Linux counts kilobytes)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    parser.add_argument("--what", nargs="+", choices=["seams", "memory"], default=["seams", "memory"])
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 256], help="tile sizes to compare")
    parser.add_argument("--start", type=int, help="start level of the seam test (default: the model's)")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 if a bound is broken."""
    good = True
    if "seams" in args.what:
        good &= measure_seams(load_pretrained(args.model), args.tiles, args.start)
    if "memory" in args.what:
        good &= measure_memory(args.model)
    return 0 if good else 1


def photograph(width: int, height: int) -> np.ndarray:
    """The bundled coffee cup, cut to 4:3 and resized."""
    whole = Image.fromarray(next(p for p in PHOTOGRAPHS if p.name == "coffee").read())
    cut = whole.crop((34, 0, 567, 400))
    return np.array(cut.resize((width, height), Image.Resampling.BICUBIC))


def measure_seams(model: FrozenModel, tiles: list[int], start: int | None) -> bool:
    """Print the seam and agreement figures; whether they are within their bounds."""
    width, height = SMALL
    photo = Photo(photograph(width // model.scale, height // model.scale))
    results = {}
    for tile in [-(-width // 64) * 64, *tiles]:
        results[tile] = Enlarger(model, 10, start, 0, tile)(photo, SMALL).photo.colour
    whole, *tiled = results
    good = True
    print("tile  border gradient / rest (untiled)  overlap Laplacian / rest (untiled)  PSNR to the others")
    for tile in tiled:
        found = [seam_ratios(results[key], tile, model.config.unet.multiple) for key in (tile, whole)]
        psnr = {key: psnr_rgb(results[tile], results[key]) for key in results if key != tile}
        (gradient, laplacian), (gradient_whole, laplacian_whole) = found
        agreement = ", ".join(f"{key}: {value:.1f} dB" for key, value in psnr.items())
        print(
            f"{tile:4}  {gradient:.3f} ({gradient_whole:.3f})                    "
            f"{laplacian:.3f} ({laplacian_whole:.3f})                      {agreement}"
        )
        good &= min(psnr.values()) >= 35
        good &= abs(gradient / gradient_whole - 1) <= 0.05 and abs(laplacian / laplacian_whole - 1) <= 0.05
    return bool(good)


def seam_ratios(image: np.ndarray, tile: int, multiple: int) -> tuple[float, float]:
    """Mean gradient across tile borders, and Laplacian energy in the overlaps, over that of the rest."""
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
                lines[line - 1] = True  # between this pixel and the one before
            zone = [slice(None), slice(None)]
            zone[axis] = slice(span.first, span.first + RAMP)
            overlap[tuple(zone)] = True
        on_border.append(np.compress(lines, gradient, axis=axis).ravel())
        elsewhere.append(np.compress(~lines, gradient, axis=axis).ravel())
    border_ratio = np.concatenate(on_border).mean() / np.concatenate(elsewhere).mean()
    return float(border_ratio), float(laplacian[overlap].mean() / laplacian[~overlap].mean())


def psnr_rgb(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR over all three channels, in decibels."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def measure_memory(model: str) -> bool:
    """Print the peaks at both sizes; whether the large one is within its bound."""
    small, large = (peak(model, size) for size in (SMALL, LARGE))
    image = LARGE[0] * LARGE[1] * 3 * 4
    bound = 1.3 * small + 6 * image
    print(
        f"peak {small / 1e6:.0f} MB at {SMALL[0]}x{SMALL[1]}, {large / 1e6:.0f} MB at {LARGE[0]}x{LARGE[1]}"
    )
    print(f"bound {bound / 1e6:.0f} MB; the peaks differ by {(large - small) / image:.2f} float32 images")
    return large <= bound


def peak(model: str, size: tuple[int, int]) -> int:
    """Peak resident bytes of a fresh process that enlarges a photograph 4 times to ``size``.

    Three evaluations reach every kind of step: a coarse jump, a denoise from x_S1 and the last one.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in.png"
        write_image(source, photograph(size[0] // 4, size[1] // 4))
        options = [
            "--scale",
            "4",
            "--model",
            model,
            "--coarse-steps",
            "2",
            "--start",
            "2",
            "--tile",
            "512",
            "-q",
        ]
        command = [sys.executable, "-c", MEASURE, "upscale", str(source), "-o", f"{folder}/out.png", *options]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
