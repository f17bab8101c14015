"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from .locks import held


def write_atomically(path: Path, data: bytes, replace: bool = True) -> None:
    """Write a file that appears whole or not at all: under a temporary name in its folder, then renamed.

    Processes and threads that write the same file take turns. The file has the permissions that the process's
    umask allows.

    Args:
        path: the file, in a folder that exists.
        data: the content of the file.
        replace: whether to replace an existing file.

    Raises:
        FileExistsError: if ``path`` exists and ``replace`` is false.
        OSError: if the file cannot be written; no partial file is left then.
    """
    part = part_of(path)
    with held(part):
        if not replace and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def part_of(path: Path) -> Path:
    """The temporary file that becomes ``path``. Its name has a fixed length, since that of ``path`` may be as
    long as the system allows."""
    return path.with_name(f".{hashlib.blake2b(os.fsencode(path.name), digest_size=10).hexdigest()}.part")
