"""Started by cron, read by nobody, ended by a signal: the command does its work and says what it can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipdiff_env.cli.streams import ended_by_sigterm, say
from skipdiff_env.diffusion import random_model, save_model

ROOT = Path(__file__).resolve().parents[2]
SKIPDIFF = f"{sys.executable} -m skipdiff_env.cli"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = random_model()
    return save_model(tmp_path_factory.mktemp("models") / "tiny-4x", made.network, made.config)


@pytest.fixture
def upscale(model: Path, tmp_path: Path) -> str:
    """The beginning of a shell command that enlarges a photograph and one that is none."""
    (tmp_path / "in").mkdir()
    Image.new("RGB", (12, 12), (200, 99, 20)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no picture")
    return (
        f"{SKIPDIFF} upscale {tmp_path}/in -o {tmp_path}/out --model {model} --coarse-steps 2 --start 1 "
        f"--scale 2"
    )


def shell(command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120
    )


@pytest.mark.parametrize(
    ("streams", "printed", "told"),
    [
        (">&-", False, True), ("2>&-", True, False), (">&- 2>&-", False, False), ("--json >&-", False, True),
        ("-q <&- >&- 2>&-", False, False), ("2>/dev/full", True, False),
    ],
)  # fmt: skip
def test_missing_streams(streams: str, printed: bool, told: bool, upscale: str, tmp_path: Path) -> None:
    ran = shell(f"{upscale} {streams}")
    assert ran.returncode == 2  # because of b.png, and not 1 or 120
    assert "a.png" in ran.stdout if printed else ran.stdout == ""
    assert "b.png: is not a readable image" in ran.stderr if told else ran.stderr == ""
    assert "Traceback" not in ran.stderr
    with Image.open(tmp_path / "out" / "a.png") as image:  # nothing was printed into it either
        image.load()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


def test_a_reader_of_errors_that_is_gone(upscale: str, tmp_path: Path) -> None:
    ran = shell(f"{upscale} -q 2>&1 | true; exit ${{PIPESTATUS[0]}}")
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", "")
    assert (tmp_path / "out" / "a.png").is_file()


@pytest.mark.parametrize("command", ["info", "completion bash"])
def test_other_commands_without_streams(command: str) -> None:
    for streams in (">&-", ">&- 2>&-"):
        ran = shell(f"{SKIPDIFF} {command} {streams}")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_numbers_of_missing_streams_are_not_given_to_files(tmp_path: Path) -> None:
    code = (
        "import os, sys; from skipdiff_env.cli.streams import prepare_streams; prepare_streams();"
        f"file = open({str(tmp_path / 'a')!r}, 'w'); file.write(str(file.fileno() > 2));"
        "os.write(1, b'x'); os.write(2, b'x'); print('x'); print('x', file=sys.stderr)"
    )
    ran = shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-')
    assert ran.returncode == 0
    assert (tmp_path / "a").read_text() == "True"


def test_every_reason_of_several_at_once_is_printed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = [f"{i}.jpg" for i in range(6)]
    for i, name in enumerate(names):
        side, slow = (1200, True) if i % 2 else (64, False)
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name, quality=90, progressive=slow)
        (tmp_path / "in" / name).write_bytes((tmp_path / "in" / name).read_bytes()[:-2000])
    for jobs in (1, 2):
        ran = shell(
            f"{SKIPDIFF} upscale {tmp_path}/in -o {tmp_path}/out --scale 1.01 --model {model} --jobs {jobs}"
        )
        assert ran.returncode == 2
        *errors, summary = ran.stderr.splitlines()
        assert [line.partition(": is damaged")[0] for line in errors] == [
            f"skipdiff: error: {tmp_path}/in/{name}" for name in names
        ]
        assert summary.startswith("skipdiff: note: 6 of 6 failed: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_batch_that_is_ended_leaves_whole_files_alone(
    number: signal.Signals, jobs: int, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 60, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i:02}.png")
    command = [*SKIPDIFF.split(), "upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", model]
    process = subprocess.Popen(
        [*map(str, command), "--jobs", str(jobs), "--coarse-steps", "10"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(2):
        assert "evaluations" in process.stdout.readline()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "")
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert 2 <= len(names) < 40
    for name in names:
        with Image.open(tmp_path / "out" / name) as image:
            image.load()
            assert image.size == (240, 160)


def test_signals_are_as_before_afterwards_and_ignored_ones_stay_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_sigterm():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(SystemExit) as caught:
                signal.raise_signal(signal.SIGTERM)
        assert caught.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        entered = []

        def elsewhere() -> None:
            with ended_by_sigterm():
                entered.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert entered == [signal.SIG_DFL]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_line_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.skipif(not hasattr(signal, "SIGTERM"), reason="POSIX")
def test_an_end_is_no_error_even_if_a_library_takes_it_for_one() -> None:
    """What reads weights turns whatever interrupts it into a ValueError."""
    with pytest.raises(SystemExit) as caught, ended_by_sigterm():
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            raise ValueError("could not determine the shape") from None
    assert caught.value.code == 143
    with pytest.raises(ValueError, match="mine"), ended_by_sigterm():
        raise ValueError("mine")
