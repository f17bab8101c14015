"""Options that several commands share: model, images, policies and rivals."""

from __future__ import annotations

import argparse
import io
import shlex
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion import FrozenModel, available_models
from skipdiff_env.images import ImageSource, open_source
from skipdiff_env.policies.base import COARSE_STEPS, FixedStart, usual_start

from .family import Folder
from .samplers import AGENT_PAIRS, shipped_agent
from .tables import RESULTS

BUNDLED = "bundled"
"""Name of the result folder of the bundled photographs."""


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that ``paper``, ``plans`` and ``stability`` take."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    add_setting(parser)
    parser.add_argument("--only", metavar="PREFIX", help="use only images whose names begin with PREFIX")
    parser.add_argument("--jpeg", type=int, metavar="Q", help="save the LR inputs as JPEG of quality Q")
    parser.add_argument("--start", type=int, help="fixed start with 10 coarse steps [that of the model]")
    parser.add_argument(
        "--agent", action="append", default=[], metavar="NAME=FILE",
        help=f"policy file for one of {', '.join(AGENT_PAIRS)} [the agent of the model, by its reward]",
    )  # fmt: skip
    parser.add_argument("--ccsr", type=Path, metavar="FOLDER", help="CCSR's model [the shipped one]")
    parser.add_argument("--addsr", type=Path, metavar="FOLDER", help="AddSR's student [the shipped one]")


def add_setting(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for the images, the device, the precision and the results folder."""
    parser.add_argument("--images", type=Path, help="folder or tar of HR images [the bundled ones]")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N images [all]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="precision of the network [bfloat16 on CUDA, else float32]",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")


def open_images(args: argparse.Namespace) -> ImageSource:
    """Open the images that ``--images``, ``--only`` and ``--jpeg`` name.

    Raises:
        SkipDiffError: if there are none, or the quality is out of range.
    """
    source = open_source(args.images)
    if args.only:
        chosen = [i for i in range(len(source)) if Path(source.name(i)).name.startswith(args.only)]
        if not chosen:
            raise SkipDiffError(
                f"--only {args.only}: no image's name begins with that; the first is named "
                + Path(source.name(0)).name
            )
        source = picked(source, chosen)
    return with_jpeg(source, args.jpeg)


def picked(source: ImageSource, numbers: Iterable[int]) -> ImageSource:
    """Return the images with these numbers, without degradations."""
    return ImageSource([(source.name(i), partial(source.__getitem__, i)) for i in numbers])


def with_jpeg(source: ImageSource, quality: int | None) -> ImageSource:
    """Return the same originals, with inputs that are saved as JPEG if a quality is given.

    Raises:
        SkipDiffError: if the quality is out of range.
    """
    if quality is None:
        return source
    if not 1 <= quality <= 100:
        raise SkipDiffError(f"--jpeg {quality}: the quality must be from 1 to 100")
    return source.degraded(partial(saved_as_jpeg, quality=quality))


def saved_as_jpeg(lr: np.ndarray, index: int, quality: int) -> np.ndarray:
    """Save an image, uint8 (h, w, 3), as JPEG with Pillow's usual chroma subsampling, and read it again."""
    file = io.BytesIO()
    Image.fromarray(lr).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def rows_file(args: argparse.Namespace, model: FrozenModel) -> Path:
    """Return the file of the rows of these images, whichever are used and however their inputs are saved."""
    stem = args.images.stem if args.images else BUNDLED
    return Path(args.out) / model.name / stem / "rows.csv"


def folder_name(args: argparse.Namespace) -> str:
    """Return the name of the results folder of these images, such as ``faces128_test-ffhq-q75``."""
    name = args.images.stem if args.images else BUNDLED
    name += f"-{args.only.strip('-_.')}" if args.only else ""
    return name + (f"-q{args.jpeg}" if args.jpeg is not None else "")


def said(args: argparse.Namespace) -> str:
    """Describe the images for a page's title; :func:`folder_name` is short for this."""
    text = args.images.stem if args.images else "the bundled photographs"
    text += f", names that begin with {args.only}" if args.only else ""
    return text + (f", inputs saved as JPEG of quality {args.jpeg}" if args.jpeg is not None else "")


def fixed_start(model: FrozenModel, asked: int | None = None) -> int:
    """Return the start with 10 coarse steps that was asked for, or the model's own."""
    start = usual_start(model.schedule, COARSE_STEPS, own=model.start) if asked is None else asked
    return FixedStart(start, model.schedule.stride(COARSE_STEPS)).start


def trained_rivals(args: argparse.Namespace) -> dict[str, Folder]:
    """Return ``--ccsr`` and ``--addsr`` by name; by default, those that ship under the model's name."""
    found: dict[str, Folder] = {}
    for kind, given in (("ccsr", args.ccsr), ("addsr", args.addsr)):
        usual = f"{kind}-{args.model}"
        if given or usual in available_models():
            found[kind] = given or usual
    return found


def network_dtype(args: argparse.Namespace) -> torch.dtype | None:
    """Return the type of ``--dtype``; None: the default of the device."""
    return getattr(torch, args.dtype) if args.dtype else None


def named_agents(args: argparse.Namespace) -> dict[str, Path]:
    """Return policy files by name: those given, and the model's own.

    Raises:
        SkipDiffError: if a name is unknown, or a file does not exist.
    """
    agents = shipped_agent(args.model)
    for given in args.agent:
        name, _, file = given.partition("=")
        if name not in AGENT_PAIRS or not Path(file).is_file():
            raise SkipDiffError(
                f"--agent {given}: give NAME=FILE with a file that exists and one of the names "
                + ", ".join(AGENT_PAIRS)
            )
        agents[name] = Path(file)
    return agents


def command_line(
    name: str, args: argparse.Namespace, add_arguments: Callable[[argparse.ArgumentParser], None]
) -> str:
    """Return the command with every option that is not the default; of paths, the last part.

    The model is always included; the folders of results and of intermediate files are not.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    words = ["python", "-m", "benchmarks", name]
    for action in parser._actions:
        value = getattr(args, action.dest)
        if action.dest in ("out", "runs") or (value == action.default and action.dest != "model"):
            continue
        flag, values = action.option_strings[0], value if isinstance(value, list) else [value]
        if value is True:
            words.append(flag)
        elif isinstance(action, argparse._AppendAction):
            words += [word for each in values for word in (flag, _last_part(each))]
        else:
            words += [flag, *map(_last_part, values)]
    return shlex.join(words)


def made_by(
    name: str, args: argparse.Namespace, add_arguments: Callable[[argparse.ArgumentParser], None]
) -> str:
    """Return the sentence of a page that names its command, see :func:`command_line`."""
    return f"Made by `{command_line(name, args, add_arguments)}`."


def _last_part(value: object) -> str:
    """Shorten ``DIR/x.tar`` to ``x.tar``, and ``NIQE=DIR/a.onnx`` to ``NIQE=a.onnx``."""
    before, sign, path = str(value).rpartition("=")
    return before + sign + (Path(path).name or path)
