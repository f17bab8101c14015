"""Uploads of visitors, limited in bytes and pixels, and cut to a size that a CPU can process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import SkipDiffError
from ..images import PHOTOGRAPHS, RGB8, cut_to_multiple, shrink
from ..images.io import flattened
from ..images.measure import Measured, measure
from ..images.photo import Header, decode_header, decode_photo

MAX_BYTES = 20 * 2**20
"""Maximum size of an uploaded file in bytes."""
MAX_PIXELS = 40_000_000
"""Maximum number of pixels of a picture that is decoded; 40 megapixels take 120 MB."""
SIDE = 288
"""Longer side of results, in pixels: three of NIQE's blocks of 96 pixels."""
MIN_LR = 16
"""Shorter side of the smallest low-resolution input, in pixels."""
ASPECT = 1.5
"""Longer pictures are cut to 3:2, so that the shorter side of a result can hold two of NIQE's blocks."""


@dataclass(frozen=True)
class Upload:
    """A photograph that a visitor has chosen."""

    name: str
    """The visitor's name for it."""
    data: bytes
    """The content of the file."""
    header: Header
    image: RGB8
    """Its pixels, uint8 (H, W, 3)."""
    seen: Measured
    """The faults that were measured in it."""


@dataclass(frozen=True)
class Task:
    """The input of the model, and the original if it is known."""

    name: str
    """Name for files, consisting of letters, digits and dashes."""
    lr: RGB8
    """The input, uint8 (h, w, 3)."""
    hr: RGB8 | None
    """The original, uint8 (h * scale, w * scale, 3); None if ``lr`` itself was uploaded."""
    note: str
    """The changes to the picture, in words for the visitor."""
    whole: Upload | None = None
    """The photograph, if it is to be enlarged as it is, at full size; ``lr`` is then its middle."""


def read_upload(path: str | Path, name: str) -> Upload:
    """Read an uploaded file.

    Args:
        path: the file on the server.
        name: the visitor's name for it, for messages.

    Raises:
        SkipDiffError: if it is too large, not an image, or damaged; the message is one line.
    """
    try:
        with Path(path).open("rb") as file:  # once, since it may disappear at any time, see Choices
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SkipDiffError(f"is larger than the {MAX_BYTES // 2**20} MB allowed here: shrink it first")
        photo, header = decode_photo(BytesIO(data), MAX_PIXELS), decode_header(BytesIO(data), MAX_PIXELS)
        return Upload(name, data, header, flattened(photo), measure(photo))
    except OSError:
        raise SkipDiffError(f"{name}: is no longer on the server: upload it again") from None
    except SkipDiffError as error:
        raise SkipDiffError(f"{name}: {error}") from None


def bundled(index: int) -> Upload:
    """Return a bundled photograph by its number.

    Raises:
        SkipDiffError: if there is none with this number.
    """
    if not 0 <= index < len(PHOTOGRAPHS):
        raise SkipDiffError(f"there is no photograph {index}: use a number from 0 to {len(PHOTOGRAPHS) - 1}")
    photograph = PHOTOGRAPHS[index]
    return read_upload(photograph.path, photograph.name)


def slug(text: str) -> str:
    """Reduce a text to lower-case letters, digits and dashes, which are safe in a path and in a page."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


def safe_name(name: str) -> str:
    """Return the name of a file without folder and suffix, as a slug of at most 40 characters."""
    return slug(Path(name).stem)[:40] or "picture"


def make_task(photo: Upload, *, scale: int, reference: bool, side: int = SIDE) -> Task:
    """Make the model's input from a photograph.

    Args:
        photo: photograph of any size.
        scale: scale of the model.
        reference: whether the photograph is used as an original: it is shrunk to fit ``side``, and the result
            for its own low-resolution version is compared with it. Otherwise the whole photograph is
            enlarged; ``lr`` is its middle if it is larger than ``side / scale``.
        side: length in pixels to which the longer side of ``lr``, enlarged, is limited; it is raised if
            the shorter side would otherwise be below :data:`MIN_LR`.

    Raises:
        SkipDiffError: if the picture is too small.
    """
    image, name = photo.image, photo.name
    height, width = image.shape[:2]
    least = MIN_LR * scale if reference else MIN_LR
    if min(height, width) < least:
        raise SkipDiffError(
            f"{name}: is {width}x{height} pixels; with this model's scale of {scale} both sides need "
            f"at least {least}"
        )
    # The short side must hold MIN_LR * scale pixels after the rest has been cut to the scale.
    side = max(side, round(ASPECT * MIN_LR * scale) + scale)
    longest = side if reference else side // scale
    done = []
    wanted = _middle(image, *(round(ASPECT * min(height, width)),) * 2)
    if wanted.shape != image.shape:
        done.append("cut to 3:2")
    if max(wanted.shape[:2]) > longest:
        if reference:
            wanted = _fit(wanted, longest)
            done.append("shrunk")
        else:
            wanted = _middle(wanted, longest, longest)
            done = []
    hr = cut_to_multiple(wanted, scale, name=name) if reference else None
    lr = wanted if hr is None else shrink(hr, scale)
    lr = np.ascontiguousarray(lr)
    if hr is None:
        note = f"{width}x{height} pixels become {width * scale}x{height * scale}"
        return Task(safe_name(name), lr, None, note, photo)
    steps = [f"{width}x{height} pixels", *done, f"original {hr.shape[1]}x{hr.shape[0]}"]
    steps.append(f"input {lr.shape[1]}x{lr.shape[0]}, result {lr.shape[1] * scale}x{lr.shape[0] * scale}")
    return Task(safe_name(name), lr, hr, "; ".join(steps))


def _middle(image: RGB8, height: int, width: int) -> RGB8:
    """Cut the middle of a picture, at most ``height`` x ``width`` pixels."""
    top, left = (max(side - most, 0) // 2 for side, most in zip(image.shape, (height, width), strict=False))
    return image[top : top + height, left : left + width]


def _fit(image: RGB8, longest: int) -> RGB8:
    """Shrink a picture (antialiased, Lanczos) to a longer side of ``longest`` pixels."""
    ratio = longest / max(image.shape[:2])
    size = (round(image.shape[1] * ratio), round(image.shape[0] * ratio))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
