"""From what was typed to pairs of files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.upscale import list_jobs


def picture(path: Path, name: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(path, name)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/b.JPG", "in/c.gif", "in/sub/d.tif", "in/sub/deep/e.webp", "in/.hidden.png"):
        picture(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / ".git").mkdir()
    picture(tmp_path / "in" / ".git" / "f.png")
    return tmp_path


def pairs(*arguments: object, **options: object) -> dict[str, str]:
    jobs, failures = list_jobs(*arguments, **options)  # type: ignore[arg-type]
    assert not failures
    return {str(job.source): str(job.target) for job in jobs}


def test_one_file_to_one_file(here: Path) -> None:
    assert pairs(["in/a.png"], "x.jpg") == {"in/a.png": "x.jpg"}
    assert list_jobs(["in/a.png"], "x.jpg")[0][0].format.name == "jpeg"
    assert pairs(["in/a.png"], "new/deep/x.TIF") == {"in/a.png": "new/deep/x.TIF"}


def test_patterns_do_not_find_their_own_results(here: Path) -> None:
    asked = {"in/a.png": "out/a.png"}
    assert pairs(["**/a.*"], "out") == asked
    picture(here / "out" / "a.png")
    assert pairs(["**/a.*"], "out") == asked
    assert pairs(["./*/a.*"], "out") == asked
    assert pairs(["out/*.png"], "out", format="webp") == {"out/a.png": "out/a.webp"}


def test_folders_are_searched_and_keep_their_shape(here: Path) -> None:
    assert pairs(["in"], "out") == {"in/a.png": "out/a.png", "in/b.JPG": "out/b.JPG", "in/c.gif": "out/c.png"}
    assert pairs(["in"], "out", recursive=True) == {
        "in/a.png": "out/a.png", "in/b.JPG": "out/b.JPG", "in/c.gif": "out/c.png",
        "in/sub/d.tif": "out/sub/d.tif", "in/sub/deep/e.webp": "out/sub/deep/e.webp",
    }  # fmt: skip
    assert pairs(["in"], "out/", format="webp")["in/b.JPG"] == "out/b.webp"


def test_patterns(here: Path) -> None:
    assert set(pairs(["in/*.[pg]*"], "out")) == {"in/a.png", "in/c.gif"}
    assert pairs(["in/**/*.tif"], "out") == {"in/sub/d.tif": "out/d.tif"}
    picture(here / "odd[1].png")
    assert pairs(["odd[1].png"], "out.png") == {"odd[1].png": "out.png"}


def test_what_was_made_is_not_made_again(here: Path) -> None:
    picture(here / "in/large/a.png")
    assert "in/large/a.png" not in pairs(["in"], "in/large", recursive=True)
    assert pairs(["in/a.png", "./in/a.png", "in/../in/a.png"], "out") == {"in/a.png": "out/a.png"}


@pytest.mark.parametrize(
    ("inputs", "out", "options", "message"),
    [
        (["in/a.png"], "x.gif", {}, "cannot write .gif files"),
        (["in/a.png"], "", {}, "-o is empty"),
        (["in/a.png"], "x.heic", {}, "cannot write .heic files"),
        (["in/a.png"], "x.jp2", {}, "cannot write .jp2 files"),
        (["in/a.png"], "-", {}, "-o -: results are not written to standard output: give a file or a folder"),
        (["in"], "x.png", {}, "^in may stand for several photographs, .* give a folder with -o, or name one"),
        (["in/*.png"], "x.png", {}, "may stand for several photographs"),
        (["in/a.png", "in/b.JPG"], "x.png", {}, "^several photographs cannot all be written to x.png"),
        (["in/a.png"], "folder.png", {}, "folder.png is a folder: name a file in it"),
        (["in/a.png"], "x.png", {"format": "jpeg"}, "x.png would not be a JPEG file"),
    ],
)
def test_outputs_that_do_not_fit(
    here: Path, inputs: list[str], out: str, options: dict, message: str
) -> None:
    (here / "folder.png").mkdir()
    with pytest.raises(SkipDiffError, match=message):
        list_jobs(inputs, out, **options)


@pytest.mark.parametrize("out", ["out", "out/", "out.v2/", "2024.06", "out.old photos"])
def test_folders_as_output(here: Path, out: str) -> None:
    assert pairs(["in/a.png"], out) == {"in/a.png": f"{out.rstrip('/')}/a.png"}
    (here / "x.heic").mkdir()
    assert pairs(["in/a.png"], "x.heic") == {"in/a.png": "x.heic/a.png"}


@pytest.mark.parametrize(
    ("inputs", "out", "reason"),
    [
        (["gone.png"], "out", "no such file"),
        (["in/notes.txt"], "out", "not a readable image"),
        (["nothing*"], "out", "matches no file"),
        ([""], "out", "is empty"),
        (["empty"], "out", "holds no images; --recursive"),
        (["in/a.png"], "in", "would replace the photograph in/a.png"),
        (["in/a.png"], "in/a.png", "would replace the photograph"),
        (["in/a.png", "in/sub/a.png"], "out", "which is taken by in/a.png: rename one of them"),
        (["in/a.png"], "in/b.JPG/x.png", "in/b.JPG is not a folder"),
        (["in/a.png"], "taken", "is a folder: move it away"),
    ],
)
def test_single_photographs_that_cannot_be_done(here: Path, inputs: list[str], out: str, reason: str) -> None:
    (here / "empty").mkdir()
    (here / "taken" / "a.png").mkdir(parents=True)
    picture(here / "in/sub/a.png")
    jobs, failures = list_jobs(inputs, out)
    assert len(failures) == 1
    assert reason in failures[0].reason
    assert len(jobs) == len(inputs) - 1


def test_the_content_decides_the_format(here: Path) -> None:
    picture(here / "in/really.png", "JPEG")
    jobs, _ = list_jobs(["in/really.png"], "out")
    assert str(jobs[0].target) == "out/really.jpg"
    assert jobs[0].format.name == "jpeg"


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("scan.1", "scan.1.png"),
        ("scan.2", "scan.2.png"),
        ("x", "x.png"),
        ("x.GIF", "x.png"),
        (".a", ".a.png"),
    ],
)
def test_only_suffixes_of_images_are_replaced(name: str, result: str, here: Path) -> None:
    picture(here / name, "PNG")
    assert pairs([name], "out") == {name: f"out/{result}"}


NAMES = [
    "a.png",
    "a.jpg",
    "a.gif",
    "a-compare.png",
    "a-compare-compare.png",
    "b.png",
    "b.tif",
    "b-compare.jpg",
]


@settings(deadline=None, max_examples=200)
@given(
    there=st.dictionaries(
        st.sampled_from(NAMES), st.sampled_from(["PNG", "JPEG", "GIF", "link", "rubbish"]), min_size=1
    ),
    out=st.sampled_from(["out", "in", "in/out", "link"]),
    format=st.sampled_from([None, "png", "jpeg"]),
    compare=st.booleans(),
)
def test_every_input_is_accounted_for_and_no_two_files_are_one(
    there: dict[str, str], out: str, format: str | None, compare: bool, folder: Path
) -> None:
    root = Path(tempfile.mkdtemp(dir=folder))
    (root / "in").mkdir()
    (root / "link").symlink_to("in")
    for name, kind in there.items():
        if kind == "link":
            (root / "in" / name).symlink_to(min(there))
        elif kind == "rubbish":
            (root / "in" / name).write_text("rubbish")
        else:
            picture(root / "in" / name, kind)
    jobs, failures = list_jobs([f"{root}/in", f"{root}/link"], f"{root}/{out}", True, format, compare)
    sources = [str(job.source) for job in jobs] + [failure.source for failure in failures]
    assert sorted(sources) == sorted(f"{root}/in/{name}" for name in there)
    writes = [path for job in jobs for path in (job.target, job.sheet) if path is not None]
    assert len(writes) == len(jobs) * (1 + compare)
    places = {os.path.join(os.path.realpath(path.parent), path.name) for path in writes}
    assert len(places) == len(writes)
    inputs = {os.path.realpath(root / "in" / name) for name in there} | {
        f"{root}/in/{name}" for name in there
    }
    assert not places & {os.path.join(os.path.realpath(root), os.path.relpath(i, root)) for i in inputs}
