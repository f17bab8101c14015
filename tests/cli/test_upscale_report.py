"""What people see while it runs."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skipdiff_env.cli.upscale_report import Report
from skipdiff_env.images.photo import FORMATS, Header
from skipdiff_env.upscale import Failure, Job, Task, Work


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal for stderr. No fixture: pytest puts its own stderr back before a test begins."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "40")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def task(name: str) -> Task:
    job = Job(Path(name), Path("out") / name, FORMATS["png"], Header(10, 10, "png"))
    return Task(job, (40, 40), Work(1, 4, 8, 8 * 1600))


def test_the_bar_shows_images_tiles_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch)
    report = Report(2, quiet=False, as_json=False)
    with report.progress([task("a"), task("b")]):
        for _ in range(8):
            report.tick(1600)
        report.failed(Failure("a", "is damaged"))
        for _ in range(8):
            report.tick(1600)
    assert report.summary() == 2
    shown = terminal.getvalue()
    assert re.search(r"image 1/2, call \d/16 on 8 tiles +\d+% \|.*\| 00:\d\d, 00:\d\d left", shown)
    assert "skipdiff: error: a: is damaged\n" in shown
    assert shown.endswith("skipdiff: note: 1 of 2 failed: a\n")


@pytest.mark.parametrize("quiet", [False, True])
def test_no_bar_where_nobody_watches(quiet: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch)
    if not quiet:
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    report = Report(1, quiet=quiet, as_json=False)
    with report.progress([task("a")]):
        report.tick(1600)
    assert report.summary() == 0
    assert terminal.getvalue() == ""


def test_the_first_line_comes_before_torch() -> None:
    """Where torch cannot be imported, it is still said what was going to happen."""
    code = (
        "import io, sys; sys.modules['torch'] = None\n"
        "class Terminal(io.StringIO):\n    isatty = lambda self: True\n"
        "sys.stderr = Terminal()\n"
        "from skipdiff_env.cli import main\n"
        "try:\n    main(['upscale', *sys.argv[1:]])\n"
        "except ImportError:\n    print(sys.stderr.getvalue(), end='')"
    )
    for words, said in (
        (["a.jpg", "-o", "b/"], "skipdiff: enlarging a.jpg -> b/\n"),
        (["a.jpg", "c.jpg", "d", "-o", "b/"], "skipdiff: enlarging a.jpg and 2 more -> b/\n"),
        (["a.jpg", "-o", "b/", "-q"], ""),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        assert done.stdout == said
