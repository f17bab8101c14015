"""Discriminators, their hinge losses, and the detection of a collapsed discriminator.

In names, ``critic`` stands for discriminator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .features import CHANNELS, AlexFeatures

COLLAPSE_STEPS = 300
"""Number of consecutive useless steps after which a discriminator counts as collapsed."""
WON = 0.01
"""Mean hinge loss below which a discriminator has nothing left to learn; it is 2 before any learning."""
ALIKE = 1e-4
"""Standard deviation of a discriminator's answers below which they are all the same."""


class PatchCritic(nn.Module):
    """Images (B, 3, H, W) → one answer per patch of 46 pixels, (B, 1, h, w) (Isola et al. 2017).

    Spectral norm (Miyato et al. 2018) takes the place of batch norm, which is unreliable with small batches.
    """

    WIDTHS = (3, 32, 64, 128)
    """Numbers of channels of the image and of every layer but the last."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip(self.WIDTHS[:-1], self.WIDTHS[1:], strict=True):
            layers += [_spectral(nn.Conv2d(inputs, outputs, 4, 2, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, _spectral(nn.Conv2d(self.WIDTHS[-1], 1, 4, 1, 1)))

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image).float()


class FeatureCritic(nn.Module):
    """Small heads on frozen features: images (B, 3, H, W) → answers (B, n), for all heads and positions.

    AddSR uses the features of DINOv2; here those of AlexNet, which ship with LPIPS, take their place.
    """

    WIDTH = 64
    """Number of channels of a head."""

    def __init__(self) -> None:
        super().__init__()
        width = self.WIDTH
        self.features = AlexFeatures()
        self.heads = nn.ModuleList(
            nn.Sequential(
                _spectral(nn.Conv2d(channels, width, 1)),
                nn.LeakyReLU(0.2),
                _spectral(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, 1, 1),
            )
            for channels in CHANNELS
        )

    def forward(self, image: Tensor) -> Tensor:
        layers = self.features(image)
        answers = [head(x).flatten(1) for head, x in zip(self.heads, layers, strict=True)]
        return torch.cat(answers, dim=1).float()


def _spectral(layer: nn.Module) -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(layer)


def critic_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss: mean of max(0, 1 - D(real)) plus mean of max(0, 1 + D(fake))."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_hinge(fake: Tensor) -> Tensor:
    """Return the generator's loss: mean of -D(fake)."""
    return -fake.mean()


class CollapseWatch:
    """Watches a discriminator's loss and the spread of its answers."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=COLLAPSE_STEPS)

    def __call__(self, parts: Mapping[str, float]) -> str:
        """Say what is wrong after a step with this ``critic_loss`` and ``critic_spread``; empty: nothing."""
        self._seen.append((parts["critic_loss"], parts["critic_spread"]))
        if len(self._seen) < COLLAPSE_STEPS:
            return ""
        losses, spreads = zip(*self._seen, strict=True)
        if max(spreads) < ALIKE:
            return f"it has given every patch the same answer for {COLLAPSE_STEPS} steps"
        if sum(losses) / len(losses) < WON:
            return f"it has told real from generated images without effort for {COLLAPSE_STEPS} steps"
        return ""
