"""The restorer: a small network that removes noise, blur and blocks from LR before it is enlarged.

The diffusion model then sees c = ↑R(LR) in place of ↑LR, as in DiffBIR (Lin et al. 2024), where a network
that restores comes before a diffusion model that invents. R(x) = x + f(x), with f a sequence of residual
blocks without normalisation, as in EDSR (Lim et al. 2017), so that flat areas keep their brightness. The last
convolution starts at zero, so an untrained restorer is the identity.

The weights of a restorer are in the file ``restorer.safetensors`` of a model's folder, and its architecture
is under the key ``restorer`` of ``config.json``. They are part of the model, and its hash covers them.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .resize import to_signed, to_uint8

TILE = 256
"""Side in LR pixels of the parts in which a picture is restored; it bounds the memory that this takes."""


@dataclass(frozen=True)
class RestorerConfig:
    """The restorer of a model folder, as ``config.json`` describes it."""

    channels: int = 64
    """Width of the network."""
    blocks: int = 8
    """Number of residual blocks, of two convolutions each."""
    training: dict[str, Any] = field(default_factory=dict)
    """Provenance, in the same form as the model's."""

    def __post_init__(self) -> None:
        for name in ("channels", "blocks"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


class ResidualBlock(nn.Module):
    """x + convolution(SiLU(convolution(x))), which is the identity before training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = nn.SiLU()
        self.second = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.activation(self.first(x)))


class RestorerNetwork(nn.Module):
    """Degraded LR → restored LR, both float (B, 3, h, w) in about [-1, 1]."""

    def __init__(self, config: RestorerConfig) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, config.channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(config.channels) for _ in range(config.blocks)))
        self.tail = zeroed(nn.Conv2d(config.channels, 3, 3, padding=1))
        self.reach = 2 * config.blocks + 2
        """Distance in pixels up to which the result at a pixel depends on its neighbours."""

    def forward(self, lr: Tensor) -> Tensor:
        return lr + self.tail(self.blocks(self.head(lr))).float()


def zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    """Set weights and bias to zero, so that a residual branch adds nothing before training."""
    nn.init.zeros_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


class Restorer:
    """A trained restorer, in eval mode, without gradients.

    Args:
        network: the network.
        config: its architecture and the record of its training.
        device: device on which it runs.
        dtype: autocast type; float32: no autocast.
        hash: identity of the weights.
    """

    def __init__(
        self,
        network: RestorerNetwork,
        config: RestorerConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        hash: str = "",
    ) -> None:
        self.config, self.device, self.dtype, self.hash = config, torch.device(device), dtype, hash
        network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, lr: Tensor) -> Tensor:
        """Restore pictures, uint8 (B, 3, h, w) → uint8 (B, 3, h, w).

        They are restored in parts that overlap as far as the network reaches, so the seams do not show.
        """
        height, width = lr.shape[-2:]
        made = torch.empty_like(lr, device=self.device)
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                rows, columns = slice(top, top + TILE), slice(left, left + TILE)
                made[..., rows, columns] = self._part(lr, rows, columns)
        return made

    def _part(self, lr: Tensor, rows: slice, columns: slice) -> Tensor:
        reach = self.network.reach
        above, before = min(reach, rows.start), min(reach, columns.start)
        part = lr[..., rows.start - above : rows.stop + reach, columns.start - before : columns.stop + reach]
        x = to_signed(part.to(self.device)).contiguous(memory_format=torch.channels_last)
        autocast = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype) if autocast else nullcontext():
            restored = self.network(x)
        inside = restored[..., above : above + TILE, before : before + TILE]
        return to_uint8(inside)
