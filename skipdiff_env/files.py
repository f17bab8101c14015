"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from .locks import held


def write_atomically(path: Path, data: bytes, replace: bool = True) -> None:
    """Write a file that appears whole or not at all: under another name in the same folder, then renamed.

    Processes and threads that write one file do so one after another. The file has the permissions that the
    process's umask leaves.

    Args:
        path: the file, in a folder that exists.
        data: what it will hold.
        replace: whether to replace what is there.

    Raises:
        FileExistsError: if something is there and ``replace`` is false.
        OSError: if it cannot be written; nothing is left of it then.
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
    """The file that becomes ``path``. Its name has a length of its own, for that of a file may be as long as
    the system allows."""
    return path.with_name(f".{hashlib.blake2b(os.fsencode(path.name), digest_size=10).hexdigest()}.part")
