"""AlexNet's features, and LPIPS (Zhang et al. 2018) as a loss, in torch alone, with the metrics' weights.

:mod:`skipdiff_env.metrics` measures with pyiqa's LPIPS, which is not needed for training; a test checks that
the two agree.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...diffusion.folder import read_safetensors
from ...metrics.shift_tolerant import SCALE, SHIFT, layered_distance

WEIGHTS = Path(__file__).resolve().parents[2] / "metrics" / "weights" / "lpips_alex.safetensors"
CHANNELS = (64, 192, 384, 256, 256)
"""Width of each of the five layers."""
MIN_SIZE = 31
"""Minimum side of an image in pixels; the pooling would leave nothing of a smaller one."""


class AlexFeatures(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] → the activations of AlexNet's five convolutions; frozen."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(3, 64, 11, 4, 2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        )
        weights = read_safetensors(WEIGHTS)
        names = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")
        for name, convolution in zip(names, self.convolutions, strict=True):
            own = {part: weights[f"net.{name}.{part}"] for part in ("weight", "bias")}
            convolution.load_state_dict(own)
        self.register_buffer("shift", torch.tensor(SHIFT)[None, :, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[None, :, None, None], persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = (image - self.shift) / self.scale
        layers = []
        for index, convolution in enumerate(self.convolutions):
            if index in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(convolution(x))
            layers.append(x)
        return layers


class Lpips(nn.Module):
    """LPIPS 0.1 with AlexNet, differentiable: two batches (B, 3, H, W) in [-1, 1] → (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = AlexFeatures()
        weights = read_safetensors(WEIGHTS)
        for layer in range(len(CHANNELS)):
            self.register_buffer(f"head{layer}", weights[f"lin{layer}.model.1.weight"], persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        heads = [getattr(self, f"head{layer}") for layer in range(len(CHANNELS))]
        return layered_distance(self.features(a), self.features(b), heads)
