"""Pictures that no model is trained on: agents, starts and plans are chosen on them.

A network knows its own training pictures. What decides well on them decides otherwise than on pictures that
the network has never seen, so every training leaves the same tenth of its pictures out.

Lists of names lie in ``held_out/`` beside this file, a name a line, without folder and suffix.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from ..errors import SkipDiffError

FOLDER = Path(__file__).resolve().parent / "held_out"
PARTS = 10
SEED = 0
CROP = re.compile(r"_(w|c\d+)$")
"""What tells several pictures that were cut from one photograph apart."""


def stem(name: str) -> str:
    """``photo_w`` of ``tar:folder/photo_w.webp``."""
    return PurePath(name.replace(":", "/")).stem


def draw(names: Iterable[str], seed: int = SEED) -> list[str]:
    """A tenth of the pictures, in order; all that were cut from one photograph, or none of them.

    Args:
        names: of files.
        seed: another one, another tenth.
    """

    def part(photograph: str) -> int:
        digest = hashlib.sha256(f"{seed}/{photograph}".encode()).digest()
        return int.from_bytes(digest[:8], "little") % PARTS

    return sorted(s for s in map(stem, names) if part(CROP.sub("", s)) == 0)


def read_list(name: str | Path | None) -> frozenset[str]:
    """The names of a list.

    Args:
        name: of a list that comes with the package, or a text file; None for no names.

    Raises:
        SkipDiffError: if there is no such list.
    """
    if name is None:
        return frozenset()
    shipped = sorted(path.stem for path in FOLDER.glob("*.txt"))
    path = FOLDER / f"{name}.txt" if str(name) in shipped else Path(name).expanduser()
    if not path.is_file():
        raise SkipDiffError(
            f"there is no list {str(name)!r} of held-out pictures: use {', '.join(shipped)}, or a text "
            "file with one name per line"
        )
    return frozenset(line for line in path.read_text(encoding="utf-8").split("\n") if line)
