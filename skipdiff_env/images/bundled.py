"""Real photographs that need no download, since they come with scikit-image, scikit-learn and matplotlib.

Only natural colour photographs under clear terms are listed (the packages' other pictures are grey,
microscopic, synthetic or of stars, or come without stated terms). The files are read straight
from the installed packages, none of which is imported: scikit-image's loaders may access the network.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import SkipDiffError
from .io import RGB8, read_image

BUNDLED_IMAGE_SIZE = 192
"""Side of the HR crops that episodes on the bundled photographs use, in pixels."""

_SHORT_SIDE = 256
"""Short side in pixels to which the photographs are shrunk, as the training pictures were. A crop of 192
pixels then shows whole objects with detail in every pixel, whereas half of a crop of the full-size picture
would be out-of-focus background. A random crop still has at least 65 positions along each axis."""


@dataclass(frozen=True)
class Photograph:
    """A photograph that comes with an installed package, and its source."""

    name: str
    file: str
    subject: str
    author: str
    licence: str
    source: str
    package: str = "scikit-image"
    """The name under which pip installs the package that contains the photograph."""

    @property
    def path(self) -> Path:
        """The path of its file."""
        return _data_folder(self.package) / self.file

    def read(self) -> RGB8:
        """Return the photograph as shipped, uint8 (H, W, 3)."""
        return read_image(self.path)

    def read_small(self) -> RGB8:
        """Return the photograph with a short side of 256 pixels."""
        return shrunk(self.read())


def shrunk(photograph: RGB8) -> RGB8:
    """Return a photograph shrunk (antialiased, Lanczos) to a short side of 256 pixels."""
    full = Image.fromarray(photograph)
    ratio = _SHORT_SIDE / min(full.size)
    size = (round(full.width * ratio), round(full.height * ratio))
    return np.asarray(full.resize(size, Image.Resampling.LANCZOS))


PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph(
        name="astronaut",
        file="astronaut.png",
        subject="Eileen Collins, astronaut, official portrait",
        author="NASA",
        licence="public domain",
        source="https://flic.kr/p/r9qvLn",
    ),
    Photograph(
        name="chelsea",
        file="chelsea.png",
        subject="Chelsea, a tabby cat",
        author="Stefan van der Walt",
        licence="CC0",
        source="scikit-image",
    ),
    Photograph(
        name="coffee",
        file="coffee.png",
        subject="a cup of coffee at Pikolo Espresso Bar",
        author="Rachel Michetti",
        licence="CC0",
        source="scikit-image",
    ),
    Photograph(
        name="rocket",
        file="rocket.jpg",
        subject="Falcon 9 before launching DSCOVR at dusk",
        author="SpaceX",
        licence="public domain",
        source="https://www.flickr.com/photos/spacexphotos/16511594820/",
    ),
    Photograph(
        name="china",
        file="china.jpg",
        subject="a pagoda of the Summer Palace in Beijing",
        author="danielbuechele",
        licence="CC BY 2.0",
        source="https://www.flickr.com/photos/danielbuechele/6061409035/",
        package="scikit-learn",
    ),
    Photograph(
        name="flower",
        file="flower.jpg",
        subject="a dahlia",
        author="vultilion",
        licence="CC BY 2.0",
        source="https://www.flickr.com/photos/vultilion/6056698931/",
        package="scikit-learn",
    ),
    Photograph(
        name="hopper",
        file="grace_hopper.jpg",
        subject="Commodore Grace M. Hopper, official portrait",
        author="James S. Davis, US Navy",
        licence="public domain",
        source="matplotlib",
        package="matplotlib",
    ),
)
"""Colour photographs of 512x512, 451x300, 600x400, 640x427 (three times) and 512x600 pixels, in order."""

_DEMO = "chelsea"


def demo_photograph() -> RGB8:
    """Return the photograph of the demo: the cat, full size, uint8 (300, 451, 3).

    Fur and whiskers are details that bicubic enlargement visibly loses, every pixel is natural texture, and
    the picture is not a portrait of a person.
    """
    return next(photo for photo in PHOTOGRAPHS if photo.name == _DEMO).read()


_DATA = {
    "scikit-image": ("skimage", "data"),
    "scikit-learn": ("sklearn", "datasets/images"),
    "matplotlib": ("matplotlib", "mpl-data/sample_data"),
}
"""Where packages keep their photographs: the module, and the folder in it."""


def _data_folder(package: str) -> Path:
    module, folder = _DATA[package]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise SkipDiffError(
            f"a bundled photograph comes with {package}, which is not installed: pip install {package}, "
            "or give your own images="
        )
    return Path(spec.submodule_search_locations[0]) / folder
