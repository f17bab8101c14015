"""Times ``skipdiff upscale`` on the demo's photograph, here and in another commit's worktree, by turns."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from skipdiff_env.images import cut_to_multiple, demo_photograph, shrink, write_image

COMMAND = "import sys; from skipdiff_env.cli import main; sys.exit(main(sys.argv[1:]))"
HERE = Path(__file__).parents[2]


def measure(model: str, beside: Path, repeats: int) -> dict[str, list[float]]:
    """Time whole processes with default settings; return seconds ``here`` and ``beside``, by round.

    Args:
        model: name of a shipped model; each commit uses its own version of it.
        beside: worktree of the other commit.
        repeats: number of rounds.
    """
    found: dict[str, list[float]] = {"here": [], "beside": []}
    with tempfile.TemporaryDirectory() as folder:
        photograph, result = Path(folder) / "in.png", Path(folder) / "out.png"
        write_image(photograph, shrink(cut_to_multiple(demo_photograph(), 4), 4))
        for _ in range(repeats + 1):  # the first round fills the file cache
            for side, tree in (("here", HERE), ("beside", beside)):
                arguments = ["upscale", str(photograph), "-o", str(result), "-m", model, "--force", "-q"]
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-c", COMMAND, *arguments],
                    check=True,
                    cwd=tree,
                    env={**os.environ, "PYTHONPATH": str(tree)},
                )
                found[side].append(time.perf_counter() - began)
    return {side: seconds[1:] for side, seconds in found.items()}


def ratio(found: dict[str, list[float]]) -> float:
    """Return the median over rounds of the seconds here divided by those beside."""
    return statistics.median(ours / theirs for ours, theirs in zip(*found.values(), strict=True))
