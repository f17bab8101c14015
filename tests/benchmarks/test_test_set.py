"""Rebuilding a test folder from a reader's own copy, found by name or by content."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.measure.test_set import LISTS, Wanted, pixel_hash, read_list, rebuild, run
from skipdiff_env import SkipDiffError
from skipdiff_env.images import open_source, read_image


@pytest.fixture
def copy(tmp_path):
    """A reader's copy: an upright-by-EXIF JPEG, a PNG that is cut out, one that is only known by content."""
    rng, folder = np.random.default_rng(0), tmp_path / "copy" / "deep"
    folder.mkdir(parents=True)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    photo.save(folder / "n01_fish.JPEG", exif=exif)
    photo.save(folder / "baboon.png")
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "whatever.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def lanczos(image, size):
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return np.asarray(
        image.crop((left, top, left + short, top + short)).resize((size, size), Image.Resampling.LANCZOS)
    )


def test_pictures_are_found_and_cut(copy, tmp_path):
    upright = Image.open(copy / "n01_fish.JPEG").convert("RGB").transpose(Image.Transpose.ROTATE_270)
    fish = lanczos(upright, 32)
    baboon = np.asarray(Image.open(copy / "baboon.png"))[14:46, 24:56]
    face = np.asarray(Image.open(copy / "whatever.png"))
    wanted = [
        Wanted("fish.png", pixel_hash(fish), "square 32", "n01_*.JPEG"),
        Wanted("baboon.png", pixel_hash(baboon), "centre 32", "baboon.png"),
        Wanted("face.png", pixel_hash(face), "square 32", ""),
        Wanted("other.png", "0" * 64, "square 32", "whatever.png"),
        Wanted("lost.png", "1" * 64, "square 32", "lost_*.JPEG"),
        Wanted("unseen.png", "2" * 64, "square 32", ""),
    ]
    out = tmp_path / "out"
    missing, differing = rebuild(wanted, [copy.parent], out)
    assert missing == ["lost.png", "unseen.png"] and differing == ["other.png"]
    for name, image in (("fish", fish), ("baboon", baboon), ("face", face)):
        assert np.array_equal(read_image(out / f"{name}.png"), image), name


def test_an_empty_copy_is_refused(tmp_path):
    with pytest.raises(SkipDiffError, match="no image files"):
        rebuild([], [tmp_path], tmp_path / "out")


@pytest.mark.parametrize(
    "name, count", [("imagenet256_test", 100), ("val_set14_bsd20", 31), ("faces128_test", 120)]
)
def test_lists_are_those_of_the_test_sets(name, count, data_dir):
    wanted = {item.image: item for item in read_list(LISTS / f"{name}.csv")}
    source = open_source(data_dir / f"{name}.tar")
    found = {source.name(i).rpartition("/")[2]: source[i] for i in range(len(source))}
    assert len(wanted) == count and set(wanted) == set(found)
    assert all(pixel_hash(found[image]) == item.sha256 for image, item in wanted.items())


def test_the_command_says_what_is_missing(copy, tmp_path, capsys):
    from argparse import Namespace

    assert run(Namespace(set="val_set14_bsd20", copy=[copy], out=tmp_path / "out")) == 1
    said = capsys.readouterr()
    assert said.out.startswith("0 of 31 pictures") and said.err.count("not found: ") == 31
