"""The degraded test set: kinds of degradation, which turn an input into a file that a user might have.

Each entry of :data:`KINDS` is a line in every table. The files depend only on the seed, the name of the kind
and the picture. Another kind, or fewer pictures, therefore changes nothing in the other files.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion import degradations, image_key

SEED = 0
PHOTOGRAPHS = "photographs"
CLEAN = "clean"
"""Name of the kind without degradation."""

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A kind of degradation of inputs."""

    name: str
    suffix: str = "png"
    """Suffix of the file in which the input is saved: png, jpg or webp."""
    quality: int | None = None
    """Quality of that file."""
    change: Change | None = None
    """Change before the input is saved, uint8 (h, w, 3) → uint8 (h, w, 3)."""
    of: str = PHOTOGRAPHS
    """Content of the pictures: photographs, or an entry of :data:`.drawn.DRAWN`."""

    def file(self, lr: np.ndarray) -> bytes:
        """Save an input, uint8 (h, w, 3); return the file."""
        rng = np.random.default_rng([SEED, zlib.crc32(self.name.encode()), image_key(lr)])
        return saved(self.change(lr, rng) if self.change else lr, self.suffix, self.quality)

    def __call__(self, lr: np.ndarray, index: int) -> np.ndarray:
        """Return the pixels of that file; ``index``, which sources pass, is ignored."""
        return np.array(Image.open(io.BytesIO(self.file(lr))).convert("RGB"))


def saved(image: np.ndarray, suffix: str, quality: int | None = None) -> bytes:
    """Save uint8 (h, w, 3) as a file; JPEGs with Pillow's usual chroma subsampling."""
    file = io.BytesIO()
    form = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[suffix]
    Image.fromarray(image).save(file, form, **({} if quality is None else {"quality": quality}))
    return file.getvalue()


def noise(sigma: float) -> Change:
    """Add Gaussian noise, independent in each channel."""
    return lambda lr, rng: degradations.to_bytes(degradations.noisy(lr.astype(np.float32), sigma, rng))


def blur(sigma: float) -> Change:
    """Blur with a Gaussian, σ in input pixels."""
    kernel = degradations.gaussian_kernel(sigma)
    return lambda lr, rng: degradations.to_bytes(degradations.blurred(lr.astype(np.float32), kernel))


def shared_again(first: int) -> Change:
    """Save as JPEG and crop off the block grid, as when a messenger has already made a new file."""

    def change(lr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        top, left = (int(x) for x in rng.integers(1, 8, 2))
        coded = degradations.jpeg(lr.astype(np.float32), first, corner=(top, left))
        return degradations.to_bytes(coded)

    return change


def saved_again(first: int) -> Change:
    """Save as JPEG on the same block grid, as when a photograph is edited and saved at a better quality."""
    return lambda lr, rng: degradations.to_bytes(degradations.jpeg(lr.astype(np.float32), first))


KINDS = [
    Kind(CLEAN),
    Kind("JPEG 75", "jpg", 75),
    Kind("JPEG 40", "jpg", 40),
    Kind("noise 6", change=noise(6)),
    Kind("noise 12", change=noise(12)),
    Kind("blur 0.7", change=blur(0.7)),
    Kind("blur 1.2", change=blur(1.2)),
    Kind("WebP 75", "webp", 75),
    Kind("WebP 40", "webp", 40),
    Kind("twice 85, 75", "jpg", 75, shared_again(85)),
    Kind("twice 60, 50", "jpg", 50, shared_again(60)),
    Kind("twice 40, 95", "jpg", 95, saved_again(40)),
    Kind("text", of="text"),
    Kind("text, JPEG 75", "jpg", 75, of="text"),
    Kind("line art", of="line art"),
    Kind("line art, JPEG 75", "jpg", 75, of="line art"),
]
"""All kinds, in the order of the tables."""


def known_kinds(names: Sequence[str], kinds: Sequence[Kind]) -> list[Kind]:
    """Find kinds by their names.

    Raises:
        SkipDiffError: if a kind does not exist; the message names the first.
    """
    known = {kind.name: kind for kind in kinds}
    for name in names:
        if name not in known:
            raise SkipDiffError(f"--kinds: unknown kind {name!r}: use some of {', '.join(map(repr, known))}")
    return [known[name] for name in names]
