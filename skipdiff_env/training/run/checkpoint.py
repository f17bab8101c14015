"""Checkpoints, which are written whole or not at all. The newest two are kept; damaged ones are skipped.

They hold only tensors and plain values and are read with torch's ``weights_only``. Opening somebody else's
checkpoint therefore runs no code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...errors import SkipDiffError, first_line
from ...files import written

FOLDER = "checkpoints"
KEEP = 2


def checkpoint_files(run: Path) -> list[Path]:
    """List the checkpoints of a run's folder, newest first."""
    return sorted((run / FOLDER).glob("step-*.pt"), reverse=True)


def save_checkpoint(run: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the checkpoint of a step, and then delete all others except the one before it.

    Later ones are deleted too: they are damaged, or the run has gone back to an earlier one.
    """
    path = run / FOLDER / f"step-{step:09d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in path.parent.glob(".*.part"):
        part.unlink()  # left by a run that was killed while writing; only this run writes here
    with written(path) as file:
        torch.save(state, file)
    files = checkpoint_files(run)
    here = files.index(path)
    for other in files[:here] + files[here + KEEP :]:
        other.unlink(missing_ok=True)
    return path


def load_newest(run: Path, say: Callable[[str], None]) -> tuple[dict[str, Any], Path]:
    """Load the newest checkpoint that can be read onto the CPU; return it and its file.

    Args:
        run: a run's folder.
        say: function that is called with a warning about each unreadable checkpoint.

    Raises:
        SkipDiffError: if there is none.
    """
    files = checkpoint_files(run)
    for path in files:
        try:
            return torch.load(path, map_location="cpu", weights_only=True), path
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            reason = first_line(error)
            say(f"warning: {path} is damaged ({reason}): falling back to the checkpoint before it")
    what = "none of its checkpoints can be read" if files else "it holds no checkpoint"
    raise SkipDiffError(f"cannot resume {run}: {what}; leave out --resume to start again in another folder")


def delete_checkpoints(run: Path) -> None:
    """Remove all checkpoints of a finished branch."""
    for path in checkpoint_files(run):
        path.unlink(missing_ok=True)
