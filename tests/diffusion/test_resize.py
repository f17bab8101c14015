"""Bicubic resizing against Pillow, 8-bit conversion, and the low-resolution side."""

import numpy as np
import pytest
import torch
from PIL import Image

from skipdiff_env.diffusion import bicubic, degrade, to_signed, to_uint8
from skipdiff_env.diffusion.resize import AGREEMENT, back_project, fix_colours

SIZES = [
    ((64, 64), (16, 16)), ((16, 20), (64, 80)), ((63, 40), (21, 10)), ((7, 5), (28, 20)), ((1, 1), (4, 4)),
    ((17, 30), (17, 30)), ((32, 32), (8, 4)), ((5, 9), (13, 40)), ((40, 40), (5, 5)),
    ((7, 1), (28, 4)), ((1, 7), (4, 28)), ((32, 1), (8, 1)), ((16, 4), (4, 1)), ((4, 16), (1, 4)),
]  # fmt: skip


def picture(height, width, seed=0):
    """Edges, a ramp and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 4, y * 4, ((x // 5 + y // 3) % 2) * 255], -1) % 256
    return np.clip(base + rng.normal(0, 20, base.shape), 0, 255).astype(np.uint8)


def as_tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size, new", SIZES)
def test_bicubic_is_pillows(size, new):
    """Pillow's float mode, which does not round or clip between its two passes."""
    image = picture(*size).astype(np.float32)
    got = bicubic(as_tensor(image), *new)[0]
    for channel in range(3):
        band = Image.fromarray(np.ascontiguousarray(image[..., channel])).resize(
            new[::-1], Image.Resampling.BICUBIC
        )
        np.testing.assert_allclose(got[channel].numpy(), np.asarray(band), atol=2e-4)


def test_overshoots_are_kept():
    edge = torch.zeros(1, 1, 1, 8)
    edge[..., 4:] = 1
    wide = bicubic(edge, 1, 32)
    assert wide.max() > 1.02 and wide.min() < -0.02


def cubic(x, a=-0.5):
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("old, new", [(24, 6), (6, 24), (10, 7)])
def test_the_kernel_is_keys_with_a_half_widened_when_shrinking(old, new):
    line = np.random.default_rng(0).normal(size=old)
    stretch = max(old / new, 1)
    wanted = []
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        weights = np.array([cubic((j - centre) / stretch) for j in range(old)])
        wanted.append(weights @ line / weights.sum())
    got = bicubic(torch.from_numpy(line)[None, None, None], 1, new)[0, 0, 0]
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [(48, 96), (24, 24), (72, 24)])
def test_degrade_is_pillows(size, scale):
    """To the bit, but for sums within Pillow's fixed-point precision of a half."""
    image = picture(*size)
    small = degrade(as_tensor(image), scale)
    new = size[0] // scale, size[1] // scale
    assert small.dtype == torch.uint8 and small.shape == (1, 3, *new)
    pillow = np.asarray(Image.fromarray(image).resize(new[::-1], Image.Resampling.BICUBIC)).astype(int)
    off = np.abs(small[0].permute(1, 2, 0).numpy().astype(int) - pillow)
    assert off.max() <= 1 and off.mean() < 1e-2


def test_degrade_clips_and_treats_rows_alone():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 8:] = 255
    small = degrade(torch.cat([as_tensor(image), as_tensor(picture(16, 16))]), 4)
    assert small[0].min() == 0 and small[0].max() == 255
    assert torch.equal(small[1:], degrade(as_tensor(picture(16, 16)), 4))


@pytest.mark.parametrize("size", [(10, 12), (12, 10), (3, 3)])
def test_sides_that_are_no_multiple_are_refused(size):
    with pytest.raises(ValueError, match=f"a {size[1]}x{size[0]} image cannot be shrunk by 4"):
        degrade(torch.zeros(1, 3, *size, dtype=torch.uint8), 4)


def test_eight_bits_survive_the_round_trip():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_signed(every)), every)
    assert to_signed(every).aminmax() == (-1.0, 1.0) and to_signed(every).dtype == torch.float32


def test_rounding_is_to_the_nearest_and_clipped():
    grid = np.linspace(-1.3, 1.3, 4001)
    got = to_uint8(torch.from_numpy(grid)).numpy()
    np.testing.assert_array_equal(got, np.clip(np.rint((grid + 1) * 127.5), 0, 255).astype(np.uint8))
    assert to_uint8(torch.tensor([0.0])).item() == 128  # 127.5 rounds to even
    far = torch.tensor([float("inf"), -float("inf"), 1e30, -1e30])
    assert to_uint8(far).tolist() == [255, 0, 255, 0]


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_back_projection_makes_a_picture_agree_with_its_input(scale: int) -> None:
    draw = torch.Generator().manual_seed(scale)
    lr = torch.randn(2, 3, 20, 24, generator=draw, dtype=torch.float64)
    x = torch.randn(2, 3, 20 * scale, 24 * scale, generator=draw, dtype=torch.float64)
    small = bicubic(x, 20, 24)
    whole = back_project(x, lr, 1.0)
    left = bicubic(whole, 20, 24) - lr
    assert left.std() < 0.008 * (lr - small).std()
    # linear between its ends, the identity where nothing is lacking or wanted
    assert torch.allclose(back_project(x, lr, 0.3), x + 0.3 * (whole - x), atol=1e-12)
    assert back_project(x, lr, 0.0) is x
    assert torch.allclose(back_project(x, small, 1.0), x, atol=1e-12)
    # Irani and Peleg's rounds, as they are written
    round_by_round = x
    for _ in range(AGREEMENT):
        round_by_round = round_by_round + bicubic(lr - bicubic(round_by_round, 20, 24), *x.shape[-2:])
    assert torch.allclose(whole, round_by_round, atol=1e-10)
    # every channel alone
    one = back_project(x[:, 1:2], lr[:, 1:2], 1.0)
    assert torch.allclose(whole[:, 1:2], one, atol=1e-12)


def wavelets_lowest(x: np.ndarray, levels: int) -> np.ndarray:
    """The coarsest band of the à trous wavelets of (H, W), borders repeated; float64."""
    for level in range(levels):
        for axis in (0, 1):
            apart = 2**level
            pad = [(apart, apart) if a == axis else (0, 0) for a in (0, 1)]
            wide = np.pad(x, pad, mode="edge")
            side = x.shape[axis]
            first, last = (np.take(wide, range(n, n + side), axis) for n in (0, 2 * apart))
            x = first / 4 + x / 2 + last / 4
    return x


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_colours_of_large_areas_are_the_input_s(scale: int) -> None:
    """As the wavelet correction has it, which works on the large pictures."""
    draw = torch.Generator().manual_seed(scale)
    side = 256 // scale
    lr = bicubic(torch.randn(1, 1, 6, 6, generator=draw, dtype=torch.float64), side, side)
    fine = 0.3 * torch.randn(1, 1, 256, 256, generator=draw, dtype=torch.float64)
    x = fine + bicubic(torch.randn(1, 1, 5, 5, generator=draw, dtype=torch.float64), 256, 256)
    found = (fix_colours(x, lr) - x)[0, 0].numpy()
    expected = wavelets_lowest((bicubic(lr, 256, 256) - x)[0, 0].numpy(), 5)
    inside = (slice(48, -48),) * 2
    assert np.abs(found - expected)[inside].max() < 0.05 * np.abs(expected).max()


def test_colours_that_agree_stay_and_a_cast_goes() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 96, 128, generator=draw, dtype=torch.float64)
    lr = bicubic(x, 24, 32)
    assert torch.allclose(fix_colours(x, lr), x, atol=1e-12)
    cast = torch.tensor([0.2, -0.1, 0.05], dtype=torch.float64)[:, None, None]
    assert torch.allclose(fix_colours(x + cast, lr), x, atol=1e-12)
    # what alternates from pixel to pixel of the input is none of its business
    checks = lr + (torch.arange(24)[:, None] + torch.arange(32)) % 2 - 0.5
    changed = (fix_colours(x, checks) - x).abs()
    assert changed[..., 40:-40, 40:-40].max() < 1e-12 < changed.max()
    one = fix_colours(x[:, 1:2], checks[:, 1:2])
    assert torch.allclose(fix_colours(x, checks)[:, 1:2], one, atol=1e-12)
