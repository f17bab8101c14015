"""ST-LPIPS (Ghildyal and Liu 2022): LPIPS with networks that blur before they subsample, and its own weights.

A shift by one pixel, which people do not see, changes LPIPS a good deal and ST-LPIPS little. The two networks
serve different purposes: AlexNet's is a metric (``st-lpips``), and VGG's is a loss for training that no
table of results reports. The weights, 69 MB, come with the package
``stlpips_pytorch``, which is not imported.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipdiff_env.diffusion.resize import to_planes, to_signed
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics.base import Images, Metric, Scores

PACKAGE = "stlpips_pytorch"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and standard deviation of ImageNet's pixels, for images in [-1, 1]."""
MIN_SIZE = 31
"""Minimum side, in pixels, that is enough for pooling and reflected borders; the same as LPIPS's."""

Trunk = Literal["alex", "vgg"]
_LAYERS: dict[Trunk, tuple[str, ...]] = {
    "alex": ("c11 blur relu", "max3 blur c5 relu", "max3 blur c3 relu", "c3 relu", "c3 relu"),
    "vgg": (
        "c3 relu c3 relu", "max2 blur c3 relu c3 relu", *["max2 blur c3 relu c3 relu c3 relu"] * 3
    ),
}  # fmt: skip
"""Operations of each network up to each of the five layers that are compared; only the blur subsamples."""
_PADDING = {"c3": 1, "c5": 2, "c11": 2}


class ShiftTolerantLpips(nn.Module):
    """A frozen, differentiable network: two batches (B, 3, H, W) in [-1, 1] → their distances (B,).

    Args:
        trunk: ``alex`` for AlexNet or ``vgg`` for VGG16.

    Raises:
        SkipDiffError: if the weights are not installed.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        found = torch.load(_weights(trunk), map_location="cpu", weights_only=True)
        names = [m for name in found if (m := re.fullmatch(r"net\.slice\d\.(\d+)\.weight", name))]
        names.sort(key=lambda m: int(m.group(1)))
        self.layers = _LAYERS[trunk]
        self.convolutions = nn.ParameterList()
        for match in names:
            name = match.group(0)
            self.convolutions += [found[name], found[name.removesuffix("weight") + "bias"]]
        self.heads = nn.ParameterList(found[f"lin{i}.model.1.weight"] for i in range(len(self.layers)))
        self.register_buffer("shift", torch.tensor(SHIFT)[None, :, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[None, :, None, None], persistent=False)
        self.requires_grad_(False)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute the activations of the five layers."""
        x = ((image - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        found, weights = [], iter(self.convolutions)
        for layer in self.layers:
            for word in layer.split():
                if word == "relu":
                    x = F.relu(x)
                elif word == "blur":
                    x = blur_and_halve(x)
                elif word.startswith("max"):
                    x = F.max_pool2d(x, int(word[3:]), stride=1)
                else:
                    x = F.conv2d(x, next(weights), next(weights), padding=_PADDING[word])
            found.append(x)
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return layered_distance(self.features(a), self.features(b), list(self.heads))


def blur_and_halve(x: Tensor) -> Tensor:
    """Return every second pixel of x (B, C, H, W), blurred by (1 2 1)/4 along both axes, with reflected
    borders.

    The filter is computed as two means of two pixels, one after the other.
    """
    return F.avg_pool2d(F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), 2, stride=1), 2)


def layered_distance(a: Sequence[Tensor], b: Sequence[Tensor], heads: Sequence[Tensor]) -> Tensor:
    """Compute LPIPS's distance between two sets of features, (B,).

    The squared differences of unit vectors are weighted by heads (1, C, 1, 1), averaged over positions and
    summed over layers.
    """
    total = torch.zeros(len(a[0]), device=a[0].device)
    for x, y, head in zip(a, b, heads, strict=True):
        difference = (_unit(x.float()) - _unit(y.float())).square()
        total = total + F.conv2d(difference, head).float().mean(dim=(1, 2, 3))
    return total


def _unit(x: Tensor) -> Tensor:
    # √(0 + tiny), because the square root of 0 has no gradient
    return x / (x.square().sum(dim=1, keepdim=True) + 1e-20).sqrt().add(1e-10)


def _weights(trunk: Trunk) -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SkipDiffError(f"ST-LPIPS needs weights that are not installed: pip install --no-deps {PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "weights" / "vST0.0" / f"{trunk}_shift_tolerant.pth"


class ShiftTolerantMetric(Metric):
    """ST-LPIPS with AlexNet; loaded at the first score."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, name="st-lpips", lower_better=True, reference=True, min_size=MIN_SIZE)

    @cached_property
    def _network(self) -> ShiftTolerantLpips:
        return ShiftTolerantLpips("alex").to(self.device)

    @torch.no_grad()
    def _score(self, images: Images, references: Images | None) -> Scores:
        assert references is not None  # __call__ has checked
        network = self._network
        pairs = (
            (to_signed(to_planes(x).to(self.device)) for x in p) for p in zip(images, references, strict=True)
        )
        return np.array([network(*pair).item() for pair in pairs], np.float64)
