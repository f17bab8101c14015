"""Trains the first agent of the manual with the manual's own commands, and measures quality and time.

    python -m benchmarks road [--train OPTION ...]

Runs ``skipdiff-agent train`` without existing recordings, and then ``skipdiff-agent evaluate``, each in a
process of its own. Writes ``benchmarks/results/agents/<model>/road.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from skipdiff_agents.settings import RUN
from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.training.distributed import World
from skipdiff_env.training.provenance import describe_hardware

from ..measure.tables import RESULTS, Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line arguments."""
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")
    parser.add_argument(
        "--train", nargs=argparse.REMAINDER, default=[], metavar="OPTION",
        help="options of skipdiff-agent train; must come last [none]",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Train the agent, evaluate it and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        out, record = Path(folder) / "agent", Path(folder) / "recordings"
        said, learning = _timed(["train", "--out", str(out), "--record", str(record), *args.train])
        table, judging = _timed(["evaluate", str(out)])
        model = load_pretrained(json.loads((out / RUN).read_text(encoding="utf-8"))["command"]["model"])
    last = next((line for line in said.splitlines() if line.startswith("held out")), "")
    held_out = f"At the end of the training: {last}. " if last else ""  # empty without recordings
    asked = shlex.join(
        ["python", "-m", "benchmarks", "road", *(["--train", *args.train] if args.train else [])]
    )
    report = Report(
        "road",
        f"The road of the manual on {model.name}",
        f"`{shlex.join(['skipdiff-agent', 'train', *args.train])}` took {learning:.1f} minutes, recording "
        f"included, and `skipdiff-agent evaluate` {judging:.1f}, on {_cores()} cores: "
        f"{describe_hardware(model.device, World())}. "
        f"Model `{model.hash}`. {held_out}The table has new crops and noise "
        f"of the pictures that were held out; differences are to the agent. Made by `{asked}`.",
        [table.strip()],
    )
    report.write(args.out / "agents" / model.name)
    return 0


def _timed(words: Sequence[str]) -> tuple[str, float]:
    """Run a command of ``skipdiff-agent``; return what it prints, and the minutes that it takes.

    Raises:
        SkipDiffError: if it fails.
    """
    began = time.monotonic()
    command = [sys.executable, "-m", "skipdiff_agents.cli", *words]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise SkipDiffError(f"skipdiff-agent {words[0]} ended with status {ran.returncode}: see above")
    return ran.stdout, (time.monotonic() - began) / 60


def _cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
