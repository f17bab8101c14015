"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .locks import held


@contextlib.contextmanager
def written(path: Path, replace: bool = True) -> Iterator[BinaryIO]:
    """Open a file that appears whole or not at all. It has a temporary name in the same folder, and is
    renamed at the end of the ``with`` block unless the block raises an error.

    Processes and threads that write the same file take turns. The file has the permissions that the process's
    umask allows.

    Args:
        path: the file, in a folder that exists.
        replace: whether to replace an existing file.

    Raises:
        FileExistsError: if ``path`` exists and ``replace`` is false.
        OSError: if the file cannot be written, or is a pipe or a device; no partial file is left behind.
    """
    part = part_of(path)
    with held(part):
        if not replace and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "a pipe or device cannot be replaced", str(path))
        with part.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def write_atomically(path: Path, data: bytes, replace: bool = True) -> None:
    """Write ``data`` to a file that appears whole or not at all; the other arguments and the errors are those
    of :func:`written`."""
    with written(path, replace) as file:
        file.write(data)


def part_of(path: Path) -> Path:
    """Return the temporary file that becomes ``path``. Its name has a fixed length, since the name of
    ``path`` may be as long as the system allows."""
    return path.with_name(f".{hashlib.blake2b(os.fsencode(path.name), digest_size=10).hexdigest()}.part")
