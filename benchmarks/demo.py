"""The demo: one bundled photograph, shrunk four times and enlarged again in every way there is.

    python -m benchmarks demo [--model NAME] [--out FOLDER]

Writes the pictures and a labelled comparison, and prints a table against the original.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from skipdiff_env import load_pretrained
from skipdiff_env.images import demo_photograph, make_pair, open_source, read_image, write_image
from skipdiff_env.upscale.compare import side_by_side

from .quality import evaluate, markdown, standard_methods, summarise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the demo."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures")


def run(args: argparse.Namespace) -> int:
    """Enlarge, write, print."""
    model = load_pretrained(args.model)
    source = open_source([demo_photograph()])
    pair = make_pair(source, 0, scale=model.scale)
    assert pair.hr is not None
    methods = standard_methods(model)
    files = {name: args.out / f"{_stem(name)}.png" for name in ("low resolution", *methods, "original")}
    store = args.out / "table.csv"
    if not all(file.is_file() for file in files.values()):
        store.unlink(missing_ok=True)  # rows without their pictures are made anew
    args.out.mkdir(parents=True, exist_ok=True)
    small, large = (f"{image.shape[1]}x{image.shape[0]}" for image in (pair.lr, pair.hr))
    print(f"{model}\nA photograph of {small} pixels is enlarged to {large}:")
    rows = evaluate(
        model,
        source,
        methods,
        store=store,
        keep=lambda name, method, image: write_image(files[method], image),
        progress=lambda line: print(f"  {line.split(': ')[-1]} …", flush=True),
    )
    write_image(files["low resolution"], pair.lr)
    write_image(files["original"], pair.hr)
    enlarged = np.repeat(np.repeat(pair.lr, model.scale, 0), model.scale, 1)
    panels = [
        ("low resolution", enlarged),
        *((name, read_image(files[name])) for name in [*methods, "original"]),
    ]
    sheet = np.concatenate([side_by_side(panels[:3]), side_by_side(panels[3:])])
    write_image(args.out / "comparison.png", sheet)
    summary = summarise(rows)
    print("\n" + markdown(summary))
    best = list(summary)[-1]
    ratio = summary[best]["lpips"] / summary["bicubic"]["lpips"]
    speed = summary[best]["seconds"] / next(
        m["seconds"] for name, m in summary.items() if name.startswith("full")
    )
    print(f"{best}: {ratio:.2f} of bicubic's LPIPS, {speed:.2f} of the full chain's time")
    print(f"pictures: {args.out}/comparison.png and the rest beside it")
    return 0


def _stem(label: str) -> str:
    return "-".join(re.findall("[a-z0-9]+", label.lower()))
