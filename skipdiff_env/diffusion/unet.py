"""The U-Net of SR3 (Saharia et al., TPAMI 2022), with the layout of its best-known PyTorch re-implementation.

Module names follow published checkpoints (``downs.3.res_block.block1.block.0.weight`` …), so these load
without renaming. Only the configuration adapts the network to a small machine: ``patch_size``
(pixel-unshuffle before, shuffle after), widths, depth, attention, and the scale on which the noise level is
embedded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class UNetConfig:
    """Architecture of a :class:`UNet`. The defaults are SR3 at 128 pixels (97,807,491 weights)."""

    channels: int = 64
    """Width of the top level."""
    multipliers: Sequence[int] = (1, 2, 4, 8, 8)
    """Width of each level, in units of ``channels``; each level halves the resolution."""
    res_blocks: int = 2
    """Number of residual blocks per level on the way down (one more on the way up)."""
    norm_groups: int = 32
    """Number of groups in every group norm."""
    dropout: float = 0.2
    """Dropout inside residual blocks, in training only."""
    image_size: int = 128
    """Nominal input size in pixels; it decides only which levels ``attention_sizes`` names."""
    attention_sizes: Sequence[int] = (16,)
    """Sides, in pixels at ``image_size``, of the levels whose blocks have attention."""
    middle_attention: bool = True
    """Whether the first of the two middle blocks has attention."""
    patch_size: int = 1
    """Side of the pixel blocks folded into channels before the first convolution; 1 = SR3."""
    zero_init: bool = False
    """Whether every residual branch starts at zero, so that a new block is the identity."""
    level_embedding: Literal["signal", "log_snr"] = "signal"
    """What is embedded: √ᾱ itself (SR3) or the log signal-to-noise ratio, which distinguishes the last few
    levels (the √ᾱ of levels 1 and 10 differ by only 1.4 %)."""

    @property
    def multiple(self) -> int:
        """The number to whose multiples the sides of inputs are padded."""
        return self.patch_size * 2 ** (len(self.multipliers) - 1)


class SinusoidalEmbedding(nn.Module):
    """Noise level (B,) → (B, dim): half sines, half cosines, of frequencies exp(-ln 1e4 · i/(dim/2))."""

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        if kind not in ("signal", "log_snr"):
            raise ValueError(f"unknown level_embedding {kind!r}: use 'signal' or 'log_snr'")
        self.dim, self.kind = dim, kind

    def forward(self, level: Tensor) -> Tensor:
        position = level.float()
        if self.kind == "log_snr":
            # ln(ᾱ/(1-ᾱ)) spans -15 … 7 over the cosine schedule; ×8 makes the fastest sine turn
            # about once per level where levels are closest.
            signal = position.double().square().clamp(1e-9, 1 - 1e-6)
            position = (8 * torch.log(signal / (1 - signal))).float()
        half = self.dim // 2
        index = torch.arange(half, dtype=torch.float32, device=level.device) / half
        angle = position[:, None] * torch.exp(-math.log(1e4) * index)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class LevelBias(nn.Module):
    """Adds a linear function of the noise-level embedding to every pixel."""

    def __init__(self, embedding: int, channels: int) -> None:
        super().__init__()
        self.noise_func = nn.Sequential(nn.Linear(embedding, channels))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return x + self.noise_func(embedding)[:, :, None, None]


class NormConv(nn.Module):
    """Group norm, Swish, dropout, 3×3 convolution."""

    def __init__(self, inputs: int, outputs: int, groups: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.GroupNorm(groups, inputs),
            nn.SiLU(),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            nn.Conv2d(inputs, outputs, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two :class:`NormConv` blocks with the noise level added in between, and a shortcut around both."""

    def __init__(self, inputs: int, outputs: int, embedding: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.noise_func = LevelBias(embedding, outputs)
        self.block1 = NormConv(inputs, outputs, groups)
        self.block2 = NormConv(outputs, outputs, groups, dropout)
        self.res_conv = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.noise_func(self.block1(x), embedding)
        return self.block2(h) + self.res_conv(x)


class SelfAttention(nn.Module):
    """Single-head self-attention over all pixels, scaled by 1/√C, with a shortcut around it."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, c, h * w).transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v)  # (B, HW, C); its default scale is 1/√C
        return self.out(attended.transpose(-1, -2).reshape(b, c, h, w)) + x


class Stage(nn.Module):
    """A residual block, followed by attention where the configuration asks for it."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, groups: int, dropout: float, attend: bool
    ) -> None:
        super().__init__()
        self.res_block = ResidualBlock(inputs, outputs, embedding, groups, dropout)
        self.attn = SelfAttention(outputs, groups) if attend else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.res_block(x, embedding)
        return x if self.attn is None else self.attn(x)


class Downsample(nn.Module):
    """Halves both sides with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles both sides with nearest-neighbour enlargement and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """Maps (B, 6, H, W) = [condition, latent] and the level √ᾱ (B,) to (B, 3, H, W), for any H and W.

    Sides are padded by reflection (or with edge pixels if the picture is too small for that) to the
    network's multiple, and the result is cropped back.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        width, groups, dropout = config.channels, config.norm_groups, config.dropout
        folded = config.patch_size**2

        def stage(inputs: int, outputs: int, attend: bool) -> Stage:
            return Stage(inputs, outputs, width, groups, dropout, attend)

        self.noise_level_mlp = nn.Sequential(
            SinusoidalEmbedding(width, config.level_embedding),
            nn.Linear(width, 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, width),
        )
        self.downs = nn.ModuleList([nn.Conv2d(6 * folded, width, 3, padding=1)])
        skips, current, side = [width], width, config.image_size // config.patch_size
        levels = [width * m for m in config.multipliers]
        attends = [(side >> i) * config.patch_size in config.attention_sizes for i in range(len(levels))]
        for level, outputs in enumerate(levels):
            for _ in range(config.res_blocks):
                self.downs.append(stage(current, outputs, attends[level]))
                current = outputs
                skips.append(current)
            if level < len(levels) - 1:
                self.downs.append(Downsample(current))
                skips.append(current)
        self.mid = nn.ModuleList(
            [stage(current, current, config.middle_attention), stage(current, current, False)]
        )
        self.ups = nn.ModuleList()
        for level, outputs in reversed(list(enumerate(levels))):
            for _ in range(config.res_blocks + 1):
                self.ups.append(stage(current + skips.pop(), outputs, attends[level]))
                current = outputs
            if level > 0:
                self.ups.append(Upsample(current))
        self.final_conv = NormConv(current, 3 * folded, groups)
        if config.zero_init:
            self._zero_residual_branches()

    def _zero_residual_branches(self) -> None:
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                last = module.block2.block[-1]
            elif isinstance(module, SelfAttention):
                last = module.out
            else:
                continue
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        for parameter in self.final_conv.block[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.config.multiple)
        x = F.pixel_unshuffle(x, self.config.patch_size)
        embedding = self.noise_level_mlp(noise_level.reshape(len(x)))
        skips = []
        for layer in self.downs:
            x = layer(x, embedding) if isinstance(layer, Stage) else layer(x)
            skips.append(x)
        for layer in self.mid:
            x = layer(x, embedding)
        for layer in self.ups:
            joined = isinstance(layer, Stage)
            x = layer(torch.cat([x, skips.pop()], dim=1), embedding) if joined else layer(x)
        x = F.pixel_shuffle(self.final_conv(x), self.config.patch_size)
        return x[..., :height, :width]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the right and bottom to a multiple, by reflection or, if the sides are too small
    for that, with edge pixels."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not (bottom or right):
        return x
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)
