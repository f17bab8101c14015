"""The pages that tie tables and figures together."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from skipdiff_env._version import __version__
from skipdiff_env.diffusion import FrozenModel
from skipdiff_env.diffusion.pretrained import write_atomically
from skipdiff_env.images import ImageSource

from ..test_set import pixel_hash
from .cost import hardware
from .results import FEWEST
from .tables import written

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
    "starts": "Starts that the optimum and the agent choose",
}
"""What may be there, in order."""


@dataclass(frozen=True)
class Run:
    """What was run, as the page says it."""

    model: FrozenModel
    images: str
    count: int
    seeds: int
    start: int
    agents: dict[str, Path]
    command: str
    quick: bool = False


def write_images(file: Path, source: ImageSource, count: int) -> None:
    """``images.csv``: the test images by name, size and hash of their pixels."""
    lines = []
    for index in range(count):
        image = source[index]
        lines.append([Path(source.name(index)).name, image.shape[1], image.shape[0], pixel_hash(image)])
    write_atomically(file, written(["image", "width", "height", "sha256"], lines).encode())


def write_page(folder: Path, run: Run, sentences: Sequence[str]) -> None:
    """``README.md`` of a folder of results."""
    text = f"# {run.model.name} on {run.images}\n\n"
    if run.quick:
        text += "A quick look: too few images to tell samplers apart.\n\n"
    text += "\n".join(f"- {fact}" for fact in facts(run)) + "\n"
    if sentences:
        text += "\n## What the paper claims, and what held here\n\n"
        text += (
            'Intervals are 95 % bootstrap intervals over images of paired differences; "yes" and "no" are '
        )
        text += f"said where they exclude zero and there are {FEWEST} images or more.\n\n"
        text += "\n".join(f"- {sentence}" for sentence in sentences) + "\n"
    text += "\n## Tables and figures\n\n"
    for name, title in TITLES.items():
        files = [folder / f"{name}.{suffix}" for suffix in ("md", "csv", "png")]
        there = [file for file in files if file.is_file()]
        if there:
            links = ", ".join(f"[{file.suffix[1:]}]({file.name})" for file in there)
            text += f"- {title}: {links}\n"
    text += "- [Every row](rows.csv), [the images](images.csv)\n"
    for name, title in TITLES.items():
        if (folder / f"{name}.png").is_file():
            text += f"\n![{title}]({name}.png)\n"
    write_atomically(folder / "README.md", text.encode())


def facts(run: Run) -> list[str]:
    """Machine, versions, seeds, number of images."""
    model = run.model
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    agents = ", ".join(
        f"{name} (`{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}`)" for name, file in run.agents.items()
    )
    return [
        f"{run.count} images, noise seeds {', '.join(map(str, range(run.seeds)))}",
        f"model `{model.hash}`, {model.config.prediction}-prediction of the {model.config.target}, "
        f"T = {model.schedule.steps}, fixed start {run.start}",
        f"agents: {agents or 'none, so SkipDiff stands for the fixed start'}",
        f"computed in {str(model.dtype).removeprefix('torch.')} on {hardware(model)}, "
        f"{torch.get_num_threads()} threads",
        f"skipdiff {__version__}, Python {platform.python_version()}, {versions}",
        f"made by `{run.command}`",
        "PSNR and SSIM on luma (BT.601); NIQE as pyiqa computes it, which reads whole 96-pixel blocks from "
        "the top left, NIQE-full the mean over crops anchored in all corners; LPIPS with AlexNet; LR "
        "consistency: PSNR of the result, shrunk again, against its input; evaluations: network calls of an "
        "image on its own",
    ]


def write_index(folder: Path, name: str) -> None:
    """``README.md`` of a model: the pages of its image sets."""
    text = f"# Results of {name}\n\n"
    for page in sorted(folder.glob("*/README.md")):
        lines = page.read_text(encoding="utf-8").splitlines()
        first = next((line[2:] for line in lines if line.startswith("- ")), "")
        text += f"- [{page.parent.name}]({page.parent.name}/README.md): {first}\n"
    for extra in ("speed.md",):
        if (folder / extra).is_file():
            text += f"- [{extra}]({extra})\n"
    write_atomically(folder / "README.md", text.encode())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"
