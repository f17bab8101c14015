"""Files that appear whole or not at all, whoever else writes them, and folders that one run holds."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from skipdiff_env import locks
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.files import write_atomically, written
from skipdiff_env.locks import alone, held

ROOT = Path(__file__).resolve().parents[1]


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs ``code``."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


HOLD = """
import sys, time
from pathlib import Path
from skipdiff_env.locks import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o002, 0o000])
@pytest.mark.parametrize("there", [False, True])
def test_permissions_are_what_the_umask_leaves(mask: int, there: bool, tmp_path: Path) -> None:
    file = tmp_path / "a"
    if there:
        file.touch(0o640)
    before = os.umask(mask)
    try:
        write_atomically(file, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    assert file.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["写" * 83 + ".png", "a" * 251 + ".png", os.fsdecode(b"caf\xe9" * 60)])
def test_names_of_any_length_and_encoding(name: str, tmp_path: Path) -> None:
    write_atomically(tmp_path / name, b"data")
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(OSError, match="File name too long"):
        write_atomically(tmp_path / ("a" * 256), b"data")
    assert os.listdir(tmp_path) == [name]


def test_nothing_is_replaced_unless_asked(tmp_path: Path) -> None:
    file, link = tmp_path / "a", tmp_path / "link"
    file.write_bytes(b"old")
    link.symlink_to("nowhere")
    for path in (file, link):
        with pytest.raises(FileExistsError):
            write_atomically(path, b"new", replace=False)
    assert file.read_bytes() == b"old" and link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["a", "link"]


def test_of_many_writers_that_replace_nothing_one_wins(tmp_path: Path) -> None:
    won, barrier = [], threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        try:
            write_atomically(tmp_path / "a", bytes([number]) * 10_000, replace=False)
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "a").read_bytes() == bytes(won) * 10_000
    assert os.listdir(tmp_path) == ["a"]


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a pipe or device cannot be replaced"):
        write_atomically(tmp_path / "pipe", b"data")
    assert os.listdir(tmp_path) == ["pipe"]


def test_what_raises_in_the_block_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"old")
    with pytest.raises(ZeroDivisionError), written(tmp_path / "a") as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_two_processes_write_the_same_files_and_every_one_is_whole(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from skipdiff_env.files import write_atomically
print("ready", flush=True)
sys.stdin.readline()
for i in range(400):
    write_atomically(Path(sys.argv[1]) / str(i % 3), sys.argv[2].encode() * 50_000)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, name], cwd=ROOT, stdin=-1, stdout=-1, stderr=-1, text=True)
        for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        for file in tmp_path.glob("[0-9]"):
            assert file.read_bytes() in (b"a" * 50_000, b"b" * 50_000)
    for writer in writers:
        assert (writer.communicate()[1], writer.returncode) == ("", 0)
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2"]


def test_what_a_killed_writer_left_is_taken_over(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from skipdiff_env import files
files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(Path(sys.argv[1]) / "a", b"half")
"""
    killed = start(code, tmp_path)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".") and left.endswith(".part")
    os.chmod(tmp_path / left, 0o644)
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "a", b"whole")
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"whole"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600  # not what the dead process had left


def test_a_lock_is_held_against_others_and_freed_by_death(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = start(HOLD, lock)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(BlockingIOError), held(lock, wait=False):
            pass
        began, waited = threading.Event(), list[float]()

        def wait() -> None:
            began.set()
            with held(lock):
                waited.append(time.monotonic())

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert began.wait(60)
        waiting.join(0.2)
        assert not waited
    finally:
        holder.kill()
        holder.communicate()
    waiting.join(60)
    assert len(waited) == 1
    assert os.listdir(tmp_path) == []


def test_a_folder_is_held_by_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    refused = f"cannot use {folder}: another run is writing there: wait until the other run has ended"
    with alone(folder):
        for _ in range(2):
            with pytest.raises(SkipDiffError, match=refused), alone(folder):
                pass
        assert folder.is_dir()
    assert not folder.exists(), "it stayed empty"
    with pytest.raises(ZeroDivisionError), alone(folder):
        (folder / "log").touch()
        raise ZeroDivisionError
    assert os.listdir(folder) == ["log"]


def test_without_flock_what_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skipdiff_env.locks.fcntl", None)
    write_atomically(tmp_path / "a", b"data")
    with alone(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["a"]
    (tmp_path / ".lock").touch()
    left = f"has left {tmp_path}/.lock behind"
    with pytest.raises(SkipDiffError, match=left), alone(tmp_path):
        pass


def test_an_interruption_before_the_file_is_locked_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(locks.fcntl, "flock", interrupted)
    with pytest.raises(KeyboardInterrupt), held(tmp_path / "part"):
        pass
    assert not list(tmp_path.iterdir())
