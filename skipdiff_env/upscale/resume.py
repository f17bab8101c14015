"""Decides what ``--resume`` does with existing files: keep them, make them again, or refuse."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..errors import SkipDiffError
from ..images.formats.metadata import read_record
from ..images.photo import MAX_PIXELS, read_header, read_photo
from ..images.raster import DamagedError
from .enlarge import Size


class _InTheWay(Exception):
    """The existing file is of unknown origin, or was made with other settings; the message says which."""


def why_anew(path: Path, record: dict[str, Any], size: Size | None, force: bool = False) -> str:
    """Say why an existing file has to be made again; empty if it is complete and up to date.

    Args:
        path: the file.
        record: record of how it should have been made, and from which photograph.
        size: width and height that it must have; None: not known.
        force: whether to replace even a file that was made with other settings, or whose origin is unknown.

    Raises:
        SkipDiffError: if the file was made with other settings or is of unknown origin, and ``force`` is
            false.
    """
    try:
        return _why_anew(path, record, size)
    except _InTheWay as what:
        if force:
            return f"{path} {what}: replaced"
        raise SkipDiffError(f"{path} {what}: --force replaces it") from None


def _why_anew(path: Path, record: dict[str, Any], size: Size | None) -> str:
    try:
        most = max(MAX_PIXELS, size[0] * size[1] if size else 0)  # a result may be larger than what is read
        photo = read_photo(path, most)
        found, has_record = read_record(photo.metadata), read_header(path, most).format != "bmp"
    except DamagedError:
        return f"{path} was incomplete: made again"
    except (SkipDiffError, OSError) as error:
        if path.is_file() and path.stat().st_size == 0:  # pipes and broken links are not results either
            return f"{path} was empty: made again"
        raise _InTheWay(f"exists and {error}") from None
    if found is None and (has_record or size not in (None, photo.size)):
        raise _InTheWay("does not say that it was made here")
    if found is None or "source" not in found:
        return f"{path} does not say which photograph it was made from: made again"
    if found["source"] != record["source"]:
        return f"{path} was made from another photograph, or from an earlier state of this one: made again"
    if found != record or size not in (None, photo.size):
        raise _InTheWay("was made with other settings")
    return ""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; raise a SkipDiffError if it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(2**20):
                found.update(part)
    except OSError as error:
        raise SkipDiffError(f"cannot be read ({error.strerror})") from None
    return found.hexdigest()
