"""The record of a run: ``log.jsonl``, the curves, TensorBoard if it is installed, and a progress line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import visible
from ...files import write_atomically
from ...progress import duration
from .plots import curves, write_png

LOG, CURVES = "log.jsonl", "curves.png"
PLOTTED = ("loss", "val_loss", "psnr", "lpips", "niqe")
QUIET_SECONDS = 30.0
"""Seconds between progress lines if these are not overwritten, as when they go to a file."""


def say(message: str) -> None:
    """Print a message to standard error."""
    print(visible(message), file=sys.stderr, flush=True)


class RunLog:
    """Writes the record of a run; existing lines of steps after ``step`` are dropped.

    Args:
        folder: the run's folder.
        step: the step that the run continues from.
        say: function that is called with a message if TensorBoard is missing.
    """

    def __init__(self, folder: Path, step: int, say: Callable[[str], None] = say) -> None:
        self.folder, self.path = folder, folder / LOG
        folder.mkdir(parents=True, exist_ok=True)
        self.lines = [line for line in read_log(self.path) if line["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())
        self._board = _tensorboard(folder, step, say)

    def write(self, line: dict[str, Any]) -> None:
        """Add a line; it must hold a ``step`` and otherwise only numbers."""
        self.lines.append(line)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for key, value in line.items():
                if key != "step":
                    self._board.add_scalar(key, value, line["step"])

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        """Write uint8 (H, W, 3) as ``name-step.png``."""
        write_png(self.folder / f"{name}-{step:09d}.png", picture)
        if self._board is not None:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def draw_curves(self) -> None:
        """Redraw the curves of loss and validation figures from the whole log."""
        keep = [{k: v for k, v in line.items() if k == "step" or _plotted(k)} for line in self.lines]
        write_png(self.folder / CURVES, curves(keep, logarithmic=("loss", "val_loss")))

    def close(self) -> None:
        """Write what TensorBoard still buffers."""
        if self._board is not None:
            self._board.close()


def _plotted(key: str) -> bool:
    # Bicubic's figures never change, and would compress the scale of the others.
    return key.split("/")[0] in PLOTTED and not key.endswith("/bicubic")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log; a truncated last line is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _tensorboard(folder: Path, step: int, say: Callable[[str], None]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard is not installed: figures go to log.jsonl and PNG files only")
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


class Progress:
    """A line with steps, loss, speed and time left, overwritten on a terminal.

    Args:
        label: name of the training.
        batch: number of images per step.
        stream: stream to write to; None: nothing is shown.
    """

    def __init__(self, label: str, batch: int, stream: Any = None) -> None:
        self._label, self._batch, self._stream = label, batch, stream
        self._terminal = bool(stream) and stream.isatty()
        self._shown = time.monotonic()
        self._marks: list[tuple[float, int]] = [(self._shown, -1)]

    def rate(self) -> float:
        """Return the recent speed in images per second; 0 before it is known."""
        (first, start), (last, end) = self._marks[0], self._marks[-1]
        return (end - start) * self._batch / (last - first) if end > start >= 0 else 0.0

    def update(self, step: int, loss: float, share: float | None, seconds_left: float | None) -> None:
        """Show the state after a step; ``share`` is the part of the leg that is done, 0 … 1, if known."""
        now = time.monotonic()
        if self._marks[0][1] < 0:
            self._marks = []
        if not self._marks or now - self._marks[-1][0] > 0.2:
            self._marks = [*self._marks, (now, step)][-50:]
        if self._stream is None or now - self._shown < (0.2 if self._terminal else QUIET_SECONDS):
            return
        self._shown = now
        text = f"{self._label}  step {step}  loss {loss:.4f}  {self.rate():.1f} images/s"
        if share is not None:
            filled = round(20 * min(share, 1))
            text = f"[{'#' * filled}{'.' * (20 - filled)}] {text}"
        if seconds_left is not None:
            text += f"  {duration(seconds_left)} left"
        self._stream.write(f"\r{text}\x1b[K" if self._terminal else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._terminal:
            print(file=self._stream)
