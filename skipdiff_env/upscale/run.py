"""Enlarges all photographs of a command, one after another or several at once, each whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._version import __version__
from ..errors import SkipDiffError, one_line
from ..files import write_atomically
from ..images.mapped import LARGE
from ..images.measure import measure
from ..images.photo import FORMATS, Photo, read_photo
from ..images.photo_file import check_size, encode_photo, fit_format
from ..images.tiling import call_bytes, free_memory
from .choice import AUTO, REAL, USUAL, Choice, choose_model
from .compare import Comparison
from .enlarge import Enlarger, Scaling, Size, Work
from .jobs import Failure, Job, existing_folder
from .resume import digest, why_anew

if TYPE_CHECKING:
    from ..metrics import Metric

SOFTWARE = f"SkipDiff {__version__}"

IMAGES_HELD = 9
"""Number of float32 images that an enlargement holds at its peak, in memory if small, else in files."""

BYTES_A_PIXEL = 24
"""Bytes of memory per pixel while a result is encoded (measured: up to 23, for WebP and 16-bit PNG)."""


@dataclass(frozen=True)
class Options:
    """How results are written."""

    scaling: Scaling = Scaling()
    """Size of the results."""
    quality: int = 95
    """Quality of JPEG and WebP files, 1 … 100."""
    keep_location: bool = False
    """Whether to keep GPS data and other data that reveal the location."""
    force: bool = False
    """Whether to replace existing files."""
    resume: bool = False
    """Whether to keep complete results of the same photographs and settings."""
    compare: bool = False
    """Whether to write a comparison next to each result."""
    metric: Metric | None = None
    """No-reference metric that rates each result; None if none does."""
    jobs: int = 1
    """Maximum number of photographs that are processed at once."""


@dataclass(frozen=True)
class Task:
    """A job that can be done, and its work."""

    job: Job
    size: Size
    """Width and height of the result."""
    work: Work
    there: bool = False
    """Whether complete results exist already."""
    notes: Sequence[str] = ()
    """What the photograph looks like, if that decided on the model; which of its faults are too strong for
    the model; and which existing files will be made again, and why."""


@dataclass(frozen=True)
class Outcome:
    """An enlarged photograph."""

    task: Task
    levels: Sequence[Sequence[int]] = ()
    evaluations: int = 0
    seconds: float = 0.0
    """Seconds from reading to encoding, without scoring, comparing and writing."""
    score: float | None = None
    notes: Sequence[str] = ()


class _Tools(NamedTuple):
    """The tools that make a model's results."""

    enlarger: Enlarger
    compare: Comparison | None


class Runner:
    """Inspects jobs and carries them out.

    The same photograph and the same :meth:`record` give the same bytes, whatever else is made at the same
    time, on one device of one machine with the same library versions and, on a CPU, the same number of
    threads. With another number of threads, sums are computed in another order, and a few of the 8-bit values
    (measured: 1 to 8 in 100,000) differ by 1.

    Args:
        open_model: function that opens a model by its name, with all settings; it is called when a photograph
            first needs the model.
        options: how results are written.
        model: name of the model, or ``auto``, see :mod:`.choice`.
    """

    def __init__(self, open_model: Callable[[str], Enlarger], options: Options, model: str = AUTO) -> None:
        self.options, self._open_model, self._model = options, open_model, model
        self._stop = threading.Event()
        self._opened: dict[str, _Tools | SkipDiffError] = {}
        self._chosen: dict[Path, Choice] = {}

    def enlarger(self, job: Job) -> Enlarger:
        """Return the enlarger for this photograph."""
        return self._tools(self._choice(job).model).enlarger

    def _choice(self, job: Job) -> Choice:
        """Return the model for a photograph, which is read if it has to be measured.

        Raises:
            SkipDiffError: if it cannot be read.
        """
        if job.source not in self._chosen:
            self._chosen[job.source] = choose_model(self._model, lambda: measure(read_photo(job.source)))
        return self._chosen[job.source]

    def _tools(self, name: str) -> _Tools:
        if name not in self._opened:
            try:
                self._opened[name] = self._open(name)
            except SkipDiffError as error:  # kept, since the next photograph should not try again
                self._opened[name] = error
        found = self._opened[name]
        if isinstance(found, SkipDiffError):
            raise found
        return found

    def _may_open(self) -> bool:
        """Return whether the settings suit any of the models that ``auto`` chooses from."""
        for name in (USUAL, REAL) if self._model == AUTO else ():
            with contextlib.suppress(SkipDiffError):
                self._tools(name)
                return True
        return False

    def _open(self, name: str) -> _Tools:
        enlarger = self._open_model(name)
        tiles = enlarger.tiles
        report = tiles.on_tile

        def on_tile(pixels: int) -> None:
            if self._stop.is_set():
                raise InterruptedError
            if report:
                report(pixels)

        tiles.on_tile = on_tile
        return _Tools(enlarger, Comparison(enlarger) if self.options.compare else None)

    def record(self, job: Job, size: Size) -> dict[str, Any]:
        """Return the record of how a result of this size is made, for its metadata and for ``resume``.

        Raises:
            SkipDiffError: if the photograph cannot be read.
        """
        made = {"software": SOFTWARE, **self.enlarger(job).settings, "size": list(size)}
        written = {"format": job.format.name, "keep_location": self.options.keep_location}
        if job.format.lossy:
            written["quality"] = self.options.quality
        return {**made, **written, "source": digest(job.source)}

    def look(self, job: Job) -> Task | Failure:
        """Compute the work of a job, or say why it cannot be done, without running the network.

        Raises:
            SkipDiffError: if no model can be opened with these settings.
        """
        source = job.header.width, job.header.height
        chosen = None
        try:
            chosen = self._choice(job)
            enlarger, compare = self._tools(chosen.model)
        except SkipDiffError as error:
            if chosen and not self._may_open():
                raise
            return Failure(str(job.source), str(error))
        try:
            size = self.options.scaling.target(source, enlarger.model.scale)
            there, notes = self._is_there(job, size)
            if not there:
                check_size(size, job.format)
                _check_writable(job.target)
                self._check_room(job, size)
        except SkipDiffError as error:
            return Failure(str(job.source), str(error))
        work = enlarger.work(source, size)
        work = work + compare.work(source, size) if compare else work
        return Task(job, size, work, there, [*chosen.notes, *notes])

    def _is_there(self, job: Job, size: Size) -> tuple[bool, list[str]]:
        """Return whether nothing is left to do, and notes on files to make again; refuse files in the way."""
        options = self.options
        files: dict[Path, Size | None] = {job.target: size}
        if job.sheet:
            files[job.sheet] = None
        present = [path for path in files if os.path.lexists(path)]
        if present and not (options.force or options.resume):
            raise _exists(present[0])
        if not (present and options.resume):
            return False, []
        record = self.record(job, size)
        notes = [why for path in present if (why := why_anew(path, record, files[path], options.force))]
        return not notes and len(present) == len(files), notes

    def __call__(self, tasks: Sequence[Task]) -> Iterator[Outcome | Failure]:
        """Yield the outcome of each task, in order. An interruption leaves no partial file."""
        at_once = self._at_once(tasks)
        if at_once <= 1:
            yield from map(self._attempt, tasks)
            return
        with ThreadPoolExecutor(at_once) as pool:
            futures = [pool.submit(self._attempt, task) for task in tasks]
            try:
                for future in futures:
                    yield future.result()
            except BaseException:
                self._stop.set()
                for future in futures:
                    future.cancel()
                raise

    def _at_once(self, tasks: Sequence[Task]) -> int:
        """Return how many photographs memory and options allow at once."""
        if self.options.jobs == 1 or not tasks:
            return 1
        tools = [self.enlarger(task.job) for task in tasks]
        room = [_room(enlarger, task.job, task.size) for enlarger, task in zip(tools, tasks, strict=True)]
        memory, disk = (max(needs) for needs in zip(*room, strict=True))
        most = min(self.options.jobs, free_memory(tools[0].model.device) // memory)
        if disk:
            free = min(shutil.disk_usage(_scratch(task.job.target)).free for task in tasks)
            most = min(most, free // disk)
        return most

    def _attempt(self, task: Task) -> Outcome | Failure:
        try:
            return self._carry_out(task)
        except Exception as error:  # any error: the other photographs are still processed
            return Failure(str(task.job.source), _reason(error))

    def _carry_out(self, task: Task) -> Outcome:
        options, job, began = self.options, task.job, time.perf_counter()
        (enlarger, compare), record = self._tools(self._choice(job).model), self.record(job, task.size)
        photo = read_photo(job.source)
        if photo.size != (job.header.width, job.header.height):  # which gave the size of the result
            raise SkipDiffError("has meanwhile been replaced by a photograph of another size: run this again")
        made = enlarger(photo, task.size, _scratch(job.target))
        result = made.photo
        if not options.keep_location:
            result = replace(result, metadata=result.metadata.without_location())
        data, lost = encode_photo(result, job.format, SOFTWARE, record, options.quality)
        seconds = time.perf_counter() - began
        score, unrated = _score(options.metric, result) if options.metric else (None, [])
        sheet = compare(photo, result, made.evaluations) if compare else None
        self._write(job.target, data)
        if job.sheet and sheet is not None:
            self._write(job.sheet, encode_photo(Photo(sheet), FORMATS["png"], SOFTWARE, record)[0])
        notes = (*task.notes, *photo.notes, *lost, *unrated)
        return Outcome(task, made.levels, made.evaluations, seconds, score, notes)

    def _check_room(self, job: Job, size: Size) -> None:
        enlarger, folder = self.enlarger(job), _scratch(job.target)
        memory, disk = _room(enlarger, job, size)
        free = free_memory(enlarger.model.device)
        if memory > free:
            raise SkipDiffError(
                f"would take about {memory / 1e9:.1f} GB of memory at {size[0]}x{size[1]}, but "
                f"only {free / 1e9:.1f} GB are free: ask for a smaller --scale, or cut it into pieces"
            )
        if disk and disk > (free := shutil.disk_usage(folder).free):
            raise SkipDiffError(
                f"would take about {disk / 1e9:.1f} GB of temporary files at {size[0]}x{size[1]}, but "
                f"only {free / 1e9:.1f} GB are free in {folder}: make room, or name another folder in TMPDIR"
            )

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file, whole or not at all, and create its folder if that is missing."""
        missing = [folder for folder in path.parents if not os.path.lexists(folder)]
        replace_it = self.options.force or self.options.resume

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data, replace_it)

        try:
            try:
                write()
            except FileNotFoundError:  # another run removed the folder, which was empty
                write()
        except BaseException as error:
            for folder in missing:
                with contextlib.suppress(OSError):  # another photograph may have a file in it
                    folder.rmdir()
            if isinstance(error, FileExistsError):
                raise _exists(path) from None
            if isinstance(error, OSError):
                raise SkipDiffError(
                    f"cannot write {path}: {error.strerror or error}; no partial file is left: make room or "
                    "give another -o"
                ) from None
            raise


def _reason(error: Exception) -> str:
    """Say why a photograph could not be enlarged, in words for the user."""
    if isinstance(error, SkipDiffError):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return "ran out of memory: give a smaller --tile, --scale or --jobs"
    return f"unexpected {type(error).__name__} ({one_line(str(error))}): please report it"


class _Room(NamedTuple):
    """Bytes that an enlargement takes."""

    memory: int
    """Number of bytes on the model's device."""
    disk: int


def _room(enlarger: Enlarger, job: Job, size: Size) -> _Room:
    """Return the memory and disk space that making an image of this size takes."""
    model, tiles = enlarger.model, enlarger.tiles
    image = 12 * enlarger.held((job.header.width, job.header.height), size)
    call = call_bytes(model.config.unet, tiles.tile, tiles.batch)
    if model.device.type != "cpu":
        return _Room(call + IMAGES_HELD * image, 0)
    coded = BYTES_A_PIXEL * size[0] * size[1]
    if image < LARGE:
        return _Room(call + IMAGES_HELD * image + coded, 0)
    return _Room(call + max(image, coded), IMAGES_HELD * image)  # noise is drawn for one of them in memory


def _scratch(target: Path) -> Path:
    """Return the folder for images that are too large for memory: TMPDIR's, else the result's."""
    named = os.environ.get("TMPDIR", "")
    return Path(named) if os.path.isdir(named) else existing_folder(target)


def _check_writable(path: Path) -> None:
    folder = existing_folder(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SkipDiffError(f"cannot write {path}: {folder} is not writable: give another folder with -o")


def _exists(path: Path) -> SkipDiffError:
    return SkipDiffError(f"{path} exists: --force replaces it, --resume keeps it")


def _score(metric: Metric, photo: Photo) -> tuple[float | None, list[str]]:
    """Score the picture as 8-bit sRGB without a reference; return None and the reason if it has no score."""
    if min(photo.size) < metric.min_size:
        return None, [f"not rated: {metric.name} needs {metric.min_size} pixels per side"]
    flat, _ = fit_format(photo, FORMATS["bmp"])
    pixels = np.array(np.broadcast_to(flat.colour, (*flat.colour.shape[:2], 3)))
    value = float(metric(pixels[None])[0])
    return (value, []) if np.isfinite(value) else (None, [f"not rated: {metric.name} has no value"])
