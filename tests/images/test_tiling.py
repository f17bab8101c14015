"""Tiles: that they cover, fade and blend; that they share batches without a trace."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from skipdiff_env.diffusion import FrozenModel, UNetConfig, keyed_normal, random_model, tiny_config
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import tiling
from skipdiff_env.images.tiling import (
    GRAIN,
    OVERLAP,
    RAMP,
    TILES,
    TiledModel,
    call_bytes,
    check_tile,
    choose_tile,
    free_memory,
    spans,
)
from skipdiff_env.sampler import SkipDiffSampler


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 6), st.sampled_from([1, 4, 16, 32]))
def test_spans_cover_an_axis_and_fade_into_each_other(length: int, size: int, multiple: int) -> None:
    tile = 2 * OVERLAP * size
    found = spans(length, tile, multiple)
    side = found[0].stop - found[0].start
    total = torch.zeros(length)
    for span in found:
        assert 0 <= span.start <= span.first < span.last <= span.stop <= length
        assert len(span.weights) == span.last - span.first
        assert (span.weights > 0).all()
        total[span.first : span.last] += span.weights
    torch.testing.assert_close(total, torch.ones(length))
    for left, right in zip(found, found[1:], strict=False):
        assert right.start % multiple == 0
        assert left.start + side - right.start >= OVERLAP
        assert left.last - right.first == RAMP
        # both have context on their far sides, which is seen and not used
        assert right.first - right.start >= (OVERLAP - RAMP) // 2
        assert left.start + side - left.last >= (OVERLAP - RAMP) // 2
        assert right.stop == min(right.start + side, length)
    if length > tile:
        assert side <= tile
        assert side % multiple == 0
        assert len(found) * side < length + (len(found) - 1) * OVERLAP + len(found) * (GRAIN + multiple)
        fewest = -(-(length + -length % multiple - tile) // (tile - OVERLAP)) + 1
        assert len(found) == fewest


class PerPixel(nn.Module):
    """A network without a neighbourhood: tiles cannot make a difference."""

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return torch.tanh(x[:, :3] - 2 * x[:, 3:]) * level[:, None, None, None]


def tensors(batch: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height * width)
    latent, condition = torch.randn(2, batch, 3, height, width, generator=generator)
    return latent, condition.clamp(-1, 1), torch.linspace(0.2, 0.9, batch)


@pytest.mark.parametrize("size", [(300, 200), (128, 128), (129, 130), (7, 400)])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_that_sees_single_pixels_does_not_notice_tiles(size: tuple[int, int], batch: int) -> None:
    model = FrozenModel(PerPixel(), tiny_config())
    arguments = tensors(2, *size)
    torch.testing.assert_close(TiledModel(model, 128, batch).predict(*arguments), model.predict(*arguments))


def test_an_image_within_one_tile_is_the_model_itself_to_the_bit() -> None:
    model = random_model()
    arguments = tensors(1, 90, 128)
    assert torch.equal(TiledModel(model, 128).predict(*arguments), model.predict(*arguments))


def test_a_tiled_chain_agrees_with_the_whole() -> None:
    model = random_model(replace(tiny_config(), target="residual", residual_scale=5.0))
    lr = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    whole, tiled, other = (
        SkipDiffSampler(TiledModel(model, tile), 5, 5)(lr, policy=2, seed=1).images.astype(float)
        for tile in (512, 128, 192)
    )
    for a, b in ((whole, tiled), (whole, other), (tiled, other)):
        assert 10 * np.log10(255**2 / np.mean((a - b) ** 2)) > 35


def test_noise_is_drawn_for_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def spy(keys: list, levels: list, shape: torch.Size, like: Tensor) -> Tensor:
        shapes.append(tuple(shape))
        return keyed_normal(keys, levels, shape, like)

    monkeypatch.setattr("skipdiff_env.diffusion.process.keyed_normal", spy)
    lr = np.zeros((50, 40, 3), np.uint8)
    SkipDiffSampler(TiledModel(random_model(), 128), 2)(lr, policy=2)
    assert set(shapes) == {(3, 200, 160)}


def test_what_it_passes_on() -> None:
    model = random_model()
    tiled = TiledModel(model, 128)
    for name in ("schedule", "scale", "config", "name", "hash", "device"):
        assert getattr(tiled, name) is getattr(model, name)
    lr = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert torch.equal(tiled.condition(lr), model.condition(lr))


def test_tiles_are_reported_with_their_pixels() -> None:
    seen: list[int] = []
    tiled = TiledModel(random_model(), 128, on_tile=seen.append)
    tiled.predict(*tensors(2, 200, 100))
    assert seen == [128 * 100] * 6  # 200 rows take three tiles
    assert len(tiled.tiles.grid(200, 100)) == 3


def test_company_in_a_batch_leaves_no_trace() -> None:
    """The same bits alone, in one batch with another image, and from threads in whatever order."""
    model = random_model()
    images = [tensors(1, 200, 130), tensors(1, 130, 260), tensors(1, 128, 128)]
    alone = [TiledModel(model, 128, batch=4).predict(*image) for image in images]
    shared = TiledModel(model, 128, batch=4)
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda image: shared.predict(*image), images))
        assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
    pair = [torch.cat([a, a.flip(0)]) for a in images[0]]
    assert torch.equal(shared.predict(*pair)[:1], alone[0])
    # tiles of two sizes, in whatever order they get their turn
    image = tensors(1, 200, 203)
    once = TiledModel(model, 128, batch=4).predict(*image)
    for found in shared.predict(*(torch.cat([x, x, x]) for x in image)):
        assert torch.equal(found[None], once)


def test_threads_share_batches() -> None:
    """While one call runs, the others' tiles gather and go together."""
    model, sizes = random_model(), []
    predict = model.predict
    waiting, deadline = threading.Barrier(4), time.monotonic() + 60

    def slow(latent: Tensor, condition: Tensor, level: Tensor) -> Tensor:
        if not sizes:
            while len(tiled.tiles._waiting) < 3:  # the other threads stand in line
                assert time.monotonic() < deadline, "the other threads' tiles did not gather"
                time.sleep(0.001)
        sizes.append(len(set(level.tolist())))
        return predict(latent, condition, level)

    model.predict = slow  # type: ignore[method-assign]
    tiled = TiledModel(model, 128, batch=4)

    def work(level: float) -> None:
        latent, condition, _ = tensors(1, 64, 64)
        waiting.wait()
        tiled.predict(latent, condition, torch.tensor([level]))

    threads = [threading.Thread(target=work, args=(0.2 * (i + 1),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sizes) == 4
    assert len(sizes) < 4


def test_an_error_reaches_everyone_and_clears_the_line() -> None:
    model = random_model()
    tiled = TiledModel(model, 128, batch=2)
    predict = model.predict

    def broken(*_: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    model.predict = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        tiled.predict(*tensors(1, 300, 300))
    assert tiled.tiles._waiting == []
    model.predict = predict  # type: ignore[method-assign]
    assert tiled.predict(*tensors(1, 300, 300)).isfinite().all()


def test_tile_sizes() -> None:
    unet = tiny_config().unet
    assert check_tile(256, unet.multiple) == 256
    for bad in (130, 64, 1):
        with pytest.raises(SkipDiffError, match=f"tile of {bad} "):
            check_tile(bad, unet.multiple)
    assert choose_tile(unet, 10**12) == TILES[0]
    assert choose_tile(unet, 0) == 2 * OVERLAP
    chosen = [choose_tile(UNetConfig(), int(gigabytes * 1e9)) for gigabytes in (0.1, 0.5, 1, 2, 4)]
    assert chosen == sorted(chosen)
    assert len(set(chosen)) > 2
    assert call_bytes(unet, 256, 4) == 4 * call_bytes(unet, 256) == call_bytes(unet, 512)


def test_free_memory_respects_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "CGROUP", tmp_path)
    whole = free_memory(torch.device("cpu"))
    assert whole > 10**7
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory(torch.device("cpu")) > 10**7
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory(torch.device("cpu")) == 4000
