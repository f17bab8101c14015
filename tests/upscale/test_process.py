"""Real processes: killed, interrupted, out of room."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipdiff_env.images.photo import read_photo

from .conftest import Ran

COUNT = 20


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(COUNT):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 60, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def listen_to_ctrl_c() -> None:
    """A test run in the background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """``skipdiff upscale`` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "skipdiff_env.cli", "upscale", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    root = Path(__file__).resolve().parents[2]
    options.setdefault("preexec_fn", listen_to_ctrl_c)
    return subprocess.Popen(command, cwd=root, **{**pipes, **options})  # type: ignore[call-overload,no-any-return]


def wait_for(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if folder.is_dir() and len(list(folder.glob("[0-9]*.png"))) >= count:
            return
        time.sleep(0.005)
    pytest.fail(f"it ended too early or did nothing: {process.communicate(timeout=60)}")


def test_killed_in_mid_folder_and_resumed(
    album: Path, tmp_path: Path, plain_folder: Path, upscale: Callable[..., Ran]
) -> None:
    out = tmp_path / "out"
    process = start(album, "-o", out, "--model", plain_folder, "--coarse-steps", 2, "--start", 1)
    wait_for(out, 5, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    there = sorted(out.glob("[0-9]*.png"))
    assert 5 <= len(there) < COUNT
    stamps = {path: path.stat().st_mtime_ns for path in there}
    for path in there:
        assert read_photo(path).size == (240, 160)
    ran = upscale(album, "-o", out, "--resume")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.count("is there already") == len(there)
    assert sorted(p.name for p in out.iterdir()) == [f"{i:02}.png" for i in range(COUNT)]
    assert {path: path.stat().st_mtime_ns for path in there} == stamps
    for path in out.iterdir():
        assert read_photo(path).size == (240, 160)


@pytest.mark.parametrize("jobs", [1, 3])
def test_interrupted_in_mid_folder(jobs: int, album: Path, tmp_path: Path, plain_folder: Path) -> None:
    out = tmp_path / "out"
    process = start(album, "-o", out, "--model", plain_folder, "--jobs", jobs, "--coarse-steps", 10)
    wait_for(out, 2, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "skipdiff: interrupted\n"
    names = sorted(p.name for p in out.iterdir())
    assert 2 <= len(names) < COUNT
    assert all(not name.startswith(".") for name in names)
    for path in out.iterdir():
        assert read_photo(path).size == (240, 160)


def test_no_room_for_the_file(album: Path, tmp_path: Path, plain_folder: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    process = start(
        album / "00.png", "-o", tmp_path / "new" / "a.png", "--model", plain_folder, "--coarse-steps", 2,
        "--start", 1, preexec_fn=limit,
    )  # fmt: skip
    out, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert len(error.splitlines()) == 1
    assert "a.png: File too large; no partial file is left" in error
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_no_room_on_the_standard_output(album: Path, tmp_path: Path, plain_folder: Path) -> None:
    options = ("--model", plain_folder, "--coarse-steps", 2, "--start", 1)
    for more in ((), ("--json",)):
        with open("/dev/full", "w") as full:
            process = start(
                album / "00.png", "-o", tmp_path / "a.png", "--force", *options, *more, stdout=full
            )
            _, error = process.communicate(timeout=120)
        assert process.returncode == 2
        assert error == (
            "skipdiff: error: cannot write to standard output (No space left on device): redirect it "
            "elsewhere\n"
        )
        assert read_photo(tmp_path / "a.png").size == (240, 160)
    process = start(album / "00.png", "-o", "/dev/full", *options)
    assert process.wait(timeout=120) == 2
    assert process.communicate()[1].endswith("would become /dev/full/00.png, but /dev/full is not a folder\n")


@pytest.mark.slow
def test_memory_stays_within_a_few_images(tmp_path: Path, plain_folder: Path) -> None:
    """The acceptance bound at sizes for a test; ``python -m benchmarks tiling`` has the real ones."""
    code = (
        "import resource, sys; from skipdiff_env.cli import main; main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    peaks = []
    for width, height in ((96, 72), (384, 288)):
        pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{width}.png")
        arguments = [
            "upscale",
            tmp_path / f"{width}.png",
            "-o",
            tmp_path / f"{width}-4x.png",
            "--tile",
            "128",
        ]
        arguments += ["--model", plain_folder, "--coarse-steps", "2", "--start", "2", "--quiet"]
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        root = Path(__file__).resolve().parents[2]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=root)
        peaks.append(int(ran.stdout))
    image = 1536 * 1152 * 3 * 4
    assert peaks[1] - peaks[0] < 12 * image
    assert peaks[1] <= 1.3 * peaks[0] + 6 * image
