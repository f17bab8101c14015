"""A batch: every file that is written is known beforehand, and whatever fails, the others get done."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipdiff_env.images.formats.metadata import Metadata
from skipdiff_env.images.photo import FORMATS, Photo, read_photo
from skipdiff_env.images.photo_file import encode_photo
from skipdiff_env.upscale import list_jobs
from skipdiff_env.upscale import run as run_module
from tests.images.photo_files import SRGB

from .conftest import FAST, Ran, Upscale, left_in
from .test_process import listen_to_ctrl_c, start

RED, BLUE, GREEN = (200, 20, 20), (20, 20, 200), (20, 200, 20)


def flat(path: Path, colour: tuple[int, int, int] = RED, side: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)
    return path


def colour_of(path: Path) -> tuple[int, ...]:
    return tuple(int(n) for n in read_photo(path).colour[20, 20])


def like(colour: tuple[int, ...]) -> object:
    return pytest.approx(colour, abs=5)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failures_of(*arguments: object, **options: object) -> dict[str, str]:
    jobs, failures = list_jobs(*arguments, **options)  # type: ignore[arg-type]
    found = {failure.source: failure.reason for failure in failures}
    assert len(found) == len(failures)
    assert not found.keys() & {str(job.source) for job in jobs}
    return found


def test_a_sheet_does_not_replace_a_photograph(here: Path, upscale: Upscale) -> None:
    source = flat(here / "in" / "b-compare.png")
    data = source.read_bytes()
    ran = upscale("in/b-compare.png", "-o", "in/b.png", "--compare", "--force")
    assert (ran.status, source.read_bytes()) == (2, data)
    reason = "would replace the photograph in/b-compare.png: give another folder with -o"
    assert ran.err == f"skipdiff: error: in/b-compare.png: {reason}\n"
    flat(here / "in" / "b.jpg")
    ran = upscale("in/b.jpg", "in/b-compare.png", "-o", "in", "--format", "png", "--compare", "--force")
    assert (ran.status, source.read_bytes()) == (2, data)
    assert ran.err.count(reason) == 2
    assert left_in(here) == ["b-compare.png", "b.jpg", "in"]


def test_two_photographs_do_not_share_a_sheet(here: Path, upscale: Upscale) -> None:
    flat(here / "in" / "a.jpg"), flat(here / "in" / "a.png")
    ran = upscale("in", "-o", "out", "--compare", "--force")
    assert ran.status == 2
    reason = "would be compared in out/a-compare.png, which is taken by in/a.jpg: rename one of them"
    assert f"error: in/a.png: {reason}\n" in ran.err
    assert left_in(here / "out") == ["a-compare.png", "a.jpg"]


def test_a_sheet_does_not_replace_anothers_result(here: Path, upscale: Upscale) -> None:
    flat(here / "in" / "a.png"), flat(here / "in" / "a-compare.png", BLUE)
    ran = upscale("in", "-o", "out", "--compare", "--force")
    assert ran.status == 2
    assert "in/a.png: would be compared in out/a-compare.png, which is taken by in/a-compare.png" in ran.err
    assert left_in(here / "out") == ["a-compare-compare.png", "a-compare.png"]
    assert colour_of(here / "out" / "a-compare.png") == like(BLUE)
    assert upscale("in", "-o", "without").status == 0  # nothing is compared, and nothing is in the way
    assert left_in(here / "without") == ["a-compare.png", "a.png"]


def test_a_sheets_place_is_looked_at_like_a_results(here: Path) -> None:
    flat(here / "in" / "a.png"), flat(here / "in" / "b.png"), flat(here / "in" / f"{'c' * 245}.png")
    (here / "out" / "a-compare.png").mkdir(parents=True)
    found = failures_of(["in"], "out", compare=True)
    assert found["in/a.png"] == ("would be compared in out/a-compare.png, which is a folder: move it away")
    assert "File name too long" in found[f"in/{'c' * 245}.png"]
    assert len(found) == 2
    assert failures_of(["in"], "out") == {}


def test_a_photograph_that_keeps_its_name_goes_before_one_that_does_not(here: Path, upscale: Upscale) -> None:
    flat(here / "in" / "z.gif", BLUE), flat(here / "in" / "z.png", RED)
    ran = upscale("in", "-o", "out")
    assert ran.status == 2
    assert "error: in/z.gif: would become out/z.png, which is taken by in/z.png" in ran.err
    assert colour_of(here / "out" / "z.png") == like(RED)


def test_links_have_results_of_their_own(here: Path, upscale: Upscale) -> None:
    flat(here / "in" / "z.png"), flat(here / "else" / "y.png", BLUE)
    (here / "in" / "latest.png").symlink_to("z.png")
    (here / "in" / "there.png").symlink_to(here / "else" / "y.png")
    (here / "again").symlink_to("in")
    ran = upscale("in", "again", "in/../in/z.png", "-o", "out")
    assert (ran.status, ran.err) == (0, "")
    assert left_in(here / "out") == ["latest.png", "there.png", "z.png"]
    assert colour_of(here / "out" / "there.png") == like(BLUE)
    # neither a link nor what it leads to is replaced
    (here / "in" / "link").symlink_to(here / "else")
    for out in ("in", "else/y.png", "in/link/y.png"):
        assert "would replace the photograph" in failures_of(["in/there.png"], out)["in/there.png"]
    (here / "out" / "dangling.png").symlink_to("nowhere")
    flat(here / "in" / "dangling.png")
    assert "exists: --force replaces it" in upscale("in/dangling.png", "-o", "out/").err
    assert (here / "out" / "dangling.png").is_symlink()


def without_privileges() -> None:
    """In a child process: permissions count for root, too. Raises OSError where that cannot be had."""
    listen_to_ctrl_c()
    if os.getuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "prctl")


def run(*arguments: object) -> Ran:
    """``skipdiff upscale`` in a process of its own, which permissions bind."""
    try:
        process = start(*arguments, *FAST, preexec_fn=without_privileges)
    except subprocess.SubprocessError:
        pytest.skip("root may read everything here")
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out, err)


@pytest.fixture
def close() -> Iterator[Callable[[Path, int], None]]:
    """Closes folders until the test ends."""
    paths = []

    def close(path: Path, mode: int) -> None:
        path.chmod(mode)
        paths.append(path)

    yield close
    for path in paths:
        path.chmod(0o700)


def test_whatever_cannot_be_reached_fails_alone(
    tmp_path: Path, plain_folder: Path, close: Callable[[Path, int], None]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "open/b.png", "shut/c.png", "listed/d.png", "z.png"):
        flat(source / name)
    flat(source / "e.png").chmod(0)
    (source / "loop.png").symlink_to("loop.png")
    (source / "gone.png").symlink_to("nowhere.png")
    close(source / "shut", 0)
    close(source / "listed", 0o400)
    long = source / f"{'n' * 300}.png"
    ran = run(
        source, source / "shut" / "c.png", long, source / "open" / "b.png" / "x.png", f"{source}/shut/*.png",
        "-o", out, "--recursive", "--model", plain_folder,
    )  # fmt: skip
    reasons = {
        f"{source}/shut": "cannot be searched (Permission denied)",
        f"{source}/listed/d.png": "cannot be reached (Permission denied)",
        f"{source}/e.png": "cannot be opened (Permission denied)",
        f"{source}/loop.png": "cannot be reached (Too many levels of symbolic links)",
        f"{source}/gone.png": "no such file",
        f"{source}/shut/c.png": "cannot be reached (Permission denied)",
        f"{long}": "cannot be reached (File name too long)",
        f"{source}/open/b.png/x.png": "cannot be reached (Not a directory)",
        f"{source}/shut/": "cannot be searched (Permission denied)",
    }
    *errors, summary = ran.err.splitlines()
    assert sorted(errors) == sorted(f"skipdiff: error: {name}: {why}" for name, why in reasons.items())
    told = summary.removeprefix(f"skipdiff: note: {len(reasons)} of 12 failed: ").split(", ")
    assert sorted(told) == sorted(reasons)
    assert ran.status == 2
    assert left_in(out) == ["a.png", "b.png", "open", "z.png"]


def test_patterns_name_the_folders_that_they_cannot_look_into(
    tmp_path: Path, plain_folder: Path, close: Callable[[Path, int], None]
) -> None:
    flat(tmp_path / "in" / "x" / "a.png"), flat(tmp_path / "in" / "y" / "deep" / "b.png")
    flat(tmp_path / "in" / "shut" / "c.png")
    for folder in ("y/deep", "shut"):
        close(tmp_path / "in" / folder, 0)
    ran = run(f"{tmp_path}/in/**/*.png", "-o", tmp_path / "out", "--model", plain_folder)
    assert ran.status == 2
    for folder in ("shut", "y/deep"):
        line = f"skipdiff: error: {tmp_path}/in/{folder}/: cannot be searched (Permission denied)\n"
        assert ran.err.count(line) == 1
    assert left_in(tmp_path / "out") == ["a.png"]


def test_a_folder_that_cannot_be_written_into_is_named(
    tmp_path: Path, plain_folder: Path, close: Callable[[Path, int], None]
) -> None:
    photograph = flat(tmp_path / "a.png")
    (tmp_path / "out" / "deep").mkdir(parents=True)
    for mode in (0, 0o500):
        close(tmp_path / "out", mode)
        ran = run(photograph, "-o", tmp_path / "out" / "deep" / "x", "--model", plain_folder)
        assert ran.status == 2
        assert "is not writable: give another folder with -o" in ran.err
        assert len(ran.err.splitlines()) == 1
        (tmp_path / "out").chmod(0o700)
        (tmp_path / "out" / "deep").chmod(0o500)


def test_what_is_there_needs_no_folder_that_can_be_written_into(
    tmp_path: Path, plain_folder: Path, close: Callable[[Path, int], None]
) -> None:
    photograph, out = flat(tmp_path / "a.png"), tmp_path / "out" / "a.png"
    assert run(photograph, "-o", out, "--model", plain_folder).status == 0
    close(tmp_path / "out", 0o500)
    ran = run(photograph, "-o", out, "--resume", "--model", plain_folder)
    assert (ran.status, ran.out, ran.err) == (0, f"{out}: is there already\n", "")
    ran = run(photograph, "-o", out, "--resume", "--compare", "--model", plain_folder)
    assert ran.status == 2 and "is not writable: give another folder with -o" in ran.err


DEEP = "/".join(["d" * 250] * 20)
FILLED = DEEP[: os.pathconf("/", "PC_PATH_MAX") - 10]
"""A path that leaves room for a short name alone."""


@pytest.mark.parametrize(
    "out", [f"{'n' * 300}/", f"new/{'n' * 300}/deep/", f"{'写' * 90}/a.png", f"{DEEP}/", f"{FILLED}/a.png"]
)
def test_folders_that_cannot_be_are_known_beforehand(out: str, here: Path) -> None:
    flat(here / "a.png")
    (reason,) = failures_of(["a.png"], out).values()
    assert reason.endswith("which is not possible (File name too long): rename it, or give another -o")


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_photograph_that_meets_an_unknown_error_fails_alone(
    jobs: int, here: Path, upscale: Upscale, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, side in (("a", 12), ("b", 13), ("c", 12)):
        flat(here / "in" / f"{name}.png", side=side)
    encode = run_module.encode_photo

    def broken(photo: Photo, *arguments: object) -> object:
        if photo.size == (52, 52):
            raise ZeroDivisionError("a bug")
        return encode(photo, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "encode_photo", broken)
    ran = upscale("in", "-o", "out", "--jobs", jobs)
    assert ran.status == 2
    assert "error: in/b.png: unexpected ZeroDivisionError (a bug): please report it\n" in ran.err
    assert left_in(here / "out") == ["a.png", "c.png"]


def test_names_that_are_no_utf_8(tmp_path: Path, plain_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.png", os.fsdecode(b"caf\xe9.png"), "写.png", "z.png"]
    for name in names:
        flat(tmp_path / "in" / name)
    (tmp_path / "in" / os.fsdecode(b"b\xe9.png")).write_text("no picture")
    for encoding, told in (("utf-8:strict", "写"), ("ascii:strict", "\\u5199")):
        for mode in ([], ["--json"]):
            out = tmp_path / f"out-{encoding[:3]}{len(mode)}"
            monkeypatch.setenv("PYTHONIOENCODING", encoding)
            process = start(tmp_path / "in", "-o", out, "--model", plain_folder, *FAST, *mode)
            printed, errors = process.communicate(timeout=120)
            assert process.returncode == 2
            assert sorted(p.name for p in out.iterdir()) == sorted(names)
            assert "b\\udce9.png: is not a readable image" in errors
            assert "caf\\udce9.png" in printed and (mode or told in printed)


def test_names_as_long_as_the_system_allows(here: Path, upscale: Upscale) -> None:
    names = ["写" * 83 + ".png", "n" * 251 + ".png", "m" * 242 + ".png"]
    for name in names:
        flat(here / "in" / name)
    assert upscale("in", "-o", "out").status == 0
    assert left_in(here / "out") == sorted(names)
    ran = upscale("in", "-o", "sheets", "--compare")
    assert ran.status == 2
    assert ran.err.count("(File name too long)") == 2
    assert left_in(here / "sheets") == ["m" * 242 + "-compare.png", "m" * 242 + ".png"]


def test_large_texts_and_profiles_go_through(here: Path, upscale: Upscale) -> None:
    assert SRGB is not None
    grain = np.random.default_rng(0).integers(0, 256, 1_500_000).astype(np.uint8).tobytes()
    profile = (len(SRGB) + len(grain)).to_bytes(4, "big") + SRGB[4:] + grain
    pixels = np.full((12, 12, 3), 99, np.uint8)
    workflow = {"workflow": '{"nodes": []} ' * 120_000}
    for name, kind in (("scan.tif", "tiff"), ("own.png", "png")):
        data, _ = encode_photo(Photo(pixels, None, profile, Metadata(texts=workflow)), FORMATS[kind], "x", {})
        (here / name).write_bytes(data)
        for times in ("large", "larger"):
            out = here / f"{times}-{name}.png"
            source = here / (name if times == "large" else f"large-{name}.png")
            assert upscale(source, "-o", out).status == 0
            assert read_photo(out).profile == profile
            assert "is there already" in upscale(source, "-o", out, "--resume").out
    assert read_photo(here / "larger-own.png.png").metadata.texts["workflow"] == workflow["workflow"]


NAMES = ["a\nskipdiff: error: b.png", "\x1b[2J\x1b]0;title\x07c.png", "d\x9b31m.png", "e\u202egnp.png",
         "f  g\t.png", "h\r.png", "ö京 👩\u200d🔬.png"]  # fmt: skip
"""Names of files that would write lines of their own, or make the terminal do something."""


@pytest.mark.parametrize("mode", [[], ["--compare"], ["--dry-run"]])
def test_names_that_terminals_would_obey(mode: list[str], here: Path, upscale: Upscale) -> None:
    for name in NAMES:
        flat(here / "in" / name)
        (here / "in" / f"x{name}").write_text("no picture")
    for again in ([], ["--resume"]):
        ran = upscale("in", "-o", "out", *mode, *again)
        assert ran.status == 2
        assert len(ran.out.split("\n")) == len(NAMES) + 1
        assert len(ran.err.split("\n")) == len(NAMES) + 2
        for name in NAMES:
            told = ascii(name)[1:-1] if name.isascii() or "\x9b" in name or "\u202e" in name else name
            assert f"in/{told} (12x12)" in ran.out or f"{told}: is there already\n" in ran.out
            assert f"error: in/x{told}: is not a readable image" in ran.err
            assert f"in/x{told}" in ran.err.split("\n")[-2]
        assert not set("\x1b\x07\x9b\r\t\u202e") & set(ran.out + ran.err)
