"""Photographs of scikit-image: whole, cropped, enlarged by bicubic."""

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from PIL import Image

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


@pytest.fixture(scope="session")
def down_and_up() -> Callable[[np.ndarray], np.ndarray]:
    """What bicubic interpolation makes of a picture: a quarter of its size and back, in 8 bits each time."""

    def enlarge(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        small = Image.fromarray(image).resize((width // 4, height // 4), Image.Resampling.BICUBIC)
        return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))

    return enlarge


@pytest.fixture(scope="session")
def photographs() -> dict[str, np.ndarray]:
    return {name: getattr(skimage.data, name)() for name in PHOTOGRAPHS}


@pytest.fixture(scope="session")
def crops(photographs: dict[str, np.ndarray]) -> np.ndarray:
    """The centre 256x256 of the four photographs, (4, 256, 256, 3)."""
    corners = [
        (image, (image.shape[0] - 256) // 2, (image.shape[1] - 256) // 2) for image in photographs.values()
    ]
    return np.stack([image[top : top + 256, left : left + 256] for image, top, left in corners])


@pytest.fixture(scope="session")
def bicubic(crops: np.ndarray, down_and_up: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.stack([down_and_up(image) for image in crops])
