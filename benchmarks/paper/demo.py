"""The demo: a bundled photograph, shrunk by the model's scale and enlarged again in several ways.

    python -m benchmarks demo [--model NAME] [--out FOLDER]

Writes the pictures and a labelled comparison, and prints a table of the results, compared with the original.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import numpy as np

from skipdiff_env import load_pretrained
from skipdiff_env.images import demo_photograph, make_pair, open_source, write_image
from skipdiff_env.upscale.compare import side_by_side

from ..measure.metrics import METRICS, score
from ..measure.options import fixed_start
from ..measure.samplers import catalogue, shipped_agent
from ..measure.tables import Table
from .parts import Subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments of the demo."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures")


def run(args: argparse.Namespace) -> int:
    """Enlarge the photograph, write the pictures and print the table."""
    model = load_pretrained(args.model)
    start = fixed_start(model)
    pair = make_pair(open_source([demo_photograph()]), 0, scale=model.scale)
    assert pair.hr is not None
    small, large = (f"{image.shape[1]}x{image.shape[0]}" for image in (pair.lr, pair.hr))
    print(f"{model}\nA photograph of {small} pixels is enlarged to {large}:")
    panels = [("low resolution", np.repeat(np.repeat(pair.lr, model.scale, 0), model.scale, 1))]
    measured: dict[str, dict[str, float]] = {}
    seconds, evaluations = {}, {}
    agent = shipped_agent(args.model)
    subject = Subject(model.scale, model.schedule.steps, start, catalogue(model, start, agent))
    keys = ("bicubic", subject.full, "csa-10", subject.fixed, *subject.of("agent"))
    for key in keys:
        sampler = catalogue(model, start, agent)[key]  # a new one, which remembers nothing
        print(f"  {sampler.label} …", flush=True)
        began = time.perf_counter()
        picture = sampler.one(pair.lr, 0)
        seconds[key], evaluations[key] = time.perf_counter() - began, picture.evaluations
        panels.append((sampler.label, picture.image))
        measured[key] = score([picture.image], pair.hr, pair.lr, model.scale)[0]
    panels.append(("original", pair.hr))
    write_pictures(args.out, panels, pair.lr)
    head = ["", *(metric.label for metric in METRICS), "evaluations", "seconds"]
    lines = [
        [label, *(m.shown(measured[k][m.name]) for m in METRICS), f"{evaluations[k]}", f"{seconds[k]:.2f}"]
        for k, (label, _) in zip(keys, panels[1:-1], strict=True)
    ]
    print("\n" + Table(head, lines).markdown() + "\n")
    ratio = measured[subject.fixed]["lpips"] / measured["bicubic"]["lpips"]
    speed = seconds[subject.fixed] / seconds[subject.full]
    print(f"{panels[4][0]}: {ratio:.2f} of bicubic's LPIPS, {speed:.2f} of the full chain's time")
    print(f"pictures: {args.out}/comparison.png and the rest beside it")
    return 0


def write_pictures(folder: Path, panels: list[tuple[str, np.ndarray]], lr: np.ndarray) -> None:
    """Write every picture alone, the input in its own size, and all of them on one sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, image in panels:
        write_image(folder / f"{_stem(label)}.png", lr if image is panels[0][1] else image)
    half = (len(panels) + 1) // 2
    blank = [("", np.full_like(panels[0][1], 255))] * (len(panels) % 2)
    sheet = np.concatenate([side_by_side(panels[:half]), side_by_side([*panels[half:], *blank])])
    write_image(folder / "comparison.png", sheet)


def _stem(label: str) -> str:
    return "-".join(re.findall("[a-z0-9]+", label.lower()))
