"""Pictures that no model is trained on, for choosing agents, starts and plans.

A network knows its training pictures, so what is best on them need not be best on pictures that the network
has never seen. The recipes of the shipped models therefore leave out a fixed tenth of their pictures.

The lists are in ``training/held_out/``, with one name per line, without folder and suffix.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from ...errors import SkipDiffError

FOLDER = Path(__file__).resolve().parents[1] / "held_out"
PARTS = 10
SEED = 0
CROP = re.compile(r"_(w|c\d+)$")
"""The suffix that distinguishes pictures cut from one photograph."""


def stem(name: str) -> str:
    """Return the name without folder and suffix: ``photo_w`` for ``tar:folder/photo_w.webp``."""
    return PurePath(name.replace(":", "/")).stem


def draw(names: Iterable[str], seed: int = SEED) -> list[str]:
    """Draw about a tenth of the pictures, sorted; of those cut from one photograph, either all or none.

    Args:
        names: names of files.
        seed: seed that determines which tenth is drawn.
    """

    def part(photograph: str) -> int:
        digest = hashlib.sha256(f"{seed}/{photograph}".encode()).digest()
        return int.from_bytes(digest[:8], "little") % PARTS

    return sorted(s for s in map(stem, names) if part(CROP.sub("", s)) == 0)


def read_list(name: str | Path | None) -> frozenset[str]:
    """Read the names of a list.

    Args:
        name: name of a shipped list, or a text file; None for no names.

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
