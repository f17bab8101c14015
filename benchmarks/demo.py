"""The demo: one bundled photograph, shrunk four times and enlarged again in every way there is.

    python -m benchmarks demo [--model NAME] [--out FOLDER]

Writes the pictures and a labelled comparison, and prints a table against the original.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from skipdiff_env import load_pretrained
from skipdiff_env.images import demo_photograph, make_pair, open_source, write_image
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
    args.out.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, np.ndarray] = {"original": pair.hr}
    small, large = (f"{image.shape[1]}x{image.shape[0]}" for image in (pair.lr, pair.hr))
    print(f"{model}\nA photograph of {small} pixels is enlarged to {large}:")
    rows = evaluate(
        model,
        source,
        standard_methods(model),
        keep=lambda name, method, image: pictures.update({method: image}),
        progress=lambda line: print(f"  {line.split(': ')[-1]} …", flush=True),
    )
    write_image(args.out / "low-resolution.png", pair.lr)
    for label, picture in pictures.items():
        stem = "".join(c if c.isalnum() else "-" for c in label.lower())
        write_image(args.out / f"{'-'.join(filter(None, stem.split('-')))}.png", picture)
    panels = list(pictures.items())
    nearest = np.repeat(np.repeat(pair.lr, model.scale, 0), model.scale, 1)
    rows_of_three = [("low resolution", nearest), panels[1], panels[2]], [panels[3], panels[4], panels[0]]
    sheet = np.concatenate([side_by_side(row) for row in rows_of_three])
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
