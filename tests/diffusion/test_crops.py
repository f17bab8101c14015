"""The image bank: which pixels a crop holds, how evenly it is drawn, and loading from every kind of place."""

import gzip
import io
import itertools
import tarfile
from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training.data.bank import ImageBank, load_bank


def labelled(number, height, width):
    """Every pixel says which image it is from and where it lies: (number, y, x)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([np.full((height, width), number), y, x], -1).astype(np.uint8)


def symmetries(window):
    """The eight turns and mirrors of a square (S, S, 3) window."""
    return [np.rot90(flipped, k) for flipped in (window, window[:, ::-1]) for k in range(4)]


SIDES = [(9, 14), (7, 7), (12, 8), (7, 20), (15, 15)]
BANK = [labelled(i, *side) for i, side in enumerate(SIDES)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def describe(crop):
    """(image, top, left, index of the symmetry) of a labelled crop (3, S, S)."""
    image = crop.permute(1, 2, 0).numpy()
    number, (top, left), size = int(image[0, 0, 0]), image[..., 1:].min((0, 1)), len(image)
    window = BANK[number][top : top + size, left : left + size]
    found = [i for i, turned in enumerate(symmetries(window)) if np.array_equal(turned, image)]
    assert len(found) == 1, "a crop must be one of the eight symmetries of one window of one image"
    return number, int(top), int(left), found[0]


@pytest.mark.parametrize("size", [2, 5, 7])
def test_crops_are_windows_of_one_image_in_one_of_eight_symmetries(size):
    crops = ImageBank(BANK).crops(size, 400, generator())
    assert crops.shape == (400, 3, size, size) and crops.dtype == torch.uint8
    seen = [describe(crop) for crop in crops]
    assert {s[0] for s in seen} == set(range(5)) and {s[3] for s in seen} == set(range(8))
    for number, top, left, _ in seen:
        assert 0 <= top <= SIDES[number][0] - size and 0 <= left <= SIDES[number][1] - size


def chi_square(counts, expected):
    return sum((n - expected) ** 2 / expected for n in counts)


def test_images_places_and_symmetries_are_drawn_evenly():
    """Chi-square tests at about the 0.01 % point, from one fixed seed."""
    bank, draws = ImageBank(BANK), 8000
    seen = [describe(crop) for crop in bank.crops(7, draws, generator(1))]
    images, turns = Counter(s[0] for s in seen), Counter(s[3] for s in seen)
    assert chi_square([images[i] for i in range(5)], draws / 5) < 24
    assert chi_square([turns[i] for i in range(8)], draws / 8) < 30
    for number, (height, width) in enumerate(SIDES):
        places = Counter(s[1:3] for s in seen if s[0] == number)
        every = list(itertools.product(range(height - 6), range(width - 6)))
        freedom = len(every) - 1
        bound = freedom + 4 * (2 * freedom) ** 0.5 + 10
        assert chi_square([places[p] for p in every], images[number] / len(every)) <= bound
    together = Counter((s[0], s[3]) for s in seen)  # independent of one another
    assert chi_square([together[pair] for pair in itertools.product(range(5), range(8))], draws / 40) < 80


def test_the_generator_alone_decides():
    bank = ImageBank(BANK)
    first, again, other = (bank.crops(5, 32, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    source = generator(3)
    bank.crops(5, 32, source)
    assert not torch.equal(bank.crops(5, 32, source), first)
    state = torch.get_rng_state()
    bank.crops(5, 32, generator(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_of_a_batch_are_those_of_the_whole():
    """Machines that share a batch cut different rows of the same draw."""
    bank = ImageBank(BANK)
    whole = bank.crops(5, 16, generator(3))
    parts = [bank.crops(5, 16, generator(3), rows=slice(i, i + 4)) for i in range(0, 16, 4)]
    assert torch.equal(torch.cat(parts), whole)


def test_orientations_can_be_limited():
    bank = ImageBank(BANK)
    kinds = {
        name: {describe(c)[3] for c in bank.crops(5, 200, generator(), orientations=name)}
        for name in ("mirror", "none")
    }
    assert kinds == {"none": {0}, "mirror": {0, 4}}


def test_zoomed_windows_are_shrunk():
    """A smooth ramp stays a ramp, steeper by the zoom; every window keeps to its image."""
    y, x = np.mgrid[:60, :80]
    bank = ImageBank([np.stack([2 * x, 2 * y, 0 * x], -1).astype(np.uint8)])
    crops = bank.crops(16, 64, generator(), orientations="none", zoom=3.0).float()
    slope = (crops[:, 0, 8, 12] - crops[:, 0, 8, 4]) / 8 / 2
    assert slope.min() >= 0.95 and slope.max() <= 3.05 and slope.max() - slope.min() > 0.5
    torch.testing.assert_close(slope, (crops[:, 1, 12, 8] - crops[:, 1, 4, 8]) / 8 / 2, atol=0.1, rtol=0)
    assert (crops[:, 2] == 0).all()


def test_weights_and_held_out_images():
    bank = ImageBank(BANK, weights=[1, 0, 3, 0, 0])
    counts = Counter(describe(c)[0] for c in bank.crops(3, 4000, generator()))
    assert set(counts) == {0, 2} and 2.6 < counts[2] / counts[0] < 3.4
    bank = ImageBank(BANK)
    held = bank.hold_out(2)
    names = {int(image[0, 0, 0]) for image in held}
    assert len(names) == 2 and all(np.array_equal(image, BANK[image[0, 0, 0]]) for image in held)
    assert names.isdisjoint(describe(c)[0] for c in bank.crops(3, 500, generator()))


def test_whole_images_come_back():
    bank = ImageBank(BANK)
    assert len(bank) == 5 and bank.nbytes == 3 * sum(h * w for h, w in SIDES)
    for i, image in enumerate(BANK):
        np.testing.assert_array_equal(bank.image(i), image)


def test_views_are_copied_right():
    turned = BANK[0].transpose(1, 0, 2)[:, ::-1]
    np.testing.assert_array_equal(ImageBank([turned, BANK[1]]).image(0), turned)


def test_crops_larger_than_an_image_are_refused():
    """Not cut from the next image's pixels."""
    with pytest.raises(ValueError, match="8"):
        ImageBank(BANK).crops(8, 64, generator())


def test_an_empty_bank_is_refused():
    with pytest.raises(SkipDiffError, match="no training images"):
        ImageBank([])


# Loading


def encode(image, suffix=".png", *flags):
    return cv2.imencode(suffix, image[..., ::-1], list(flags))[1].tobytes()


def picture(seed, height=20, width=24):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def tar_of(files, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def places(tmp_path):
    """The same four pictures as a folder, a tar, a compressed tar and a list."""
    pictures = [picture(i) for i in range(4)]
    data = [encode(p) for p in pictures]
    names = ["a.png", "b.PNG", "deep/er/c.png", "deep/d.png"]
    for name, content in zip(names, data, strict=True):
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tmp_path / "folder" / "notes.md").write_text("not a picture")
    (tmp_path / "folder" / "album.png").mkdir()
    files = {f"set/{name}": content for name, content in zip(names, data, strict=True)}
    (tmp_path / "set.tar").write_bytes(tar_of({**files, "set/notes.md": b"not a picture"}))
    (tmp_path / "set.tar.gz").write_bytes(tar_of(files, "w:gz"))
    (tmp_path / "list.txt").write_text("\n".join(f"folder/{name}" for name in names) + "\n\n")
    return tmp_path, pictures


@pytest.mark.parametrize("name", ["folder", "set.tar", "set.tar.gz", "list.txt"])
def test_every_kind_of_place(places, name):
    where, pictures = places
    bank, report = load_bank([where / name], 16)
    assert (report.loaded, report.corrupt, report.too_small) == (4, [], 0)
    loaded = [bank.image(i) for i in range(4)]
    for wanted in pictures:
        assert sum(np.array_equal(wanted, image) for image in loaded) == 1  # RGB, not BGR


def test_places_add_up_in_order(places):
    where, pictures = places
    bank, report = load_bank([where / "folder" / "a.png", where / "set.tar"], 16)
    assert report.loaded == 5
    for i, number in enumerate([0, 0, 1, 2, 3]):
        np.testing.assert_array_equal(bank.image(i), pictures[number])


def test_corrupt_and_small_images_are_named_and_counted(tmp_path):
    good = encode(picture(0, 40, 60))
    files = {
        "good.png": good,
        "half.png": good[: len(good) // 2],
        "half.jpg": encode(picture(0, 40, 60), ".jpg")[:-300],
        "empty.png": b"",
        "text.jpg": b"hello" * 50,
        "small.png": encode(picture(1, 31, 90)),
        "just.png": encode(picture(2, 32, 90)),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    bank, report = load_bank([tmp_path], 32)
    assert report.loaded == len(bank) == 2 and report.too_small == 1
    assert sorted(name.rsplit("/", 1)[-1] for name in report.corrupt) == [
        "empty.png", "half.jpg", "half.png", "text.jpg",
    ]  # fmt: skip
    assert str(report).startswith("2 ") and "4 corrupt" in str(report) and "half.jpg" in str(report)


def test_grey_alpha_and_deep_images_become_rgb(tmp_path):
    grey = picture(0)[..., 0]
    (tmp_path / "grey.png").write_bytes(cv2.imencode(".png", grey)[1].tobytes())
    alpha = np.concatenate([picture(1), picture(2)[..., :1]], -1)
    (tmp_path / "rgba.png").write_bytes(cv2.imencode(".png", alpha[..., [2, 1, 0, 3]])[1].tobytes())
    deep = picture(3).astype(np.uint16) * 257
    (tmp_path / "zdeep.png").write_bytes(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())
    bank, _ = load_bank([tmp_path], 16)
    np.testing.assert_array_equal(bank.image(0), np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(bank.image(1), alpha[..., :3])
    np.testing.assert_array_equal(bank.image(2), picture(3))


def test_large_images_can_be_shrunk_to_a_short_side(tmp_path):
    for name, size in {"wide": (40, 90), "tall": (90, 40), "fits": (20, 50)}.items():
        (tmp_path / f"{name}.png").write_bytes(encode(picture(0, *size)))
    bank, _ = load_bank([tmp_path], 16, resize_short=20)
    assert [bank.image(i).shape for i in range(3)] == [(20, 50, 3), (45, 20, 3), (20, 45, 3)]


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    (tmp_path / "small.png").write_bytes(encode(picture(0)))
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(SkipDiffError, match="1 corrupt, 1 with a side below 64 pixels"):
        load_bank([tmp_path], 64)
    with pytest.raises(SkipDiffError, match="no training data at .*nowhere"):
        load_bank([tmp_path / "nowhere"], 16)


@pytest.mark.parametrize("kind", ["cut tar", "cut gzip", "noise", "list of nothing"])
def test_broken_places_are_refused_by_name_in_one_line(tmp_path, kind):
    tar = tar_of({f"{i}.png": encode(picture(i)) for i in range(3)})
    path = tmp_path / "broken"
    if kind == "cut tar":
        path.write_bytes(tar[: len(tar) // 4])
    elif kind == "cut gzip":
        packed = gzip.compress(tar)
        path.write_bytes(packed[: len(packed) // 2])
    elif kind == "noise":
        path.write_bytes(bytes(range(256)) * 40)
    else:
        path = tmp_path / "broken.txt"
        path.write_text("nowhere.png\n")
    with pytest.raises(SkipDiffError) as caught:
        load_bank([path], 16)
    message = str(caught.value)
    assert ("nowhere.png" if kind == "list of nothing" else "broken") in message and "\n" not in message
