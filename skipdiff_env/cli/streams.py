"""The standard streams, which may be missing or limited in encoding, and the signals that end a process."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from ..errors import SkipDiffError, visible


def prepare_streams() -> None:
    """Prepare the standard streams for a command. Streams that are not the process's own are left alone.

    Missing streams, as under cron or after ``>&-``, become the null device; otherwise a file that is opened
    later would get their number, and receive what libraries print. Characters that a stream cannot encode,
    such as those that stand for the bytes of a file name that is not UTF-8, are escaped.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print a line on standard error, made safe for a terminal. If it cannot be written, the work continues
    without it."""
    try:
        print(visible(text), file=sys.stderr)
    except OSError:
        silence(sys.stderr)


def tell(text: str) -> None:
    """Print a line on standard output at once.

    Raises:
        SkipDiffError: if it cannot be written.
        BrokenPipeError: if the reader has closed the pipe.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)
        raise SkipDiffError(
            f"cannot write to standard output ({error.strerror}): redirect it elsewhere"
        ) from None


def silence(stream: TextIO) -> None:
    """Discard what is written to a stream from now on, and what it still buffers."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Make SIGTERM (``kill``, service managers) and SIGHUP raise SystemExit, so that cleanup code runs.

    They do so even where an interrupted C library raises an error of its own.
    """
    ended: list[int] = []

    def end(number: int, frame: Any) -> None:
        ended.append(number)
        raise SystemExit(128 + number)

    def hang_up(number: int, frame: Any) -> None:
        signal.raise_signal(signal.SIGTERM)  # by then, its handler may be a server's or a training's

    handlers = {"SIGTERM": end, "SIGHUP": hang_up}
    mine = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    if threading.current_thread() is not threading.main_thread():
        mine = {}
    # a signal that is ignored, as under nohup, stays ignored
    mine = {number: handler for number, handler in mine.items() if signal.getsignal(number) is signal.SIG_DFL}
    for number, handler in mine.items():
        signal.signal(number, handler)
    try:
        yield
    except Exception:
        if ended:
            raise SystemExit(128 + ended[0]) from None
        raise
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
