"""Runs short trainings side by side, each once per set of settings that determine its result."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion.device import pick_device
from skipdiff_env.training import train
from skipdiff_env.training.programs import load_program
from skipdiff_env.training.recipe import Program

from ..measure.tables import RESULTS

SHORT = ("optimiser.warmup=40", "optimiser.ema=0.99", "validation.images=0")
"""Changes for all short trainings, whose few hundred steps would otherwise be warm-up, and their average
mostly the first weights."""
COOLING = 0.25
"""Share of the time in which the learning rate falls."""


def add_short_arguments(parser: argparse.ArgumentParser, minutes: float, runs: str) -> None:
    """Add the arguments of all comparisons of short trainings; ``minutes`` and ``runs`` are the defaults."""
    parser.add_argument("--data", nargs="+", required=True, metavar="PATH", help="training images")
    parser.add_argument("--val", required=True, type=Path, metavar="PATH", help="validation images")
    parser.add_argument(
        "--minutes", type=float, default=minutes, help=f"minutes of training per variant [{minutes:g}]"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes to the recipe for all variants"
    )
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda [cpu]")
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N validation images [all]")
    parser.add_argument("--runs", type=Path, default=Path(runs), help="folder of the models")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")


@dataclass(frozen=True)
class Short:
    """A short training."""

    recipe: str
    """Name or file of the recipe."""
    changes: tuple[str, ...]
    """Changes to the recipe."""
    data: Sequence[str]
    minutes: float
    device: str
    init: str | None = None
    """Model to start from or, for a refiner or a student, to learn from; None: random weights."""
    program: Program = "ddpm"

    @property
    def overrides(self) -> tuple[str, ...]:
        """All changes to the recipe."""
        return (*SHORT, *self.changes)

    def trained(self, name: str, runs: Path) -> Path:
        """Train unless that is done already; return the model folder. An interrupted training begins anew.

        Args:
            name: name of the training in tables.
            runs: folder in which models are kept.

        Raises:
            SkipDiffError: if it was stopped before its end.
        """
        slug = "-".join(re.findall("[a-z0-9]+", name.lower()))
        folder = runs / f"{self.minutes:g}-minutes"
        done = folder / f"{slug}-{self._digest()}"
        if not done.is_dir():
            out = runs / "unfinished"
            shutil.rmtree(out, ignore_errors=True)
            result = train(
                self.recipe, self.data, out, device=self.device, max_minutes=self.minutes,
                cooldown_minutes=COOLING * self.minutes, overrides=self.overrides, init=self.init,
                program=self.program,
            )  # fmt: skip
            if result.reason != "cool-down":
                raise SkipDiffError(
                    f"training {name!r} ended early ({result.reason}): start the command again"
                )
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".{done.name}"
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(result.model, part)
            part.rename(done)
        return done

    def _digest(self) -> str:
        """Return a digest of all that determines the training: the changed recipe, names and sizes of the
        data, the device and the time."""
        cuda = pick_device(self.device).type == "cuda"
        recipe = asdict(load_program(self.recipe, self.program, self.init, cuda, self.overrides))
        recipe["init"] = load_pretrained(self.init, "cpu").hash if self.init else None
        files = [file for path in map(Path, self.data) for file in (sorted(path.rglob("*")) or [path])]
        data = [(file.name, file.stat().st_size) for file in files if file.is_file()]
        decisive = json.dumps([recipe, data, cuda, self.minutes, COOLING], sort_keys=True, default=str)
        return hashlib.sha256(decisive.encode()).hexdigest()[:8]
