"""A tiny model of T = 20 levels, and photographs that NIQE just takes."""

import numpy as np
import pytest

from skipdiff_env.diffusion import NoiseSchedule, random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model
from skipdiff_env.images import bundled_images, open_source, write_image


@pytest.fixture(scope="session")
def model():
    config = tiny_config(image_size=96, start=2, schedule=NoiseSchedule.cosine(20).config)
    return random_model(config)


@pytest.fixture(scope="session")
def model_folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_model(folder, model.network, model.config, "a card")


@pytest.fixture(scope="session")
def source():
    return open_source([np.ascontiguousarray(bundled_images()[i][:96, :96]) for i in (0, 2)])


@pytest.fixture(scope="session")
def image_folder(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(len(source)):
        write_image(folder / f"photo{index}.png", source[index])
    return folder
