"""Lock files, each held by one process at a time, which keep two runs from writing into the same folder.

Locks are taken with ``flock``, and the system releases them when a process ends, for whatever reason. A file
that exists but is not locked was therefore left by a dead process, and is taken over. Without ``flock`` (on
Windows and some network file systems), such a file cannot be distinguished from one that a living process
holds, so the user has to remove it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import SkipDiffError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""Name of the lock file in a folder."""


@contextlib.contextmanager
def held(path: Path, wait: bool = True) -> Iterator[None]:
    """Create an empty file and hold it against other threads and processes; at the end of the
    ``with`` block, remove it if it still exists.

    Args:
        path: the file, in a folder that exists. It has the permissions that the process's umask allows.
        wait: whether to wait while another thread or process holds it.

    Raises:
        BlockingIOError: if the file is held, and ``wait`` is false or waiting is not possible here.
        OSError: if the file cannot be created.
    """
    opened: list[int] = []
    try:
        _take(path, wait, opened)
        if fcntl is None:
            os.close(opened[0])  # on Windows, open files can be neither renamed nor removed
        yield
    finally:
        for descriptor in opened:
            if fcntl is None:
                path.unlink(missing_ok=True)
            else:
                if _is(descriptor, path):
                    path.unlink()
                os.close(descriptor)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder for a run that writes into it; a missing folder is created, and removed if it stays
    empty.

    Raises:
        SkipDiffError: if another run holds the folder.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held(folder / LOCK, wait=False))
            except BlockingIOError as error:
                raise SkipDiffError(
                    f"cannot use {folder}: {error.strerror}: wait until the other run has ended, or give "
                    "another folder"
                ) from None
            yield
    finally:
        if new:
            with contextlib.suppress(OSError):  # a run usually leaves files in it
                folder.rmdir()


def _take(path: Path, wait: bool, opened: list[int]) -> None:
    """Create and lock a file at ``path``, and add its descriptor to ``opened``, which is empty."""
    while True:
        try:
            # No signal comes between creating the file and taking down its descriptor: both are in one call.
            opened.extend(map(os.open, [path], [os.O_RDWR | os.O_CREAT | os.O_EXCL], [0o666]))
        except FileExistsError:
            _clear(path, wait)
            continue
        if fcntl is not None:
            with contextlib.suppress(OSError):  # others cannot lock it either, and leave it alone
                fcntl.flock(opened[0], fcntl.LOCK_EX)
        if _is(opened[0], path):  # otherwise another process removed it before it was locked
            return
        os.close(opened.pop())


def _clear(path: Path, wait: bool) -> None:
    """Wait until no process holds the file, and remove it if it was left behind."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        if fcntl is None:
            raise OSError
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if _is(descriptor, path):
            path.unlink()
    except BlockingIOError:
        raise BlockingIOError(errno.EAGAIN, "another run is writing there") from None
    except OSError:
        told = f"another run is writing there, or has left {path} behind (if so, remove it)"
        raise BlockingIOError(errno.EAGAIN, told) from None
    finally:
        os.close(descriptor)


def _is(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one at ``path``."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
