"""Writes the pages that link tables and figures."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from skipdiff_env._version import __version__
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.files import write_atomically
from skipdiff_env.images import ImageSource

from ..measure.metrics import METRICS
from ..measure.records import csv_text, packed_file
from ..measure.results import FEWEST
from ..measure.tables import read_contents, write_contents
from ..measure.test_set import pixel_hash
from .cost import hardware

PACKAGES = ("torch", "diffusers", "pyiqa", "scikit-image", "numpy", "scipy", "matplotlib")
TITLES = {
    "table1": "Table 1: quality",
    "table2": "Table 2: quality",
    "table3": "Table 3: cost",
    "table4": "Table 4: CSA and FSR",
    "table5": "Table 5: manual starts",
    "table6": "Table 6: the reward",
    "ablation": "Ablation",
    "figure1": "Figure 1: CSA alone over S",
    "figure5": "Figure 5: perception and distortion",
    "figure6": "Figure 6: latents of the full chain and of CSA",
    "samples": "Samples",
    "rivals": "Samples of CCSR and AddSR",
    "starts": "Starts that the optimum and the agent choose",
    "stability": "Stability over noise seeds",
    "refiner": "The refiner's strength",
}
"""Titles of the tables and figures that a page may have, in order."""
OF_THE_MODEL = {
    "speed": "Running times",
    "recipes": "Variants of the recipe",
    "variants": "Networks that predict something else",
    "companions": "Parts of CCSR's and AddSR's trainings",
    "tiling_seams": "Tiles: seams",
    "tiling_memory": "Tiles: memory",
    "tiling_largest": "Tiles: memory of the largest",
}
"""Pages that may lie next to the folders of image sets."""


@dataclass(frozen=True)
class Run:
    """The run that a page describes."""

    model: FrozenModel
    images: str
    count: int
    seeds: int
    start: int
    agents: dict[str, Path]
    weights: dict[str, str]
    """Hashes of rivals and variants, by name."""
    command: str
    rows: str
    """Path of the file with all rows, relative to the folder of the page."""
    computed: Mapping[str, int]
    """Number of rows by precision and device, see :attr:`.Results.computed`."""
    quick: bool = False


def write_images(file: Path, source: ImageSource, count: int) -> None:
    """Write ``images.csv``: the test images with name, size and hash of their pixels.

    A longer list that begins with these images is kept, since tables of an earlier run may use all of it.
    """
    lines = []
    for index in range(count):
        image = source[index]
        lines.append([Path(source.name(index)).name, image.shape[1], image.shape[0], pixel_hash(image)])
    text = csv_text([["image", "width", "height", "sha256"], *lines])
    if not (file.is_file() and file.read_text(encoding="utf-8").startswith(text)):
        write_atomically(file, text.encode())


def write_page(folder: Path, run: Run, sentences: Sequence[str] | None) -> None:
    """Write ``README.md`` of a folder of results.

    Args:
        folder: folder of the results.
        run: the run to describe.
        sentences: sentences on the paper's claims; None, if the run made no rows, keeps those of the page.
    """
    if sentences is not None or "facts" not in read_contents(folder):
        title = f"{run.model.name} on {run.images}"
        write_contents(
            folder,
            title=title,
            quick=run.quick,
            facts=facts(run),
            claims=list(sentences or []),
            rows=run.rows,
        )
    contents = read_contents(folder)
    text = head(contents) + (
        "\n## Tables and figures\n\nEach says what it rests on, and the command that made it; an older one "
        "may rest on other images than the sentences above.\n\n"
    )
    for name, title in TITLES.items():
        text += links(folder, name, title)
    rows = Path(contents["rows"])
    stored = [file for file in (rows, packed_file(rows)) if (folder / file).is_file()]
    text += "".join(f"- [Every row]({file.as_posix()})\n" for file in stored) + "- [The images](images.csv)\n"
    for name, title in TITLES.items():
        for file in files(folder, name, "png", "webp"):
            text += f"\n![{title}]({file.name})\n"
    write_atomically(folder / "README.md", text.encode())


def head(contents: Mapping[str, Any]) -> str:
    """Return what a page says about the rows."""
    text = f"# {contents['title']}\n\n"
    if contents["quick"]:
        text += "A quick look: too few images to tell samplers apart.\n\n"
    text += "\n".join(f"- {fact}" for fact in contents["facts"]) + "\n"
    if contents["claims"]:
        text += "\n## What the paper claims, and what held here\n\n"
        text += (
            "From all stored rows on the images and seeds above. Intervals are 95 % bootstrap intervals over "
            'images, of paired differences where two samplers are compared; "yes", "no", "better" and '
            f'"worse" are said where they exclude zero and there are {FEWEST} images or more (fewer '
            "evaluations are counted).\n\n"
        )
        text += "\n".join(f"- {sentence}" for sentence in contents["claims"]) + "\n"
    return text


def files(folder: Path, name: str, *suffixes: str) -> list[Path]:
    """Return the existing files of a table or figure, in the order of the suffixes."""
    return [file for suffix in suffixes if (file := folder / f"{name}.{suffix}").is_file()]


def links(folder: Path, name: str, title: str) -> str:
    """Return a line with the files and the data basis of a table or figure; empty if there are no files."""
    there = files(folder, name, "md", "csv", "png", "webp")
    if not there:
        return ""
    basis = read_contents(folder).get("bases", {}).get(name)
    rests = f" ({basis})" if basis else ""
    return f"- {title}{rests}: " + ", ".join(f"[{file.suffix[1:]}]({file.name})" for file in there) + "\n"


def facts(run: Run) -> list[str]:
    """State the machine, the versions, the seeds and the number of images."""
    model = run.model
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    agents = ", ".join(
        f"{name} (`{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}`)" for name, file in run.agents.items()
    )
    weights = ", ".join(f"{name} (`{found}`)" for name, found in run.weights.items())
    rows = ", ".join(f"{count} in {what.replace(' ', ' on ')}" for what, count in run.computed.items())
    return [
        f"{run.count} image{'s' * (run.count != 1)}, noise seeds {', '.join(map(str, range(run.seeds)))}",
        f"model `{model.hash}`, {model.config.prediction}-prediction of the {model.config.target}, "
        f"T = {model.schedule.steps}, fixed start {run.start}",
        f"agents: {agents or 'none, so SkipDiff stands for the fixed start'}",
        *([f"other weights: {weights}"] if weights else []),
        f"rows by precision and device: {rows or 'none'}; this page was made on {hardware(model)}, "
        f"{torch.get_num_threads()} threads",
        f"skipdiff {__version__}, Python {platform.python_version()}, {versions}",
        f"made by `{run.command}`",
        "; ".join(metric.note for metric in METRICS if metric.note)
        + "; evaluations: network calls of an image on its own",
    ]


def write_index(folder: Path, name: str, command: str) -> None:
    """Write ``README.md`` of a model, with the pages of its image sets; ``command`` is the calling one."""
    text = f"# Results of {name}\n\nEach page names its command; this list was made by `{command}`.\n\n"
    for page in sorted(folder.glob("*/README.md")):
        facts = read_contents(page.parent).get("facts", [])
        text += f"- {': '.join([f'[{page.parent.name}]({page.parent.name}/README.md)', *facts[:1]])}\n"
    for page in sorted(folder.glob("*/inputs.md")):
        text += f"- [{page.parent.name}, clean and as JPEGs]({page.parent.name}/inputs.md)\n"
    for page in sorted(folder.glob("*/refiner.md")):
        text += f"- [{page.parent.name}, strength of the refiner]({page.parent.name}/refiner.md)\n"
    for extra, title in OF_THE_MODEL.items():
        text += links(folder, extra, title)
    write_atomically(folder / "README.md", text.encode())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
