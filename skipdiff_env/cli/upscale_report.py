"""What ``skipdiff upscale`` prints: text or JSON lines, errors, and the progress bar."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import visible
from ..progress import duration
from .streams import say, tell

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..upscale import Enlarger, Failure, Outcome, Task


def announce(inputs: Sequence[str], out: str, quiet: bool) -> None:
    """Print at once, on a terminal, what is going to happen."""
    if not quiet and sys.stderr.isatty():
        more = f" and {len(inputs) - 1} more" if len(inputs) > 1 else ""
        say(f"skipdiff: enlarging {inputs[0]}{more} -> {out}")


class Report:
    """Tells the user what happens; control characters in file names are escaped.

    Results go to standard output. Errors, notes about the whole run and the progress bar (on terminals only)
    go to standard error.
    """

    def __init__(self, total: int, quiet: bool, as_json: bool) -> None:
        self.total, self.quiet, self.as_json = total, quiet, as_json
        self._failed: list[str] = []
        self._ended = self._images = self._calls = self._all_calls = self._tiles = 0
        self._bar: tqdm | None = None

    def note(self, text: str) -> None:
        """Print a note about the whole run."""
        if not self.quiet:
            with self._off_the_bar():
                say(f"skipdiff: note: {text}")

    def failed(self, failure: Failure) -> None:
        """Report a photograph that could not be enlarged."""
        self._failed.append(failure.source)
        self._ended += 1
        with self._off_the_bar():
            if self.as_json:
                tell(json.dumps({"input": failure.source, "error": failure.reason}))
            say(f"skipdiff: error: {failure.source}: {failure.reason}")

    def there(self, task: Task) -> None:
        """Report the result of an earlier run."""
        self._line({**_sizes(task), "skipped": True}, visible(f"{task.job.target}: is there already"))

    def planned(self, task: Task, enlarger: Enlarger) -> None:
        """Report what would be done."""
        work, seconds = task.work, enlarger.seconds(task.work)
        calls = {"runs": work.runs, "tiles": work.tiles, "calls": work.calls, "seconds": round(seconds, 3)}
        passes = "" if work.runs == 1 else f" in {work.runs} runs"
        tiles = f"{work.tiles} tile{'s' * (work.tiles != 1)} of up to {enlarger.tiles.tile} pixels"
        text = (
            f"{_arrow(task)}: would take {work.calls} network call{'s' * (work.calls != 1)}{passes}, "
            f"on {tiles}, about {duration(seconds)}"
        )
        entry = {**_sizes(task), **enlarger.settings, **calls, "notes": task.notes, "dry_run": True}
        self._line(entry, _noted(text, task.notes))

    def done(self, outcome: Outcome, enlarger: Enlarger) -> None:
        """Report a photograph that was enlarged."""
        self._ended += 1
        entry = {
            **_sizes(outcome.task), **enlarger.settings, "levels": outcome.levels,
            "evaluations": outcome.evaluations, "seconds": round(outcome.seconds, 3), "notes": outcome.notes,
        }  # fmt: skip
        calls = f"{outcome.evaluations} evaluation{'s' * (outcome.evaluations != 1)}"
        text = f"{_arrow(outcome.task)}: {calls}, {outcome.seconds:.1f} s"
        if outcome.score is not None:
            text += f", score {outcome.score:.3f}"
        self._line({**entry, "score": outcome.score}, _noted(text, outcome.notes))

    def summary(self) -> int:
        """Name the failures of a run over more than one photograph; return the exit status."""
        if self.total > 1 and self._failed:
            self.note(f"{len(self._failed)} of {self.total} failed: {', '.join(self._failed)}")
        return 2 if self._failed else 0

    @contextlib.contextmanager
    def progress(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Show a progress bar for these tasks; :meth:`tick` advances it."""
        from tqdm import tqdm  # here, because `skipdiff train-ddpm` runs where tqdm is not installed

        self._images, self._all_calls = len(tasks), sum(task.work.calls for task in tasks)
        self._tiles = sum(task.work.tiles for task in tasks)
        self._ended = 0
        hidden = self.quiet or not sys.stderr.isatty()
        with tqdm(
            total=sum(task.work.pixels for task in tasks), disable=hidden or not tasks, leave=False,
            bar_format="{desc}{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left",
        ) as self._bar:  # fmt: skip
            yield
        self._bar = None

    def tick(self, pixels: int) -> None:
        """Count a network call on a tile of this many pixels."""
        self._calls += 1
        if self._bar is not None:
            image = min(self._ended + 1, self._images)
            self._bar.set_description_str(
                f"image {image}/{self._images}, call {self._calls}/{self._all_calls} "
                f"on {self._tiles} tile{'s' * (self._tiles != 1)} ",
                refresh=False,
            )
            self._bar.update(pixels)

    def _line(self, entry: dict[str, Any], text: str) -> None:
        if self.as_json or not self.quiet:
            with self._off_the_bar():
                tell(json.dumps(entry) if self.as_json else text)

    def _off_the_bar(self) -> contextlib.AbstractContextManager[Any]:
        bar = self._bar
        return contextlib.nullcontext() if bar is None else bar.external_write_mode(sys.stderr)


def _sizes(task: Task) -> dict[str, Any]:
    header = task.job.header
    return {
        "input": str(task.job.source), "output": str(task.job.target), "format": task.job.format.name,
        "input_size": [header.width, header.height], "output_size": list(task.size),
    }  # fmt: skip


def _noted(text: str, notes: Sequence[str]) -> str:
    return "\n  note: ".join(visible(part) for part in (text, *notes))


def _arrow(task: Task) -> str:
    job, (width, height) = task.job, task.size
    return f"{job.source} ({job.header.width}x{job.header.height}) -> {job.target} ({width}x{height})"
