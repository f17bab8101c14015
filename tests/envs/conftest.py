"""Tiny models and pictures: an episode takes milliseconds."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

import skipdiff_env  # noqa: F401  (registers the environment)
from skipdiff_env.diffusion import NoiseSchedule, bicubic, random_model, tiny_config, to_signed


@pytest.fixture(scope="session")
def tiny():
    """A random v-prediction network for 4x on 32-pixel images."""
    return random_model(tiny_config(image_size=32, target="residual", residual_scale=5.0))


@pytest.fixture(scope="session")
def tiny_noise():
    """The same with noise prediction of the image itself, as in the paper."""
    return random_model(tiny_config(image_size=32, prediction="noise"), seed=1)


@pytest.fixture(scope="session")
def short():
    """A random network with T = 12 levels, so that every sequence of actions can be tried."""
    schedule = NoiseSchedule.cosine(12).config
    return random_model(replace(tiny_config(image_size=32), schedule=schedule), seed=2)


@pytest.fixture(scope="session")
def photos():
    """Three smooth random pictures, 40x48."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (3, 3, 6, 7))).float()
    smooth = bicubic(coarse, 40, 48) + torch.from_numpy(rng.normal(0, 12, (3, 3, 40, 48))).float()
    return [p.permute(1, 2, 0).numpy().copy() for p in smooth.clamp(0, 255).to(torch.uint8)]


def brightness(images):
    """A metric: mean level plus one, so never zero."""
    return images.mean((1, 2, 3)) + 1.0


@pytest.fixture(scope="session")
def bright():
    return brightness


@pytest.fixture
def make(tiny, photos):
    """``gymnasium.make`` with small things for defaults."""

    def make(**arguments):
        return gymnasium.make(
            "SkipDiff-v0", **{"model": tiny, "images": photos, "metric": brightness} | arguments
        )

    return make


@pytest.fixture
def make_vec(tiny, photos):
    """``gymnasium.make_vec`` with the same defaults."""

    def make_vec(num_envs, **arguments):
        defaults = {"model": tiny, "images": photos, "metric": brightness}
        return gymnasium.make_vec("SkipDiff-v0", num_envs=num_envs, **defaults | arguments)

    return make_vec


class Interpolation:
    """A 'model' that knows nothing: x̂0 is the condition. No image_size, no device, not a network."""

    def __init__(self, scale=4, steps=100):
        self.schedule, self.scale = NoiseSchedule.cosine(steps), scale
        self.rows = []  # batch size of every call

    def condition(self, lr):
        return bicubic(to_signed(lr), lr.shape[2] * self.scale, lr.shape[3] * self.scale).clamp(-1, 1)

    def predict(self, latent, condition, noise_level):
        self.rows.append(len(latent))
        return condition

    def to_latent(self, image, condition):
        return image


@pytest.fixture
def interpolation():
    return Interpolation


def _assert_close(a, b, tolerance):
    assert type(a) is type(b), (a, b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _assert_close(a[key], b[key], tolerance)
    elif isinstance(a, np.ndarray) and a.dtype == object:
        assert a.shape == b.shape
        for x, y in zip(a.flat, b.flat, strict=True):
            _assert_close(x, y, tolerance)
    elif isinstance(a, np.ndarray | float | np.floating):
        assert np.shape(a) == np.shape(b) and getattr(a, "dtype", 0) == getattr(b, "dtype", 0)
        if tolerance == 0 or np.asarray(a).dtype.kind != "f":
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    else:
        assert a == b


@pytest.fixture(scope="session")
def assert_close():
    """Same structure, types and whole numbers; floats to a tolerance (0: to the bit)."""
    return _assert_close
