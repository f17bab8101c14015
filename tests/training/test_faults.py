"""Colour changes and LR faults against independent computations."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.fft import dctn
from training_helpers import picture

from skipdiff_env.diffusion import ModelConfig, degrade
from skipdiff_env.diffusion.degradations import (
    DCT,
    Degradation,
    DegradationRecipe,
    Effect,
    draw_degradation,
    gaussian_blur,
    jpeg,
)
from skipdiff_env.training.augment import change_colour, draw_colour
from skipdiff_env.training.loss import make_pairs


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def through_opencv(image: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def test_the_dct_is_the_orthonormal_dct() -> None:
    block = np.random.default_rng(0).normal(size=(8, 8))
    mine = DCT.double().numpy()
    assert np.allclose(mine @ block @ mine.T, dctn(block, norm="ortho"), atol=1e-6)


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 100])
@pytest.mark.parametrize("shape", [(24, 24), (64, 80), (37, 50)])
def test_jpeg_is_what_opencv_makes_of_it(quality: int, shape: tuple[int, int]) -> None:
    image = picture(1, *shape)
    coded = jpeg(tensor(image).float(), torch.tensor([quality]))[0].permute(1, 2, 0).numpy()
    real = through_opencv(image, quality)
    assert psnr(coded, real) > psnr(real, image) + 5 and psnr(coded, real) > 37
    # and it costs the picture the same
    assert psnr(coded, image) == pytest.approx(psnr(real, image), abs=0.4)


def test_each_picture_of_a_batch_has_its_own_quality() -> None:
    images = tensor(picture(1), picture(2), picture(1)).float()
    together = jpeg(images, torch.tensor([20, 60, 95]))
    for i, quality in enumerate((20, 60, 95)):
        assert torch.equal(together[i : i + 1], jpeg(images[i : i + 1], torch.tensor([quality])))


def test_the_block_grid_can_lie_anywhere() -> None:
    image = picture(3, 48, 48)
    whole = jpeg(tensor(image).float(), torch.tensor([30]))
    # away from the edges, a picture that starts at (3, 5) of the grid is that part of the whole
    part = jpeg(tensor(image[3:, 5:]).float(), torch.tensor([30]), corner=(3, 5))
    assert torch.equal(part[..., 16:32, 16:32], whole[..., 19:35, 21:37])


def test_blur_is_opencvs_gaussian() -> None:
    image = picture(4, 30, 26)
    for sigma in (0.4, 1.0):
        mine = gaussian_blur(tensor(image).float(), torch.tensor([sigma]))[0].permute(1, 2, 0).numpy()
        theirs = cv2.GaussianBlur(image.astype(np.float32), (9, 9), sigma, borderType=cv2.BORDER_REPLICATE)
        assert np.abs(mine - theirs).max() < 0.01


def test_faults_are_drawn_in_their_share_and_range() -> None:
    recipe = DegradationRecipe(Effect(0.3, 0.2, 0.9), Effect(1.0, 2.0, 4.0), Effect(0.7, 40, 95))
    faults = draw_degradation(recipe, 5000, torch.Generator().manual_seed(0))
    for values, share, low, high in (
        (faults.blur, 0.3, 0.2, 0.9), (faults.noise, 1.0, 2.0, 4.0), (faults.quality, 0.7, 40, 95)
    ):  # fmt: skip
        on = values[values > 0]
        assert len(on) / 5000 == pytest.approx(share, abs=0.03)
        assert on.min() >= low and on.max() <= high
        assert on.mean() == pytest.approx((low + high) / 2, rel=0.05)


def test_noise_has_the_strength_that_was_drawn_and_none_leaves_lr_alone() -> None:
    flat = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    faults = Degradation(torch.zeros(2), torch.tensor([0.0, 6.0]), torch.zeros(2), (0, 0))
    spoiled = faults.apply(flat, torch.randn(flat.shape, generator=torch.Generator().manual_seed(0)))
    assert spoiled.dtype == torch.uint8 and torch.equal(spoiled[0], flat[0])
    assert spoiled[1].float().std().item() == pytest.approx(6, rel=0.03)


def test_faults_touch_the_condition_and_not_the_image() -> None:
    hr = tensor(picture(5, 32, 32))
    config = ModelConfig(scale=4, image_size=32, target="image")
    faults = Degradation(torch.zeros(1), torch.zeros(1), torch.tensor([20.0]), (0, 0))
    seen: list[torch.Tensor] = []

    def spoil(lr: torch.Tensor) -> torch.Tensor:
        seen.append(lr)
        return faults.apply(lr, torch.zeros(lr.shape))

    (clean_target, clean), (target, spoiled) = make_pairs(hr, config), make_pairs(hr, config, spoil)
    assert torch.equal(seen[0], degrade(hr, 4))
    assert torch.equal(target, clean_target) and not torch.equal(spoiled, clean)


def test_no_colour_change_is_none_and_each_change_does_what_it_says() -> None:
    images = tensor(picture(6), picture(7))
    neutral = torch.ones(2, 6)
    assert torch.equal(change_colour(images, neutral), images)
    brighter, grey, redder = neutral.clone(), neutral.clone(), neutral.clone()
    brighter[:, 1], grey[:, 2], redder[:, 3] = 0.9, 0.0, 1.1
    darker = change_colour(images, brighter).float()
    assert (darker - 0.9 * images.float()).abs().max() <= 0.51
    unsaturated = change_colour(images, grey).int()
    assert (unsaturated.amax(1) - unsaturated.amin(1)).max() <= 1
    red = change_colour(images, redder).float()
    assert (red[:, 1:] - images[:, 1:]).abs().max() <= 0.51 and red[:, 0].mean() > images[:, 0].float().mean()
    flatter = neutral.clone()
    flatter[:, 0] = 0.5
    assert change_colour(images, flatter).float().std() < 0.7 * images.float().std()


def test_colour_changes_stay_within_their_strength() -> None:
    change = draw_colour(4000, 0.2, torch.Generator().manual_seed(0))
    for column, strength in enumerate([0.2] * 3 + [0.1] * 3):
        assert (change[:, column] - 1).abs().max() <= strength
        assert change[:, column].std().item() == pytest.approx(strength / 3**0.5, rel=0.05)
