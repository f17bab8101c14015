"""Every kind of ``images=``: order, names, decoding, limits and refusals; the bundled photographs."""

from __future__ import annotations

import io
import pickle
import tarfile
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import (
    PHOTOGRAPHS,
    ImageSource,
    bundled,
    bundled_images,
    demo_photograph,
    encode_image,
    mixed_quality,
    open_source,
    read_image,
    write_image,
)
from skipdiff_env.images.mixed import KINDS, kind


def noise(seed: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_holds(source: ImageSource, names: list[str], images: list[np.ndarray]) -> None:
    assert [source.name(index) for index in range(len(source))] == names
    for got, expected in zip(source, images, strict=True):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected)


# -- the kinds


def test_folder_is_sorted_flat_and_skips_what_is_no_image(tmp_path: Path) -> None:
    for seed, name in enumerate(["b.PNG", "a.tif", "c.bmp"]):
        write_image(tmp_path / name, noise(seed))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "._a.png").write_text("what macOS leaves behind")
    (tmp_path / "deeper.png").mkdir()
    write_image(tmp_path / "deeper.png" / "d.png", noise(9))
    assert_holds(open_source(str(tmp_path)), ["a.tif", "b.PNG", "c.bmp"], [noise(1), noise(0), noise(2)])


def make_tar(path: Path, members: dict[str, bytes], mode: Literal["w", "w:gz"] = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_tar_is_read_in_place(tmp_path: Path) -> None:
    members = {f"set/{name}.png": encode_image(noise(seed), "x.png") for seed, name in enumerate("cab")}
    path = make_tar(tmp_path / "set.tar", {"set/README.md": b"x", "set/._a.png": b"x", **members})
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("set/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    names = ["set/a.png", "set/b.png", "set/c.png"]
    assert_holds(open_source(path), names, [noise(1), noise(2), noise(0)])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["set.tar"]


def test_single_file_and_lists(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise(0))
    assert_holds(open_source(tmp_path / "a.png"), ["a.png"], [noise(0)])
    mixed = [str(tmp_path / "a.png"), noise(1), Image.fromarray(noise(2)), torch.ones(3, 2, 2)]
    names = [str(tmp_path / "a.png"), "images[1]", "images[2]", "images[3]"]
    assert_holds(open_source(mixed), names, [noise(0), noise(1), noise(2), np.full((2, 2, 3), 255)])
    assert_holds(open_source(noise(3)), ["images[0]"], [noise(3)])
    assert_holds(open_source(Image.fromarray(noise(4))), ["images[0]"], [noise(4)])


class Listed(torch.utils.data.Dataset[Any]):
    """A map-style dataset that has no end of its own: indexing must stay within its length."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index % len(self.items)]


def test_dataset_items_of_every_kind() -> None:
    tensor = torch.from_numpy(noise(3)).permute(2, 0, 1)
    dataset = Listed(
        noise(0), Image.fromarray(noise(1)), (noise(2), "label"), tensor / 255, tensor, [tensor / 255, 4]
    )
    names = [f"Listed[{index}]" for index in range(6)]
    assert_holds(open_source(dataset), names, [noise(0), noise(1), noise(2)] + 3 * [noise(3)])


def test_tensor_dataset_and_batches() -> None:
    images = np.stack([noise(0), noise(1)])
    floats = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    for given_images in (torch.utils.data.TensorDataset(floats), floats, images):
        for index, image in enumerate(open_source(given_images)):
            np.testing.assert_array_equal(image, images[index])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 255), st.sampled_from([torch.float32, torch.float64]))
def test_float_tensors_round_trip_every_level(level: int, dtype: torch.dtype) -> None:
    tensor = torch.full((3, 1, 1), level / 255, dtype=dtype)
    assert open_source([tensor])[0].tolist() == [[[level] * 3]]


def test_source_passes_through() -> None:
    source = open_source([noise(0)])
    assert open_source(source) is source and not source.low_resolution
    low = open_source([noise(0)], low_resolution=True)
    assert low.low_resolution and open_source(low, low_resolution=True) is low
    with pytest.raises(SkipDiffError, match="low_resolution=True, not False"):
        open_source(low)


# -- behaviour


def test_indexing_like_a_sequence() -> None:
    source = open_source([noise(0), noise(1)])
    np.testing.assert_array_equal(source[-1], noise(1))
    np.testing.assert_array_equal(source[np.int64(1)], noise(1))
    with pytest.raises(IndexError):
        source[2]


def test_some_of_a_source_spread_over_it_keep_their_own_faults() -> None:
    arrays = [np.full((1, 1, 3), i, np.uint8) for i in range(10)]
    source = open_source(arrays).degraded(lambda lr, index: lr + np.uint8(100 + index))
    some = source.take(3, first=1, every=4)
    assert [int(image[0, 0, 0]) for image in some] == [1, 5, 9]
    assert some.degrade is not None
    assert [int(some.degrade(arrays[0], i)[0, 0, 0]) for i in range(3)] == [101, 105, 109]
    assert len(source.take(2, every=4)) == 2


def test_every_image_in_every_kind() -> None:
    pictures = [np.full((32, 32, 3), 60 * i, np.uint8) for i in range(3)]
    mixed = mixed_quality(open_source(pictures), every_kind=True)
    assert len(mixed) == 3 * len(KINDS)
    for index in range(len(mixed)):
        np.testing.assert_array_equal(mixed[index], pictures[index // len(KINDS)])
        assert mixed.name(index) == f"images[{index // len(KINDS)}], {kind(index)}"
    lr = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert mixed.degrade is not None
    changed = [bool((mixed.degrade(lr, index) != lr).any()) for index in range(len(mixed))]
    assert changed == [kind(index) != "clean" for index in range(len(mixed))]


def test_images_are_shared_but_protected() -> None:
    array = noise(0)
    source = open_source([array])
    with pytest.raises(ValueError, match="read-only"):
        source[0][:] = 0
    array[:] = 0  # the caller's own array stays writable
    assert np.shares_memory(source[0], array)


def counting_source(sizes: list[int], cache_bytes: int) -> tuple[ImageSource, list[int]]:
    loads: list[int] = []

    def load(index: int) -> np.ndarray:
        loads.append(index)
        return np.full((1, sizes[index], 3), index, np.uint8)

    items = [(str(index), partial(load, index)) for index in range(len(sizes))]
    return ImageSource(items, cache_bytes=cache_bytes), loads


def test_least_recently_used_leaves_first() -> None:
    source, loads = counting_source([10, 10, 10], cache_bytes=60)  # room for two
    for index in (0, 1, 0, 2, 0, 1):  # 2 pushes out 1, not 0
        source[index]
    assert loads == [0, 1, 2, 1]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    wanted=st.lists(st.integers(0, 7), max_size=30),
    cache_bytes=st.integers(0, 120),
)
def test_cache_is_bounded_and_never_wrong(sizes: list[int], wanted: list[int], cache_bytes: int) -> None:
    source, _ = counting_source(sizes, cache_bytes)
    for index in (index % len(sizes) for index in wanted):
        image = source[index]
        assert image.shape == (1, sizes[index], 3) and (image == index).all()
        held = sum(kept.nbytes for kept in source._cache.values())
        assert held == source._cached_bytes <= cache_bytes


def test_nothing_is_decoded_at_opening(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("broken")
    write_image(tmp_path / "b.png", noise(0))
    source = open_source(tmp_path)
    np.testing.assert_array_equal(source[1], noise(0))
    with pytest.raises(SkipDiffError, match=r"a\.png: is not a readable image"):
        source[0]


def test_pickles_without_its_cache(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise(0, 50, 50))
    tar = make_tar(tmp_path / "b.tar", {"x.png": encode_image(noise(0, 50, 50), "x.png")})
    for images in (tmp_path / "a.png", tar, None):
        source = open_source(images)
        before = source[0]
        data = pickle.dumps(source)
        assert len(data) < 2000
        np.testing.assert_array_equal(pickle.loads(data)[0], before)


# -- refusals


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "the given list holds no images"),
        (Listed(), "the given Listed holds no images"),
        (["missing.png"], r"missing\.png: no such image file \(images\[0\]\)"),
        ("missing", "missing: no such file or folder"),
        ([noise(0), np.zeros((4, 4, 3))], r"images\[1\]: an image must be a uint8"),
        ([np.zeros((4, 4), np.uint8)], r"images\[0\]: an image must be a uint8"),
        ([torch.full((3, 2, 2), 2.0)], r"images\[0\]: a float tensor must hold numbers from 0 to 1"),
        ([torch.full((3, 2, 2), float("nan"))], "a float tensor must hold numbers from"),
        ([torch.zeros(1, 2, 2)], r"images\[0\]: an image tensor must be \(3, H, W\)"),
        ([torch.zeros(3, 2, 2, dtype=torch.int64)], r"images\[0\]: an image must be a uint8"),
        ([b"bytes"], r"images\[0\]: expected an array, a PIL image or a tensor, got bytes"),
        (7, "expected a folder.*got int"),
        ({"a": noise(0)}, "got dict"),
        (iter([noise(0)]), "got list_iterator"),
    ],
)
def test_refused_when_opened(images: Any, message: str) -> None:
    with pytest.raises(SkipDiffError, match=message) as caught:
        open_source(images)
    assert "\n" not in str(caught.value)


def test_bad_dataset_item_is_named() -> None:
    with pytest.raises(SkipDiffError, match=r"Listed\[1\]: expected an array.*got dict"):
        open_source(Listed(noise(0), {"image": noise(0)}))[1]


def test_bad_folders_and_archives(tmp_path: Path) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(SkipDiffError, match=message) as caught:
            open_source(path)
        assert str(caught.value).startswith(f"{path}: ")

    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no image files directly in this folder")
    refused(make_tar(tmp_path / "none.tar", {"a.txt": b"x"}), "no image files in this archive")
    (tmp_path / "text.tar").write_text("x" * 2000)
    refused(tmp_path / "text.tar", "not a complete, uncompressed tar")
    zipped = make_tar(tmp_path / "zipped.tar", {"a.png": encode_image(noise(0), "a.png")}, "w:gz")
    refused(zipped, "not a complete, uncompressed tar")
    whole = make_tar(
        tmp_path / "cut.tar", {f"{n}.png": encode_image(noise(n, 99, 99), "a.png") for n in (0, 1)}
    )
    whole.write_bytes(whole.read_bytes()[:35_000])
    refused(whole, "not a complete, uncompressed tar")
    with pytest.raises(SkipDiffError, match=r"broken\.tar: x/a\.png: is not a readable image"):
        open_source(make_tar(tmp_path / "broken.tar", {"x/a.png": b"broken"}))[0]


def test_archive_that_went_away(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"a.png": encode_image(noise(0), "a.png")})
    source = open_source(path)
    path.unlink()
    with pytest.raises(SkipDiffError, match=r"a\.tar: can no longer be read \(No such file"):
        source[0]


# -- the bundled photographs


def test_bundled_photographs_are_real_colour_photographs() -> None:
    source = bundled_images()
    assert len(source) == len(PHOTOGRAPHS) >= 7
    for photo, image in zip(PHOTOGRAPHS, source, strict=True):
        assert min(image.shape[:2]) == 256
        assert np.ptp(image.astype(int), axis=2).mean() > 15  # colour
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10_000  # a photograph, no drawing
        assert photo.licence in ("CC0", "CC BY 2.0", "public domain") and photo.author and photo.source


def test_bundled_images_are_shrunk_from_the_whole_photograph() -> None:
    for photo in PHOTOGRAPHS:
        full, small = photo.read(), photo.read_small()
        assert abs(full.shape[1] / full.shape[0] - small.shape[1] / small.shape[0]) < 0.01
        assert np.abs(full.mean((0, 1)) - small.mean((0, 1))).max() < 0.5


def test_photographs_come_from_the_wheel_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = bundled._data_folder("scikit-image")
    np.testing.assert_array_equal(demo_photograph(), read_image(folder / "chelsea.png"))
    assert demo_photograph().shape == (300, 451, 3)
    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SkipDiffError, match="pip install scikit-image, or give your own images="):
        bundled_images()[0]
