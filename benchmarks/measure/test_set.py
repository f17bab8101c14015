"""Rebuilds a test set from your own copies of the data sets, whose pictures may not be redistributed.

    python -m benchmarks test-set imagenet256_test --copy IMAGENET_SAMPLE_FOLDER --out imagenet256_test/

``benchmarks/images/<set>.csv`` lists, for every picture, its name, the SHA-256 of its pixels, how it was cut,
and the name of its original file if that is known. Files are found by this name, or by their content if there
is no name. Pictures that do not have the listed pixels are reported.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from skipdiff_env import SkipDiffError
from skipdiff_env.images import crop, read_image, write_image
from skipdiff_env.images.photo import is_image_name

LISTS = Path(__file__).parents[1] / "images"


@dataclass(frozen=True)
class Wanted:
    """A picture of a test set."""

    image: str
    sha256: str
    cut: str
    """``square N``: the centre square, shrunk to N pixels by Pillow's Lanczos; ``centre N``: a crop."""
    source: str
    """Pattern of the name of the original file; empty if it cannot be found by name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    names = sorted(file.stem for file in LISTS.glob("*.csv"))
    parser.add_argument("set", choices=names, help="the test set")
    parser.add_argument(
        "--copy", type=Path, nargs="+", required=True, help="folders of the original pictures"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the test pictures, as PNG")


def run(args: argparse.Namespace) -> int:
    """Write every picture that is found; return 1 if some are missing or have other pixels."""
    wanted = read_list(LISTS / f"{args.set}.csv")
    missing, differing = rebuild(wanted, args.copy, args.out)
    print(f"{len(wanted) - len(missing)} of {len(wanted)} pictures written to {args.out}")
    for what, names in (("not found", missing), ("other pixels than listed", differing)):
        for name in names:
            print(f"{what}: {name}", file=sys.stderr)
    return int(bool(missing or differing))


def read_list(path: Path) -> list[Wanted]:
    """Read the list of the pictures of a test set."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Wanted(**record) for record in csv.DictReader(file)]


def rebuild(wanted: Sequence[Wanted], folders: Sequence[Path], out: Path) -> tuple[list[str], list[str]]:
    """Write the pictures whose originals are found.

    Args:
        wanted: the pictures.
        folders: folders that hold the originals, at any depth.
        out: folder to write to, which is made if it is missing.

    Returns:
        The names that were not found, and the names that were written with other pixels than listed.
    """
    files = [f for folder in folders for f in sorted(folder.rglob("*")) if is_image_name(f.name)]
    if not files:
        raise SkipDiffError(f"no image files in {', '.join(map(str, folders))}: give the folder of your copy")
    out.mkdir(parents=True, exist_ok=True)
    missing, differing = [], []
    unnamed = {item.sha256: item for item in wanted if not item.source}
    for item in (item for item in wanted if item.source):
        found = None
        for file in (f for f in files if fnmatch.fnmatch(f.name, item.source)):
            found = cut(file, item.cut)
            if found is not None and pixel_hash(found) == item.sha256:
                break
        if found is None:
            missing.append(item.image)
            continue
        if pixel_hash(found) != item.sha256:
            differing.append(item.image)
        write_image(out / item.image, found)
    for digest, found in _pictures(files, sorted({item.cut for item in unnamed.values()})):
        if digest in unnamed:
            write_image(out / unnamed.pop(digest).image, found)
        if not unnamed:
            break
    return missing + [item.image for item in unnamed.values()], differing


def _pictures(files: Sequence[Path], cuts: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    for file in files:
        for how in cuts:
            found = cut(file, how)
            if found is not None:
                yield pixel_hash(found), found


def cut(file: Path, how: str) -> np.ndarray | None:
    """Cut the test picture, uint8 (N, N, 3), see :attr:`Wanted.cut`; None if the file cannot give one."""
    kind, _, side = how.partition(" ")
    size = int(side)
    try:
        image = read_image(file)
    except SkipDiffError:
        return None
    if min(image.shape[:2]) < size:
        return None
    if kind == "centre":
        return crop(image, size)
    square = Image.fromarray(crop(image, min(image.shape[:2])))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def pixel_hash(image: np.ndarray) -> str:
    """Return the SHA-256 of the pixels of a uint8 (H, W, 3) picture, row by row, without its size."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
