"""Images that lie in files: the same numbers to the bit as in memory, and nothing left behind."""

from __future__ import annotations

import copy
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from skipdiff_env.chains import Refined, parse, with_detail
from skipdiff_env.diffusion import bicubic, random_model, tiny_config
from skipdiff_env.diffusion.noise import NoiseKey, keyed_normal
from skipdiff_env.images import mapped
from skipdiff_env.images.mapped import Mapped, channel_by_channel, strips
from skipdiff_env.images.photo import Photo
from skipdiff_env.upscale import Enlarger
from skipdiff_env.upscale import resume as resume_module
from skipdiff_env.upscale import run as run_module

from .conftest import Upscale, left_in

SHAPE = (1, 3, 23, 37)
FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda a, b: a + b,
    "in place": lambda a, b: a.clone().mul_(0.7).addcmul_(b, a).clamp_(-1, 1),
    "a number a row": lambda a, b: a * torch.tensor([0.3])[:, None, None, None] - 1 / (2 + b),
    "a number a column": lambda a, b: a * torch.arange(37.0),
    "a number a channel": lambda a, b: torch.arange(3.0)[:, None, None] * b + a,
    "mixture": lambda a, b: torch.lerp(a, b, 0.3),
    "eight bits": lambda a, b: ((a + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).float() / 127.5 - b,
    "comparison": lambda a, b: torch.where(a > b, a, 1 - b),
    "blank": lambda a, b: torch.zeros_like(a).addcmul_(a, b),
    "ordinary self": lambda a, b: torch.zeros(SHAPE).add_(a) - b,
}  # fmt: skip
OTHERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "channels": lambda a, b: a.mean(dim=1, keepdim=True),
    "joined": lambda a, b: torch.cat([a, b], dim=1),
    "resized": lambda a, b: bicubic(a, 9, 11),
    "part": lambda a, b: a[:, 1:, 2:9, 3:] * b[:, :2, :7, :34],
    "turned": lambda a, b: a.mT @ b,
}  # fmt: skip


@pytest.fixture(params=[1, 200, 3001])
def in_strips(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image lies in a file, and is computed with so many numbers at a time."""
    monkeypatch.setattr(mapped, "LARGE", 1)
    monkeypatch.setattr(mapped, "STRIP", request.param)


def drawn(folder: Path) -> tuple[Tensor, Tensor, Mapped, Mapped]:
    """Two ordinary images, and the same mapped."""
    a, b = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).unbind()
    blank = Mapped(SHAPE, folder)
    assert torch.equal(blank, torch.zeros(SHAPE))
    return a, b, blank + a, blank + b


@pytest.mark.parametrize("name", [*FUNCTIONS, *OTHERS])
def test_functions_of_images(name: str, in_strips: None, tmp_path: Path) -> None:
    a, b, on_disk, other = drawn(tmp_path)
    function = {**FUNCTIONS, **OTHERS}[name]
    found = function(on_disk, other)
    assert isinstance(found, Mapped) == (name in FUNCTIONS)
    assert found.dtype == function(a, b).dtype
    assert torch.equal(found, function(a, b))
    assert torch.equal(on_disk, a) and torch.equal(other, b)
    assert list(tmp_path.iterdir()) == []  # their files have no names


def test_what_policies_may_do_with_a_latent(in_strips: None, tmp_path: Path) -> None:
    a, _, on_disk, _ = drawn(tmp_path)
    assert np.array_equal(np.asarray(on_disk), a.numpy())
    assert np.array_equal(on_disk.cpu().numpy(), a.numpy())
    assert on_disk.tolist() == a.tolist()
    assert float((on_disk / 2).std()) == float((a / 2).std())
    assert torch.equal(on_disk.new_zeros(8) + 1, torch.ones(8))
    assert torch.equal(torch.nn.functional.avg_pool2d(on_disk, 2), torch.nn.functional.avg_pool2d(a, 2))
    assert torch.equal(copy.deepcopy(on_disk), a)
    assert repr(on_disk[0, 0, 0]) == repr(a[0, 0, 0])


def test_small_images_lie_in_memory() -> None:
    nowhere = Path("/there/is/no/such/folder")
    assert torch.equal(Mapped(SHAPE, nowhere) + 1, torch.ones(SHAPE))


def test_what_is_let_go_of_is_still_there(in_strips: None, tmp_path: Path) -> None:
    image = Mapped((1, 3, 400, 500), tmp_path)
    image[:, 1] = 7.0
    image.release()
    assert image[:, 1].min() == 7 and image[:, 0].max() == 0


def test_noise_is_drawn_into_files(in_strips: None, tmp_path: Path) -> None:
    keys = [NoiseKey(3, 5), NoiseKey(3, 6)]
    found = keyed_normal(keys, [7, 8], SHAPE[1:], Mapped(SHAPE, tmp_path))
    assert isinstance(found, Mapped)
    assert torch.equal(found, keyed_normal(keys, [7, 8], SHAPE[1:]))


def test_channels_are_resized_alone(in_strips: None, tmp_path: Path) -> None:
    a, _, on_disk, _ = drawn(tmp_path)
    for size in ((46, 74), (17, 50), (92, 148)):
        found = channel_by_channel(lambda x, size=size: bicubic(x, *size), on_disk, tmp_path)
        assert torch.equal(found, bicubic(a, *size))
    assert type(channel_by_channel(lambda x: x, a, None)) is Tensor


def test_strips_cover_all_rows() -> None:
    for height, row in ((1, 10**9), (7, 1), (1000, 10**4), (0, 3)):
        rows = [y for strip in strips(height, row) for y in range(height)[strip]]
        assert rows == list(range(height))


KINDS: dict[str, tuple[int, type, bool]] = {
    "RGB": (3, np.uint8, False), "grey": (1, np.uint8, False), "RGBA": (3, np.uint8, True),
    "RGB 16": (3, np.uint16, False), "grey and alpha 16": (1, np.uint16, True),
}  # fmt: skip


def photo_of(kind: str, height: int, width: int) -> Photo:
    channels, dtype, transparent = KINDS[kind]
    source = np.random.default_rng(0)
    planes = source.integers(0, np.iinfo(dtype).max + 1, (height, width, channels + 1)).astype(dtype)
    return Photo(planes[..., :channels], planes[..., -1] // 2 if transparent else None)


@pytest.mark.parametrize("refined", [False, True])
@pytest.mark.parametrize("spec", [2, "skip", "ccsr:2", "addsr:2"])
def test_the_picture_is_the_same_to_the_bit(
    spec: int | str, refined: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strip by strip and whole, for every chain, kind of pixels and size; the last takes two runs."""
    model = random_model(tiny_config(target="residual"))
    chain = parse(spec, model, None if ":" in str(spec) else 5)
    if refined:
        chain = Refined(chain, lambda x0, condition: x0.lerp(condition, 0.2).clamp(-1, 1))
        chain = with_detail(chain, 0.6, model)
    enlarger = Enlarger(model, chain, seed=1, tile=128, clean=0.3 if refined else 1)
    cases = [("RGB", (37, 29), 4.0), ("grey", (33, 5), 3.3), ("RGBA", (4, 45), 4.0), ("RGB 16", (35, 7), 4.0)]
    cases += [("grey and alpha 16", (9, 12), 2.0), ("RGB", (11, 10), 5.1)]
    for kind, (height, width), factor in cases:
        photo, size = photo_of(kind, height, width), (round(width * factor), round(height * factor))
        whole = enlarger(photo, size)
        with monkeypatch.context() as patched:
            patched.setattr(mapped, "LARGE", 1)
            patched.setattr(mapped, "STRIP", 1000)
            found = enlarger(photo, size, tmp_path)
        assert np.array_equal(found.photo.colour, whole.photo.colour)
        assert found.photo.colour.shape == (size[1], size[0], photo.colour.shape[2])
        if photo.alpha is not None:
            assert np.array_equal(found.photo.alpha, whole.photo.alpha)
        assert replace(found, photo=whole.photo) == whole
        assert list(tmp_path.iterdir()) == []


def test_the_command_in_strips(
    upscale: Upscale, noisy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two photographs at once, side by sides, all formats; and what is there is known again."""
    for name, kind in (("a.png", "RGBA"), ("b.jpg", "RGB")):
        photo = photo_of(kind, 40, 33)
        (tmp_path / "in").mkdir(exist_ok=True)
        photo.pillow().save(tmp_path / "in" / name)
    for options in (["--compare", "--jobs", "2"], ["--format", "tiff"], ["--format", "webp"]):
        results = []
        for name in ("whole", "strips"):
            with monkeypatch.context() as patched:
                if name == "strips":
                    patched.setattr(mapped, "LARGE", 1)
                    patched.setattr(mapped, "STRIP", 1000)
                arguments = (tmp_path / "in", "-o", tmp_path / name, *options)
                assert upscale(*arguments, "--force", model=noisy_folder).status == 0
                assert upscale(*arguments, "--resume", model=noisy_folder).out.count("is there already") == 2
            results.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
        assert results[0] == results[1]


def test_no_room_for_a_file(
    upscale: Upscale, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(mapped, "LARGE", 1)
    monkeypatch.setattr(mapped.os, "posix_fallocate", full)
    ran = upscale(photograph, "-o", tmp_path / "new" / "a.png")
    assert ran.status == 2
    assert ran.err == (
        f"skipdiff: error: {photograph}: cannot keep an image of 0.0 GB in {tmp_path} (No space left on "
        "device): make room, or name another folder in TMPDIR\n"
    )
    assert left_in(tmp_path) == ["in.png"]


def test_room_is_asked_for_beforehand(
    upscale: Upscale, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    asked = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=10**4)

    monkeypatch.setattr(run_module, "LARGE", 1)
    monkeypatch.setattr(run_module.shutil, "disk_usage", usage)
    for scratch, folder in ((str(tmp_path / "scratch"), tmp_path / "scratch"), ("", tmp_path)):
        monkeypatch.setenv("TMPDIR", scratch)
        ran = upscale(photograph, "-o", tmp_path / "new" / "a.png")
        assert ran.status == 2
        assert f"GB are free in {folder}: make room, or name another folder in TMPDIR" in ran.err
        assert asked.pop() == folder


def test_results_larger_than_what_is_read_are_known_again(
    upscale: Upscale, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume_module, "MAX_PIXELS", 10 * 14)
    assert upscale(photograph, "-o", tmp_path / "a.png").status == 0
    assert upscale(photograph, "-o", tmp_path / "a.png", "--resume").out.endswith("is there already\n")


@pytest.mark.slow
def test_memory_does_not_hold_them(tmp_path: Path, plain_folder: Path) -> None:
    """Of what a process of its own takes at its peak, several images go into files."""
    Image.fromarray(photo_of("RGB", 512, 640).colour).save(tmp_path / "a.png")
    code = (
        "import resource, sys; from skipdiff_env.cli import main; from skipdiff_env.images import mapped;"
        "mapped.LARGE, mapped.STRIP = int(sys.argv.pop(1)), 2**18; status = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024); sys.exit(status)"
    )
    peaks = []
    for large in (2**40, 2**20):
        arguments = ["upscale", tmp_path / "a.png", "-o", tmp_path / f"{large}.tif", "--quiet"]
        arguments += ["--tile", "256", "--model", plain_folder, "--coarse-steps", "1", "--start", "2"]
        command = [sys.executable, "-c", code, str(large), *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        root = Path(__file__).resolve().parents[2]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=root)
        peaks.append(int(ran.stdout))
    image = 12 * 2560 * 2048
    assert peaks[0] - peaks[1] > 2 * image, peaks
    assert (tmp_path / f"{2**40}.tif").read_bytes() == (tmp_path / f"{2**20}.tif").read_bytes()
