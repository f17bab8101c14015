"""Runs of ``skipdiff upscale`` that are ended by a signal at a random moment, and what is there afterwards.

A run is a process forked from this one, which has imported all that is slow: hundreds of them take minutes.
As a command: ``python -m tests.upscale.disturb [ROUNDS [SEED]]``.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from skipdiff_env.cli import main
from skipdiff_env.diffusion import NoiseSchedule, random_model, save_model, tiny_config

from .conftest import FAST, UNET

ENDS = {
    signal.SIGINT: {0, 130},
    signal.SIGTERM: {0, 143, -signal.SIGTERM},
    signal.SIGKILL: {0, -signal.SIGKILL},
}
"""Signals, and what a run's exit status may be after one: it may have been faster, or so slow that
the command was not there yet to handle it."""
PHOTOGRAPHS = 6


def make_photographs(folder: Path) -> None:
    """Photographs of several formats and sizes, some in a folder of their own."""
    (folder / "more").mkdir(parents=True)
    for i in range(PHOTOGRAPHS):
        pixels = np.random.default_rng(i).integers(0, 256, (12 + i, 20 - i, 3)).astype(np.uint8)
        name = f"{i}.{('png', 'jpg', 'tif', 'webp')[i % 4]}"
        Image.fromarray(pixels).save(folder / ("more" if i % 3 == 2 else ".") / name)


def command(root: Path, out: Path, jobs: int) -> list[str]:
    """What enlarges the photographs."""
    words = ["upscale", str(root / "in"), "-o", str(out), "--recursive", "--resume", "--compare"]
    return [*words, "--jobs", str(jobs), "--device", "cpu", "--model", str(root / "model"), *FAST]


def start(root: Path, out: Path, jobs: int = 1) -> int:
    """A process that enlarges them, by its number. What it has to say goes to ``root/said``."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        said = os.open(root / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ["TMPDIR"] = str(root / "scratch")
        tqdm.set_lock(threading.RLock())  # processes share tqdm's own: one that is killed would keep it
        status = main(command(root, out, jobs))
    except SystemExit as end:
        status = int(end.code or 0)
    except KeyboardInterrupt:  # before the command could handle it
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(process: int) -> int:
    """The exit status of a process; if a signal ended it, that with a minus."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def disturbed_round(
    root: Path, out: Path, rng: random.Random, whole: dict[str, bytes], seconds: float
) -> str:
    """End a run at a random moment, let another go on from there, and compare; what was done, in words.

    The moment is counted from when some of the files are there: on a slow machine it is random, too.

    Args:
        root: holds photographs and model.
        out: a folder that is not there yet.
        rng: decides.
        whole: the files of a run that nobody disturbed.
        seconds: how long a file took.

    Raises:
        AssertionError: naming what is not as it should be.
    """
    number, jobs = rng.choice([*ENDS]), [rng.choice([1, 2]) for _ in range(2)]
    process, count = start(root, out, jobs[0]), rng.randrange(len(whole) - 2)
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while sum((out / name).exists() for name in whole) < count and not os.waitid(os.P_PID, process, ended):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, seconds))
    os.kill(process, number)  # its number is taken until it is waited for
    status = wait(process)
    left, said = contents(out), (root / "said").read_text()
    what = f"{number.name} with {jobs[0]} and {jobs[1]} jobs: status {status}, {len(left)} files, {said!r}"
    assert status in ENDS[number] and "Traceback" not in said, what
    results = {name: data for name, data in left.items() if name in whole}
    assert all(whole[name] == data for name, data in results.items()), f"partial files: {what}"
    assert number == signal.SIGKILL or left == results, f"{left.keys() - results.keys()} is left: {what}"
    assert not contents(root / "scratch"), f"temporary files: {what}"
    assert wait(start(root, out, jobs[1])) == 0, (root / "said").read_text()
    found = contents(out)
    assert found.keys() == whole.keys(), f"{found.keys() ^ whole.keys()} after {what}"
    assert found == whole, f"other bytes after {what}"
    return (
        f"{number.name} with {jobs[0]} and {jobs[1]} jobs: status {status}, {len(results)} results were whole"
    )


def run(root: Path, rounds: int, seed: int) -> None:
    """So many rounds in an empty folder.

    Raises:
        AssertionError: if one went wrong.
    """
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # what is forked has no other threads
    make_photographs(root / "in")
    (root / "scratch").mkdir()
    model = random_model(tiny_config(unet=UNET, schedule=NoiseSchedule.cosine(4).config))
    save_model(root / "model", model.network, model.config)
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(command(root, root / "here", 1)) == 0  # in this process: all is imported once
    began = time.monotonic()
    assert wait(start(root, root / "undisturbed")) == 0, (root / "said").read_text()
    seconds = (time.monotonic() - began) / 2 / PHOTOGRAPHS
    whole = contents(root / "undisturbed")
    assert len(whole) == 2 * PHOTOGRAPHS
    rng = random.Random(seed)
    for i in range(rounds):
        print(f"{i + 1}:", disturbed_round(root, root / f"out-{i}", rng, whole, seconds), flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), *map(int, [*sys.argv[1:], "30", "0"][:2]))
