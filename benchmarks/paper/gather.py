"""Gathers freely licensed photographs for training, from Debian's packages of wallpapers.

    python -m benchmarks photographs [--out photographs]

It works on Debian and Ubuntu, by ``apt-get download``, which needs no root rights and installs nothing. The
bundled photographs are added. All have a short side of 256 pixels, and ``SOURCES.md`` names the author, the
licence and the source of each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.files import write_atomically
from skipdiff_env.images import PHOTOGRAPHS, RGB8, Photograph, read_image, write_image
from skipdiff_env.images.bundled import shrunk

from ..measure.tables import Table

MATE, KDE = "mate-backgrounds", "plasma-workspace-wallpapers"
NATURE = {
    "Aqua": "Charles Barbin",
    "Blinds": "Lennart Poettering, Andrea Cimitan",
    "Dune": "Marco Cogoni, Hylke Bons",
    "FreshFlower": "Jens Ansorg",
    "Garden": "Charles Barbin",
    "GreenMeadow": "Timothy Schellhase, Lapo Calamandrei",
    "LadyBird": "Charles Barbin",
    "RainDrops": "blackcombwhistler07",
    "Storm": "Sergey Nazarov",
    "TwoWings": "Charles Barbin, Hylke Bons",
    "Wood": "Jean-François Fortin Tam",
    "YellowFlower": "Charles Barbin",
}
"""MATE's photographs and their authors; the licence is that of the package, GPL-2+."""
WALLPAPERS = (
    "BytheWater", "ColorfulCups", "EveningGlow", "FallenLeaf", "Grey", "Kite", "OneStandsOut", "Path",
)  # fmt: skip
"""KDE's photographs, whose files name the authors. Its other wallpapers are drawn, or show only sky."""


@dataclass(frozen=True)
class Found:
    """A photograph and its source."""

    name: str
    picture: RGB8
    author: str
    licence: str
    source: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument(
        "--out", type=Path, default=Path("photographs"), help="folder to write to [photographs]"
    )


def run(args: argparse.Namespace) -> int:
    """Gather the photographs."""
    with tempfile.TemporaryDirectory() as folder:
        found = [Found(p.name, p.read_small(), p.author, p.licence, _source(p)) for p in PHOTOGRAPHS]
        found += [*mates(unpack(MATE, Path(folder))), *kdes(unpack(KDE, Path(folder)))]
        args.out.mkdir(parents=True, exist_ok=True)
        for photo in found:
            write_image(args.out / f"{photo.name}.png", photo.picture)
    rows = [[f"{p.name}.png", p.author, p.licence, p.source] for p in found]
    table = Table(["file", "author", "licence", "source"], rows).markdown()
    write_atomically(args.out / "SOURCES.md", f"# Sources\n\n{table}\n".encode())
    print(f"{args.out}: {len(found)} photographs; SOURCES.md names their authors and licences")
    return 0


def unpack(package: str, folder: Path) -> Path:
    """Unpack the files of a Debian package into a folder of its own.

    Raises:
        SkipDiffError: if it is not available.
    """
    into = folder / package
    into.mkdir()
    for command in (["apt-get", "download", package], ["sh", "-c", "dpkg-deb -x *.deb ."]):
        try:
            done = subprocess.run(command, cwd=into, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise SkipDiffError(f"{command[0]} is missing: this needs Debian or Ubuntu") from None
        if done.returncode:
            told = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise SkipDiffError(f"{package} cannot be downloaded ({told}): run apt-get update first")
    return into / "usr" / "share"


def mates(share: Path) -> Iterator[Found]:
    """Yield those of MATE's photographs that this version of the package holds."""
    for name, author in NATURE.items():
        file = share / "backgrounds" / "mate" / "nature" / f"{name}.jpg"
        if file.is_file():
            yield Found(name, shrunk(read_image(file)), author, "GPL-2+", f"Debian's {MATE}")


def kdes(share: Path) -> Iterator[Found]:
    """Yield those of KDE's photographs that this version of the package holds."""
    for name in WALLPAPERS:
        folder = share / "wallpapers" / name
        if not (folder / "metadata.json").is_file():
            continue
        about = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))["KPlugin"]
        author = ", ".join(person["Name"] for person in about["Authors"])
        file = max((folder / "contents" / "images").iterdir(), key=lambda file: file.stat().st_size)
        yield Found(name, shrunk(read_image(file)), author, about["License"], f"Debian's {KDE}")


def _source(photo: Photograph) -> str:
    return photo.package if photo.source == photo.package else f"{photo.package}: {photo.source}"
