"""A game whose right answer is known: a 'model' that turns the noise left in a latent into brightness."""

from dataclasses import dataclass

import numpy as np
import pytest

from skipdiff_agents.evaluate import Setting
from skipdiff_env.diffusion import NoiseSchedule, bicubic, random_model, tiny_config, to_signed
from skipdiff_env.images import open_source


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Recordings of tests are none of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass
class NoiseMeter:
    """x̂0 is flat, the brighter the noisier the latent: each denoising step darkens the result."""

    scale: int = 4
    image_size: int = 16
    hash: str = "noise-meter"

    def __post_init__(self):
        self.schedule = NoiseSchedule.cosine(20)

    def condition(self, lr):
        return bicubic(to_signed(lr), lr.shape[2] * self.scale, lr.shape[3] * self.scale).clamp(-1, 1)

    def predict(self, latent, condition, noise_level):
        noise = latent.flatten(1).std(dim=1).clamp(0, 1)
        return (2 * noise - 1)[:, None, None, None].expand_as(latent).clone()

    def to_latent(self, image, condition):
        return image


class Favourite:
    """A metric with a favourite brightness: 1 there, falling to 0."""

    def __init__(self, level):
        self.level = level

    def __call__(self, images):
        return np.exp(-((np.log(images.mean((1, 2, 3)) / self.level) / 0.3) ** 2)) + 1e-3


@pytest.fixture(scope="session")
def pictures():
    rng = np.random.default_rng(0)
    return open_source([rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(4)])


@pytest.fixture(scope="session")
def meter():
    return NoiseMeter()


@pytest.fixture(scope="session")
def favourite():
    return Favourite


@pytest.fixture(scope="session")
def setting(meter, pictures):
    """S = 4, F = 5, any skip rule."""

    def make(level=35.0, **changes):
        return Setting(
            **{"model": meter, "source": pictures, "metric": Favourite(level), "coarse_steps": 4} | changes
        )

    return make


@pytest.fixture(scope="session")
def tiny_setting():
    """A real, random network on 32-pixel pictures: S = 10, F = 5."""
    rng = np.random.default_rng(1)
    source = open_source([rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3)])
    return Setting(
        random_model(tiny_config()), source, lambda images: images.mean((1, 2, 3)) + 1.0, fine_steps=5
    )  # fmt: skip
