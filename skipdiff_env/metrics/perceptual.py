"""NIQE, LPIPS and all other metrics of pyiqa.

NIQE is by Mittal, Soundararajan and Bovik (2013), and LPIPS by Zhang et al. (2018). Both run pyiqa's code
with the weights in ``weights/``; for any other metric, pyiqa finds the weights itself.

NIQE reacts to the last bit: in flat areas its normalised pixels are rounding noise whose sign counts. Scores
from different machines or devices agree to within about 1e-3 of their value on such pictures, and to
within 1e-6 on others.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skipdiff_env.diffusion.resize import to_planes
from skipdiff_env.errors import SkipDiffError, first_line
from skipdiff_env.metrics import pyiqa_loading
from skipdiff_env.metrics.base import Images, Metric, Scores

NIQE_BLOCK = 96
"""Side of NIQE's blocks in pixels."""
LPIPS_MIN_SIZE = 31
"""Minimum side in pixels of a picture that survives AlexNet's pooling."""

_BATCHED = {"niqe": NIQE_BLOCK, "lpips": LPIPS_MIN_SIZE}
"""The metrics whose weights are included, and their minimum sides in pixels. They score batches: NIQE's
scores are bit-identical to those of single pictures, and LPIPS's agree to 1e-7. Other metrics of pyiqa score
one picture at a time."""


class PyiqaMetric(Metric):
    """A metric of pyiqa, given by its name in that library.

    NIQE and LPIPS are loaded at the first score; others, whose weights may have to be downloaded, at once.

    A picture on which a metric fails scores NaN, and the rest of the batch is not affected. If the metric
    runs out of memory, or also fails on noise of the same size, the picture is not the cause, and an error is
    raised.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        on_board = name in _BATCHED
        lower_better, reference = (True, name == "lpips") if on_board else pyiqa_loading.properties(name)
        min_size = _BATCHED.get(name, 1)
        super().__init__(device, name=name, lower_better=lower_better, reference=reference, min_size=min_size)
        # Enough to keep a GPU busy; on a CPU, larger passes of NIQE exceed the caches and become slower.
        self._pixels_a_pass = (4 if device.type == "cpu" else 16) * 256**2 if on_board else 0
        if not on_board:
            _ = self._network

    @cached_property
    def _network(self) -> torch.nn.Module:
        return pyiqa_loading.create_network(self.name, self.device)

    def _score(self, images: Images, references: Images | None) -> Scores:
        rows = max(1, self._pixels_a_pass // (images.shape[1] * images.shape[2]))
        starts = range(0, len(images), rows)
        return np.concatenate([self._pass(*_rows(images, references, slice(i, i + rows))) for i in starts])

    def _pass(self, images: Images, references: Images | None) -> Scores:
        network = self._network  # outside the try: an error in loading is not the picture's fault
        try:
            return self._infer(network, images, references)
        except Exception as error:
            if _out_of_memory(error):
                raise
            if len(images) > 1:
                singles = (_rows(images, references, slice(i, i + 1)) for i in range(len(images)))
                return np.concatenate([self._pass(*single) for single in singles])
            self._check_noise(network, images.shape, error)
            return np.array([np.nan])

    def _infer(self, network: torch.nn.Module, images: Images, references: Images | None) -> Scores:
        inputs = [images, references] if self.reference else [images]
        with torch.no_grad(), _undisturbed(self.device):
            scores = network(*(self._to_tensor(x) for x in inputs if x is not None))
        return scores.double().reshape(len(images)).cpu().numpy()

    def _to_tensor(self, images: Images) -> torch.Tensor:
        """Convert uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [0, 1], or to (B, 1, H, W) for NIQE."""
        pixels = niqe_luma(images)[..., None] if self.name == "niqe" else images
        planes = to_planes(pixels).contiguous()
        return planes.to(self.device) / 255

    def _check_noise(self, network: torch.nn.Module, shape: tuple[int, ...], error: Exception) -> None:
        """Raise an error unless noise of this shape can be scored."""
        noise = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
        try:
            self._infer(network, noise[0], noise[1])
        except Exception as again:
            if _out_of_memory(again):
                raise
            raise SkipDiffError(
                f"metric {self.name!r} cannot score pictures of {shape[1]}x{shape[2]} pixels: "
                f"{first_line(error)}"
            ) from error


class FullNiqe(Metric):
    """NIQE of the whole picture: the mean over up to four crops anchored in the corners.

    A crop's sides are the largest multiples of 96 that fit, so two crops always cover a side. If a crop has
    no score, neither has the picture.
    """

    def __init__(self, niqe: Metric) -> None:
        super().__init__(
            niqe.device,
            name="niqe-full",
            lower_better=True,
            reference=False,
            min_size=niqe.min_size,
        )
        self._niqe = niqe

    def _score(self, images: Images, references: Images | None) -> Scores:
        batch, height, width = images.shape[:3]
        rows, columns = height % NIQE_BLOCK, width % NIQE_BLOCK
        crops = [
            images[:, top : top + height - rows, left : left + width - columns]
            for top in sorted({0, rows})
            for left in sorted({0, columns})
        ]
        return self._niqe(np.concatenate(crops)).reshape(len(crops), batch).mean(0)


def niqe_luma(images: Images) -> NDArray[np.float32]:
    """Compute the integer grey levels that NIQE reads: uint8 RGB (…, 3) to float32 (…) in [0, 255].

    The formula is pyiqa's (Y of YIQ), but it is not computed as a matrix product. About one pixel in a
    thousand lies halfway between two grey levels, and the direction in which float32 rounds it depends on the
    order of the sum, and thus on the machine. This alone moves scores by up to 0.1 %. Here the order is
    fixed, on the CPU.
    """
    red, green, blue = np.moveaxis(images.astype(np.float32) / np.float32(255), -1, 0)
    luma = red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)
    return np.rint(luma * np.float32(255))


def _rows(images: Images, references: Images | None, rows: slice) -> tuple[Images, Images | None]:
    return images[rows], None if references is None else references[rows]


def _out_of_memory(error: Exception) -> bool:
    # On a CPU, and in CUDA's libraries, it is a plain RuntimeError with a message.
    return isinstance(error, MemoryError) or bool(re.search("out of memory|alloc", str(error).lower()))


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Seed the generators that a metric may use, restore the caller's afterwards, and hide warnings.

    On CUDA, convolutions are also kept deterministic and in float32: TensorFloat-32, their default, moves
    LPIPS in its fourth digit.
    """
    on_cuda = device.type == "cuda"
    cudnn: Any = torch.backends.cudnn  # a module of which mypy does not see everything
    numpy_state = np.random.get_state()
    settings = cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision
    with torch.random.fork_rng(devices=[device] if on_cuda else []), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision = True, False, "ieee"
        # Not torch.manual_seed, which would reseed every other GPU as well.
        torch.default_generator.manual_seed(0)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision = settings
