"""Colour changes and LR faults against independent computations."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from skipdiff_env.diffusion import degradations as faults
from skipdiff_env.diffusion import degrade, to_uint8
from skipdiff_env.diffusion.degradations import DegradationRecipe, Effect, degrade_batch, draw_seeds
from skipdiff_env.diffusion.model import bicubic_condition
from skipdiff_env.training import load_recipe
from skipdiff_env.training.data.augment import change_colour, draw_colour
from skipdiff_env.training.data.bank import ImageBank
from skipdiff_env.training.distributed import World
from skipdiff_env.training.trainers.base import Batch, BatchMaker
from tests.training.training_helpers import picture

ALL = DegradationRecipe(
    blur=Effect(0.5, 0.2, 2.0),
    resize=Effect(0.5, 0.6, 1.6),
    noise=Effect(0.5, 0.5, 20),
    jpeg=Effect(0.5, 30, 95),
    webp=Effect(0.5, 30, 95),
    again=0.5,
)


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def pixels(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32)


def by_pillow(image: np.ndarray, **options: object) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, **options)
    return np.array(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("full", [True, False])
def test_jpeg_is_what_pillow_makes_of_it(quality: int, full: bool) -> None:
    image = picture(1, 37, 50)
    coded = faults.jpeg(pixels(image), quality, full_chroma=full)
    real = by_pillow(image, format="JPEG", quality=quality, subsampling=0 if full else 2)
    assert np.abs(coded - real).mean() < 0.5  # two builds of libjpeg may round otherwise


def test_webp_is_what_pillow_makes_of_it() -> None:
    image = picture(2, 40, 33)
    real = by_pillow(image, format="WEBP", quality=50)
    coded = faults.webp(pixels(image), 50)
    error, other = np.abs(coded - image).mean(), np.abs(real - image.astype(float)).mean()
    assert error > 1 and error == pytest.approx(other, rel=0.15)


@pytest.mark.parametrize("code", [faults.jpeg, faults.webp])
def test_better_quality_keeps_more(code: Callable[..., np.ndarray]) -> None:
    image = pixels(picture(3, 48, 48))
    errors = [float(np.square(code(image, quality) - image).mean()) for quality in (10, 50, 95)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 2 * errors[2]


def test_the_block_grid_can_lie_anywhere() -> None:
    image = picture(3, 48, 48)
    whole = faults.jpeg(pixels(image), 30, full_chroma=True)
    # away from the edges, a picture that starts at (3, 5) of the grid is that part of the whole
    part = faults.jpeg(pixels(image[3:, 5:]), 30, full_chroma=True, corner=(3, 5))
    assert part.shape == (45, 43, 3)
    assert np.array_equal(part[16:32, 16:32], whole[19:35, 21:37])


def moments(kernel: np.ndarray) -> tuple[float, float, float]:
    """Sum, and the variances along x and y."""
    y, x = np.mgrid[-faults.RADIUS : faults.RADIUS + 1, -faults.RADIUS : faults.RADIUS + 1]
    return float(kernel.sum()), float((kernel * x**2).sum()), float((kernel * y**2).sum())


@pytest.mark.parametrize("shape", [1.5, 2.0, 4.0, 6.0])
def test_a_generalised_gaussian_has_the_deviation_that_was_asked_for(shape: float) -> None:
    total, along, across = moments(faults.gaussian_kernel(1.5, ratio=0.6, shape=shape))
    assert total == pytest.approx(1, abs=1e-6)
    assert math.sqrt(along) == pytest.approx(1.5, rel=0.02)
    assert math.sqrt(across) == pytest.approx(0.9, rel=0.04)  # of few samples
    turned = moments(faults.gaussian_kernel(1.5, ratio=0.6, angle=math.pi / 2, shape=shape))
    assert turned[1:] == pytest.approx((across, along), rel=1e-3)


def test_a_gaussian_is_opencvs() -> None:
    image = picture(4, 30, 26)
    for sigma in (0.4, 1.2, 2.0):
        mine = faults.blurred(pixels(image), faults.gaussian_kernel(sigma))
        theirs = cv2.GaussianBlur(pixels(image), (17, 17), sigma, borderType=cv2.BORDER_REPLICATE)
        assert np.abs(mine - theirs).max() < 0.01


def test_a_disc_has_the_deviation_that_was_asked_for() -> None:
    # a uniform disc of radius r has the variance r² / 4 along an axis
    for sigma in (1.0, 2.0):
        total, along, across = moments(faults.disc_kernel(sigma))
        assert total == pytest.approx(1, abs=1e-6) and along == pytest.approx(across)
        assert math.sqrt(along) == pytest.approx(sigma, rel=0.08)


def test_a_sinc_keeps_what_lies_below_its_cutoff_and_removes_what_lies_above() -> None:
    x = np.arange(64, dtype=np.float32)
    kernel = faults.sinc_kernel(np.pi / 2)
    for frequency, kept in ((0.2 * np.pi, 1.0), (0.8 * np.pi, 0.0)):
        wave = np.broadcast_to(100 * np.cos(frequency * x)[None, :, None], (64, 64, 3)).copy()
        middle = faults.blurred(wave, kernel)[20:44, 20:44]
        assert np.abs(middle - kept * wave[20:44, 20:44]).max() < 12


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("poisson", [False, True])
def test_noise_has_the_strength_and_kind_that_was_drawn(grey: bool, poisson: bool) -> None:
    rng = np.random.default_rng(0)
    for light in (64, 128, 192):
        flat = np.full((96, 96, 3), light, np.float32)
        noise = faults.noisy(flat, 6, rng, grey=grey, poisson=poisson) - light
        expected = 6 * math.sqrt(light / 128) if poisson else 6  # photons: the variance grows with the light
        assert noise.std() == pytest.approx(expected, rel=0.04) and abs(noise.mean()) < 0.2
        assert (np.abs(noise - noise[..., :1]).max() < 1e-3) == grey


def test_poissons_noise_in_black_and_none_at_all_change_nothing() -> None:
    rng = np.random.default_rng(0)
    assert not faults.noisy(np.zeros((8, 8, 3), np.float32), 20, rng, poisson=True).any()
    lr = tensor(picture(1), picture(2))
    assert torch.equal(degrade_batch(lr, DegradationRecipe(), torch.tensor([1, 2])), lr)


def test_each_fault_comes_in_its_share() -> None:
    lr = tensor(*[picture(i, 24, 24) for i in range(8)]).repeat(50, 1, 1, 1)
    seeds = draw_seeds(400, torch.Generator().manual_seed(0))
    for name in ("blur", "resize", "noise", "jpeg", "webp"):
        strength = {"blur": 1.0, "resize": 0.7, "noise": 9.0, "jpeg": 50.0, "webp": 50.0}[name]
        made = degrade_batch(lr, DegradationRecipe(**{name: Effect(0.3, strength, strength)}), seeds)
        changed = (made != lr).flatten(1).any(1).float().mean().item()
        assert changed == pytest.approx(0.3, abs=0.07), name
        twice = degrade_batch(
            lr, DegradationRecipe(**{name: Effect(0.3, strength, strength)}, again=1.0), seeds
        )
        assert (twice != lr).flatten(1).any(1).float().mean().item() == pytest.approx(0.51, abs=0.07), name


def test_strengths_are_drawn_from_their_range() -> None:
    rng = np.random.default_rng(0)
    drawn = [Effect(0.4, 2, 6).draw(rng) for _ in range(4000)]
    on = [strength for strength in drawn if strength is not None]
    assert len(on) / 4000 == pytest.approx(0.4, abs=0.03)
    assert min(on) >= 2 and max(on) <= 6 and np.mean(on) == pytest.approx(4, rel=0.03)


def test_a_picture_is_degraded_by_its_own_seed_and_nothing_else() -> None:
    lr = tensor(*[picture(i, 22, 30) for i in range(6)])
    seeds = draw_seeds(6, torch.Generator().manual_seed(1))
    together = degrade_batch(lr, ALL, seeds)
    assert together.dtype == torch.uint8 and together.shape == lr.shape and not torch.equal(together, lr)
    for i in range(6):
        assert torch.equal(degrade_batch(lr[i : i + 1], ALL, seeds[i : i + 1]), together[i : i + 1])
    assert not torch.equal(degrade_batch(lr, ALL, seeds + 1), together)


def test_no_fault_moves_the_picture() -> None:
    y, x = np.mgrid[0:40, 0:40]
    spot = 255 * np.exp(-((x - 19.5) ** 2 + (y - 19.5) ** 2) / 40)
    lr = tensor(np.repeat(spot[..., None], 3, axis=2).astype(np.uint8)).repeat(60, 1, 1, 1)
    mild = DegradationRecipe(
        blur=Effect(0.7, 0.5, 1),
        resize=Effect(0.7, 0.6, 1.6),
        jpeg=Effect(0.5, 80, 95),
        webp=Effect(0.5, 80, 95),
    )
    made = degrade_batch(lr, mild, draw_seeds(60, torch.Generator().manual_seed(2))).double()[:, 0]
    weight = made.sum(dim=(1, 2))
    for axis in (torch.from_numpy(x), torch.from_numpy(y)):
        centre = (made * axis).sum(dim=(1, 2)) / weight
        assert (centre - 19.5).abs().max() < 0.3


def test_faults_touch_the_condition_and_not_the_image() -> None:
    def batch(*changes: str) -> Batch:
        recipe = load_recipe("tiny", overrides=["model.target=image", *changes])
        return BatchMaker(recipe, ImageBank([picture(5, 32, 32)]), torch.device("cpu"), World())(3)

    plain, spoiled = batch(), batch("degradation={jpeg: {share: 1, low: 20, high: 20}}")
    assert torch.equal(plain.lr, plain.clean) and torch.equal(plain.lr, degrade(to_uint8(plain.target), 4))
    assert torch.equal(spoiled.target, plain.target) and torch.equal(spoiled.clean, plain.clean)
    assert not torch.equal(spoiled.lr, plain.lr)
    assert torch.equal(spoiled.condition, bicubic_condition(spoiled.lr, 4))


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
