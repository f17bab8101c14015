"""Enlarges a photograph at full size with the code of ``skipdiff upscale``, which gives the same file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import SkipDiffError
from ..images import RGB8, read_image
from ..images.photo import FORMATS
from ..upscale import Enlarger, Failure, Job, Options, Outcome, Runner, Work
from .pictures import Upload, safe_name

MAX_RESULT = 2**27
"""Maximum number of pixels of a result."""
PREVIEW = 1600
"""Longer side of the preview of a result, in pixels."""


@dataclass(frozen=True)
class Whole:
    """An enlarged photograph."""

    file: Path
    """The result with its metadata, in the photograph's own format."""
    size: tuple[int, int]
    """Width and height."""
    before: RGB8
    """The bicubic enlargement, as large as ``after``."""
    after: RGB8
    """The result, shrunk if it is too large to be shown."""
    evaluations: int
    seconds: float
    notes: tuple[str, ...]


def result_size(photo: Upload, scale: int) -> tuple[int, int]:
    """Return the width and height of the result.

    Raises:
        SkipDiffError: if it is too large.
    """
    width, height = photo.header.width * scale, photo.header.height * scale
    if width * height > MAX_RESULT:
        raise SkipDiffError(
            f"{photo.name}: would become {width}x{height}, more than the {MAX_RESULT // 10**6} megapixels "
            "allowed here: use skipdiff upscale"
        )
    return width, height


def work_of(photo: Upload, enlarger: Enlarger) -> Work:
    """Return the work of enlarging a photograph.

    Raises:
        SkipDiffError: if it is too large.
    """
    size = photo.header.width, photo.header.height
    return enlarger.work(size, result_size(photo, enlarger.model.scale))


def enlarge_whole(photo: Upload, open_model: Callable[[str], Enlarger], model: str, folder: Path) -> Whole:
    """Enlarge a photograph as ``skipdiff upscale`` does.

    Args:
        photo: the photograph as it was uploaded.
        open_model: function that opens a model by its name, with all settings.
        model: name of the model.
        folder: folder in which the result gets a folder of its own.

    Raises:
        SkipDiffError: if the photograph cannot be enlarged, or the job was cancelled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = FORMATS[photo.header.format]
    with tempfile.TemporaryDirectory(dir=folder) as private:
        source, made = Path(private) / "photograph", Path(private) / "result"
        source.write_bytes(photo.data)
        runner = Runner(open_model, Options(), model)
        found = runner.look(Job(source, made, own, photo.header))
        if not isinstance(found, Failure):
            (found,) = runner([found])  # type: ignore[assignment]
        if isinstance(found, Failure):
            raise SkipDiffError(found.reason)
        assert isinstance(found, Outcome)
        target = Path(tempfile.mkdtemp(dir=folder)) / f"{safe_name(photo.name)}-large{own.suffix}"
        made.rename(target)
    after = _preview(read_image(target, MAX_RESULT))
    before = np.asarray(Image.fromarray(photo.image).resize(after.shape[1::-1], Image.Resampling.BICUBIC))
    size, notes = found.task.size, tuple(found.notes)
    return Whole(target, size, before, after, found.evaluations, found.seconds, notes)


def _preview(image: RGB8) -> RGB8:
    shown = Image.fromarray(image)
    shown.thumbnail((PREVIEW, PREVIEW), Image.Resampling.LANCZOS)
    return np.asarray(shown)
