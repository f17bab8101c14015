"""Training crops: every pixel accounted for, from memory and from files alike."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training.data import held_out
from skipdiff_env.training.data.bank import ImageBank, load_bank
from skipdiff_env.training.data.files import decode, image_files
from skipdiff_env.training.data.held_out import read_list
from skipdiff_env.training.data.stream import Ahead, StreamedBank
from tests.training.training_helpers import picture


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def orientations(image: np.ndarray) -> list[np.ndarray]:
    """The eight flips and quarter turns of a square."""
    turned = [np.rot90(image, k) for k in range(4)]
    return turned + [t[::-1] for t in turned]


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def which(crop: torch.Tensor, of: list[np.ndarray]) -> set[int]:
    return {i for i, image in enumerate(of) if np.array_equal(crop.permute(1, 2, 0).numpy(), image)}


def test_a_crop_as_large_as_the_image_is_one_of_its_eight_orientations_and_all_occur() -> None:
    image = picture(0, 16, 16)
    bank = ImageBank([image])
    found = [which(crop, orientations(image)) for crop in bank.crops(16, 96, seeded())]
    assert all(len(f) == 1 for f in found)
    assert set().union(*found) == set(range(8))


@pytest.mark.parametrize(("kind", "allowed"), [("mirror", 2), ("none", 1)])
def test_fewer_orientations(kind: str, allowed: int) -> None:
    image = picture(0, 16, 16)
    options = [image, image[:, ::-1]][:allowed]
    found = [which(crop, options) for crop in ImageBank([image]).crops(16, 40, seeded(), orientations=kind)]
    assert all(found) and set().union(*found) == set(range(allowed))


def test_crops_come_from_everywhere_in_images_of_any_size(pictures: list[np.ndarray]) -> None:
    # Each pixel holds its own image, row and column.
    coded = []
    for i, image in enumerate(pictures):
        row, column = np.indices(image.shape[:2])
        coded.append(np.stack([np.full_like(row, i), row, column], -1).astype(np.uint8))
    crops = ImageBank(coded).crops(16, 500, seeded()).numpy()
    assert np.array_equal(np.unique(crops[:, 0]), np.arange(len(pictures)))
    assert (crops[:, 0] == crops[:, :1, :1, 0].reshape(-1, 1, 1)).all()  # one image a crop
    for i, image in enumerate(pictures):
        mine = crops[crops[:, 0, 0, 0] == i]
        assert (mine[:, 1].max(), mine[:, 2].max()) == (image.shape[0] - 1, image.shape[1] - 1)
        assert (mine[:, 1].min(), mine[:, 2].min()) == (0, 0)
    assert (np.ptp(crops[:, 1], axis=(1, 2)) == 15).all() and (np.ptp(crops[:, 2], axis=(1, 2)) == 15).all()


def test_rows_of_a_batch_are_the_batch(pictures: list[np.ndarray]) -> None:
    bank = ImageBank(pictures)
    whole = bank.crops(16, 12, seeded(3), zoom=2.0)
    parts = [bank.crops(16, 12, seeded(3), slice(i, i + 4), zoom=2.0) for i in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole)


def test_zoom_shrinks_larger_windows(pictures: list[np.ndarray]) -> None:
    ramp = np.repeat(np.arange(0, 240, 3, dtype=np.uint8)[None, :, None], 80, 0).repeat(3, 2)
    crops = ImageBank([ramp]).crops(16, 64, seeded(), zoom=3.0).float()
    slopes = (crops[:, 0].amax((1, 2)) - crops[:, 0].amin((1, 2))) / 15 / 3
    assert slopes.min() > 0.9 and slopes.max() < 3.1
    assert len(slopes.round(decimals=1).unique()) >= 4 and slopes.max() > 2
    # Images that are too small for the window are taken whole.
    assert ImageBank([picture(0, 17, 20)]).crops(16, 4, seeded(), zoom=3.0).shape == (4, 3, 16, 16)


def test_weights_decide_how_often(tmp_path: Path) -> None:
    for name, value in (("rare_a", 10), ("often_b", 200)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((16, 16, 3), value, np.uint8))
    bank, _ = load_bank([tmp_path], 16, weights={"often_": 3})
    share = (bank.crops(16, 2000, seeded())[:, 0, 0, 0] == 200).float().mean().item()
    assert share == pytest.approx(0.75, abs=0.03)


def test_held_out_images_are_never_drawn(pictures: list[np.ndarray], folder: Path) -> None:
    for bank in (ImageBank([np.full((16, 16, 3), i, np.uint8) for i in range(6)]), None):
        if bank is not None:
            held = {int(image[0, 0, 0]) for image in bank.hold_out(2)}
            drawn = set(bank.crops(16, 300, seeded())[:, 0, 0, 0].tolist())
            assert len(held) == 2 and drawn == set(range(6)) - held
    streamed = StreamedBank([folder], 16)
    held_images = streamed.hold_out(2)
    assert [h.shape for h in held_images] == [pictures[0].shape, pictures[3].shape]
    assert (streamed.weights == 0).sum() == 2


@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_streamed_crops_are_those_from_memory(folder: Path, zoom: float) -> None:
    bank, _ = load_bank([folder], 16)
    streamed = StreamedBank([folder], 16)
    a, b = (source.crops(16, 20, seeded(1), zoom=zoom) for source in (bank, streamed))
    assert torch.equal(a, b)


def test_streamed_files_that_cannot_be_used_are_named_once_and_replaced(folder: Path, tmp_path: Path) -> None:
    for file in sorted(folder.iterdir()):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1.png").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "2.png"), picture(9, 8, 8))
    said: list[str] = []
    bank = StreamedBank([tmp_path], 16, say=said.append)
    assert bank.crops(16, 60, seeded()).shape == (60, 3, 16, 16)
    assert sorted(said) == [
        f"{tmp_path / '1.png'} is corrupt and left out",
        f"{tmp_path / '2.png'} is too small (8x8, needs 16) and left out",
    ]
    for file in tmp_path.iterdir():
        file.write_bytes(b"")
    with pytest.raises(SkipDiffError, match="corrupt, too small or not drawn"):
        StreamedBank([tmp_path], 16, say=said.append).crops(16, 1, seeded())


def test_larger_pictures_are_shrunk_to_a_shorter_side(tmp_path: Path) -> None:
    for name, image in (("large", picture(0, 60, 90)), ("small", picture(1, 20, 24))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image[..., ::-1])
    bank, report = load_bank([tmp_path], 20, resize_short=30)
    assert [bank.image(i).shape for i in range(2)] == [(30, 45, 3), (20, 24, 3)]
    assert report.loaded == 2


def test_damaged_files_are_named_and_small_ones_counted(tmp_path: Path) -> None:
    image = picture(0, 40, 44)
    files = {
        "a.png": encoded(".png", image),
        "b.png": encoded(".png", image)[:-300],  # cut short
        "c.jpg": encoded(".jpg", image),
        "d.jpg": encoded(".jpg", image)[:-200],
        "e.webp": encoded(".webp", image)[:200],
        "f.bmp": b"",
        "g.png": encoded(".png", picture(1, 12, 40)),
        "notes.md": b"not an image",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    bank, report = load_bank([tmp_path], 16)
    assert report.loaded == len(bank) == 2 and report.too_small == 1
    assert [Path(name).name for name in report.corrupt] == ["b.png", "d.jpg", "e.webp", "f.bmp"]
    assert "1 too small, 4 corrupt and left out: " in str(report)
    assert np.array_equal(bank.image(0), image)


def test_a_jpeg_with_a_thumbnail_or_a_tail_is_whole() -> None:
    jpeg = encoded(".jpg", picture(0))
    assert decode(jpeg + b"\0 a maker's trailer") is not None
    thumbnail = b"\xff\xe1" + (len(jpeg) + 2).to_bytes(2, "big") + jpeg  # an APP1 segment with a JPEG inside
    assert decode(jpeg[:2] + thumbnail + jpeg[2:]) is not None
    assert decode(jpeg[:2] + thumbnail + jpeg[2:-50]) is None


def test_tiffs_that_opencv_misreads() -> None:
    """16 bits in separate planes came out as stripes."""
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    planes = np.moveaxis(image.astype(np.uint16) * 257, -1, 0)
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate", metadata=None)
    data = buffer.getvalue()
    np.testing.assert_array_equal(decode(data), image)
    assert decode(data[:-99]) is None
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image.astype(np.float32), photometric="rgb", metadata=None)
    assert decode(buffer.getvalue()) is None  # nobody knows what white is


def test_tars_lists_folders_and_files_give_the_same_images(folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.iterdir())
    archive = tmp_path / "all.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for file in files:
            member = tarfile.TarInfo(f"set/{file.name}")
            member.size = file.stat().st_size
            tar.addfile(member, io.BytesIO(file.read_bytes()))
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(map(str, files)) + "\n")
    banks = [load_bank(paths, 16)[0] for paths in ([folder], [archive], [listed], files)]
    assert all(torch.equal(bank.pixels, banks[0].pixels) for bank in banks)
    assert len({bank.fingerprint for bank in banks}) == 1


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SkipDiffError, match=r"no training data at .*nowhere"):
        load_bank([tmp_path / "nowhere"], 16)
    with pytest.raises(SkipDiffError, match="none of the images"):
        load_bank([tmp_path], 16)
    (tmp_path / "x.tar").write_bytes(b"x" * 1000)
    with pytest.raises(SkipDiffError, match="is not an image, a folder, a .txt list or a complete tar"):
        load_bank([tmp_path / "x.tar"], 16)
    with pytest.raises(SkipDiffError, match="is not an image, a folder or a .txt list"):
        StreamedBank([tmp_path / "x.tar"], 16)


def test_ahead_gives_what_is_asked_for_in_any_order() -> None:
    calls: list[int] = []
    ahead = Ahead(lambda step: calls.append(step) or step * step)
    assert [ahead(step) for step in (0, 1, 2, 7, 8, 3)] == [0, 1, 4, 49, 64, 9]
    assert calls.count(1) == calls.count(8) == 1  # made ahead, not twice


@pytest.mark.parametrize("name", ["natural256", "faces128"])
def test_shipped_lists_follow_their_rule(name: str) -> None:
    names = sorted(read_list(name))
    assert len(names) > 200 and held_out.draw(names) == names


def test_crops_of_one_photograph_are_held_out_together() -> None:
    photographs = [f"photo{i}" for i in range(400)]
    names = [f"{p}{crop}.webp" for p in photographs for crop in ("_w", "_c0", "_c1")]
    drawn = held_out.draw(names)
    whole = {held_out.CROP.sub("", name) for name in drawn}
    assert len(drawn) == 3 * len(whole) and 20 < len(whole) < 60
    assert set(drawn) != set(held_out.draw(names, seed=1))


def test_held_out_pictures_are_never_drawn(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"p{i}.png").write_bytes(encoded(".png", np.full((16, 16, 3), 10 * i, np.uint8)))
    (tmp_path / "list.txt").write_text("p1\np3\n")
    names = read_list(tmp_path / "list.txt")
    bank, report = load_bank([tmp_path / "set"], 16, held_out=names)
    assert report.held_out == 2 and str(report) == "2 images, 2 held out"
    streamed = StreamedBank([tmp_path / "set"], 16, held_out=names)
    for one in (bank, streamed):
        crops = one.crops(16, 64, seeded())
        assert set(crops.flatten(1)[:, 0].tolist()) == {0, 20}


def test_an_unknown_list_is_refused() -> None:
    with pytest.raises(SkipDiffError, match="no list 'nowhere'.*faces128, natural256"):
        read_list("nowhere")


def test_a_list_may_begin_with_a_byte_order_mark_and_name_anything(tmp_path: Path) -> None:
    names = ["a.png", "写.png", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + os.fsencode("\r\n".join(names)))
    assert [file.name for file in image_files(tmp_path / "list.txt")] == names
