"""``skipdiff upscale`` in every kind of trouble: nothing is lost, nothing is left half done."""

from __future__ import annotations

import errno
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from skipdiff_env.cli import main
from skipdiff_env.images.photo import read_photo
from skipdiff_env.upscale import run as run_module
from tests.images.photo_files import pillow
from tests.images.test_photo_faults import BAD

from .conftest import Upscale, left_in


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(name: str, upscale: Upscale, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    BAD[name][0](tmp_path / "in" / "a.png")
    ran = upscale(tmp_path / "in" / "a.png", "-o", tmp_path / "out" / "x.png")
    assert ran.status == 2
    assert ran.out == ""
    assert re.fullmatch(r"skipdiff: error: .+\n", ran.err)
    assert not (tmp_path / "out").exists()


def test_one_pixel_is_too_small(upscale: Upscale, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(pillow(np.zeros((1, 1, 3), np.uint8), "PNG"))
    ran = upscale(tmp_path / "a.png", "-o", tmp_path / "out/")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.endswith("a.png: 1x1 is too small to enlarge: each side needs at least 4 pixels\n")
    assert left_in(tmp_path) == ["a.png"]


def test_in_a_folder_the_others_get_done(upscale: Upscale, photograph: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a", "c", "e"):
        (source / f"{name}.png").write_bytes(photograph.read_bytes())
    (source / "b.png").write_bytes(photograph.read_bytes()[:80])
    (source / "d.png").write_bytes(b"rubbish")
    ran = upscale(source, "-o", tmp_path / "out")
    assert ran.status == 2
    assert left_in(tmp_path / "out") == ["a.png", "c.png", "e.png"]
    assert len(ran.out.splitlines()) == 3
    errors = ran.err.splitlines()
    assert len(errors) == 3
    assert errors[-1] == f"skipdiff: note: 2 of 5 failed: {source}/d.png, {source}/b.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nobody-4x"], "unknown model 'nobody-4x'"),
        (["--start", "51"], "start=51 must be a whole number from 1"),
        (["--coarse-steps", "7"], "coarse_steps=7 must divide"),
        (["--device", "cuda:99"], "there is no device 'cuda:99' here: use auto or cpu"),
        (["--device", "rubbish"], "there is no device 'rubbish'"),
        (["--tile", "100"], "a tile of 100 pixels does not fit the model"),
        (["--scale", "2", "--width", "100"], "give either --scale, or --width and --height"),
        (["--policy", "gone.onnx"], "gone.onnx is missing: give a policy file"),
        (["--policy", "agent.zip"], "unknown policy 'agent.zip'"),
        (["--policy", "skip", "--start", "3"], "give only one of --effort, --start and --policy"),
        (["--policy", "ccsr:2"], "ccsr:2 has its own levels: leave out the coarse steps"),
        (["--policy", "ccsr:0"], "CCSR: steps=0 must be a whole number of at least 1"),
        (["--policy", "addsr:5"], "AddSR: steps=5 must be a whole number from 1 to 4"),
        (["--policy", "addsr:few"], "policy 'addsr:few' must give a number of evaluations, such as addsr:2"),
        (["--refiner", "natural-4x"], "has no refiner"),
        (["--width", "14"], "is not larger: ask for a larger --scale, --width or --height"),
        (["--effort", "fast"], "give either --effort or --coarse-steps: each effort has its own steps"),
        (["--score", "psnr"], "needs an original"),
        (["--score", "no-such-metric"], "no-such-metric"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], message: str, photograph: Path, tmp_path: Path, plain_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = [] if "--model" in arguments else ["--model", str(plain_folder)]
    coarse = [] if "--coarse-steps" in arguments else ["--coarse-steps", "2"]
    status = main(["upscale", str(photograph), "-o", str(tmp_path / "a.png"), *model, *coarse, *arguments])
    error = capsys.readouterr().err
    assert status == 2
    assert re.fullmatch(r"skipdiff: error: .+\n", error)
    assert message in error
    assert left_in(tmp_path) == ["in.png"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--scale", "nan"], "is not a number above 1, at most 64"), (["--scale", "0"], ""),
        (["--scale", "1"], "'1' is not a number above 1, at most 64"), (["--scale", "1e9"], ""),
        (["--width", "0"], ""), (["--width", "2000000"], "'2000000' is not a whole number from 1 to 1000000"),
        (["--step-cost", "1e7"], "'1e7' is not a number from 0 to 1000000"), (["--seed", "-1"], ""),
        (["--quality", "101"], ""), (["--format", "gif"], ""), (["--jobs", "0"], ""), (["--nonsense"], ""),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["upscale", "a.png", "-o", "b.png", *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"skipdiff: error: .+\n", error) and told in error


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    code: int, upscale: Upscale, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    ran = upscale(photograph, "-o", tmp_path / "new" / "deep" / "a.png")
    assert ran.status == 2
    out = tmp_path / "new" / "deep" / "a.png"
    assert ran.err.startswith(f"skipdiff: error: {photograph}: cannot write {out}: {os.strerror(code)}")
    assert len(ran.err.splitlines()) == 1
    assert left_in(tmp_path) == ["in.png"]


def test_what_a_format_cannot_hold_is_known_beforehand(upscale: Upscale, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(pillow(np.zeros((4, 4097, 1), np.uint8), "PNG"))
    ran = upscale(tmp_path / "a.png", "-o", tmp_path / "a.webp", "--dry-run")
    assert ran.status == 2
    assert "16388x16 does not fit WEBP (at most 16383 pixels per side): use --format png" in ran.err


def test_memory_limits_how_many_are_made_at_once(
    upscale: Upscale, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(run_module, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(run_module, "_room", lambda enlarger, job, size: run_module._Room(100, 0))
    for free, workers in ((1000, [5]), (350, [5, 3]), (150, [5, 3])):
        monkeypatch.setattr(run_module, "free_memory", lambda device, free=free: free)
        assert upscale(photograph, "-o", tmp_path / "a.png", "--jobs", 5, "--force").status == 0
        assert asked == workers


def test_memory_is_asked_for_beforehand(
    upscale: Upscale, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "free_memory", lambda device: 10**5)
    ran = upscale(photograph, "-o", tmp_path / "a.png")
    assert ran.status == 2
    assert "GB are free: ask for a smaller --scale" in ran.err


def test_running_out_of_memory_is_one_line(
    upscale: Upscale, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: object
) -> None:
    def out_of_memory(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(plain, "predict", out_of_memory)
    ran = upscale(photograph, "-o", tmp_path / "a.png")
    assert ran.status == 2
    assert ran.err.endswith("ran out of memory: give a smaller --tile, --scale or --jobs\n")


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_interruption_leaves_no_partial_file(
    jobs: int, upscale: Upscale, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i in range(6):
        (source / f"{i}.png").write_bytes(photograph.read_bytes())
    write, count = run_module.write_atomically, 0

    def interrupted(path: Path, data: bytes, replace: bool) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        write(path, data, replace)

    monkeypatch.setattr(run_module, "write_atomically", interrupted)
    ran = upscale(source, "-o", tmp_path / "out", "--jobs", jobs)
    assert ran.status == 130
    assert ran.err == "skipdiff: interrupted\n"
    for path in (tmp_path / "out").iterdir():
        assert read_photo(path).size == (56, 40)
    if jobs == 1:
        assert left_in(tmp_path / "out") == ["0.png", "1.png"]
