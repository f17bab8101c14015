"""The refiner: a small network that restores what a truncated chain leaves out.

CCSR's second stage fine-tunes the decoder on truncated outputs. A pixel-space DDPM has no decoder, so a small
U-Net takes its place: image = x̂0 + s · U-Net([x̂0, c]), with a strength s that is 1 in training. The U-Net's
last convolution starts at zero, so an untrained refiner is the identity. A refiner may follow any chain:
CCSR's, AddSR's, a plan, or CSA and FSR.

The weights of a refiner are in the file ``refiner.safetensors`` of a model's folder, and its architecture is
under the key ``refiner`` of ``config.json``.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import SkipDiffError, fraction
from .folder import CONFIG, REFINER, fill, read_config, read_safetensors
from .pretrained import model_folder, stamp
from .process import Refine
from .protocol import DiffusionModel
from .unet import UNet, UNetConfig

MAX_WEIGHTS = 2_000_000

OWN, NONE = "own", "none"
"""The words for the model's own refiner, if it has one, and for no refiner."""

RefinerSpec = str | os.PathLike[str] | Refine | None
"""The values of ``refiner=``: ``own``; ``none`` or None; the name or folder of a model that has a refiner;
``own`` or such a name with a strength after a colon (``own:0.5``); or a function."""


class RefinerNetwork(nn.Module):
    """x̂0 + s · U-Net([x̂0, c]), which is the identity before training.

    Args:
        config: configuration of the U-Net.
        strength: s, 0 … 1.

    Raises:
        SkipDiffError: if the network has more than 2 M weights.
    """

    def __init__(self, config: UNetConfig, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength
        self.unet = UNet(replace(config, zero_init=True))
        count = sum(p.numel() for p in self.parameters())
        if count > MAX_WEIGHTS:
            raise SkipDiffError(
                f"the refiner has {count:,} weights, more than {MAX_WEIGHTS:,}: use fewer channels or blocks"
            )

    def forward(self, x0: Tensor, condition: Tensor) -> Tensor:
        clean = torch.ones(len(x0), device=x0.device)  # the U-Net's noise level: there is no noise
        return x0 + self.strength * self.unet(torch.cat([x0, condition], dim=1), clean).float()


class Refiner:
    """A trained refiner, in eval mode, without gradients, with clamped outputs.

    Args:
        network: the network.
        device: device on which the refiner runs.
        dtype: autocast type; float32: no autocast.
        hash: identity of the weights.
        name: name of the model that the refiner is part of.

    Attributes:
        settings: name and hash of the refiner, for records.
    """

    def __init__(
        self,
        network: RefinerNetwork,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        hash: str = "",
        name: str = "unnamed",
    ) -> None:
        self.device, self.dtype, self.hash = torch.device(device), dtype, hash
        self.settings = {"refiner": name, "refiner_hash": hash}
        network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, x0: Tensor, condition: Tensor) -> Tensor:
        """Map x̂0 and condition, both (B, 3, H, W), to the refined image, clamped to [-1, 1]."""
        autocast = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype) if autocast else nullcontext():
            return self.network(x0, condition).clamp(-1, 1)


def load_refiner(
    name_or_path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    strength: float | None = None,
) -> Refiner:
    """Load the refiner of a model.

    Args:
        name_or_path: name or folder of the model.
        device: device on which the refiner runs.
        dtype: autocast type; float32: no autocast.
        strength: share of the refiner's change that is applied, 0 … 1; None: that of ``config.json``.

    Raises:
        SkipDiffError: if the model has no refiner, or if its files are invalid.
    """
    folder = model_folder(name_or_path)
    stamps = tuple(stamp(folder / name) for name in (CONFIG, REFINER))
    return _load(folder, torch.device(device), dtype, strength, stamps)


@lru_cache(maxsize=4)
def _load(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    strength: float | None,
    stamps: tuple[tuple[int, ...], ...],
) -> Refiner:
    """Load a refiner. The same arguments give the same object; ``stamps`` change when the files do."""
    config = read_config(folder / CONFIG).refiner
    if config is None:
        raise SkipDiffError(f"{folder} has no refiner: {CONFIG} lacks the key 'refiner'")
    file = folder / REFINER
    with torch.device("meta"):
        network = RefinerNetwork(config.unet, config.strength if strength is None else strength)
    fill(network, read_safetensors(file), str(file))
    digest = hashlib.sha256(file.read_bytes())
    if network.strength != 1:
        digest.update(str(network.strength).encode())
    name = folder.name if strength is None else f"{folder.name}:{strength:g}"
    return Refiner(network, device, dtype, digest.hexdigest()[:16], name)


def _parted(spec: RefinerSpec) -> tuple[RefinerSpec, float | None]:
    """Split ``own:0.5`` into ``own`` and 0.5; without a strength, return ``spec`` and None."""
    if not isinstance(spec, str):
        return spec, None
    name, _, last = spec.rpartition(":")
    try:
        strength = float(last)
    except ValueError:
        return spec, None
    return (name, fraction("the refiner's strength", strength)) if name else (spec, None)


def is_own(spec: RefinerSpec) -> bool:
    """Return whether ``spec`` is the model's own refiner, at any strength."""
    return _parted(spec)[0] == OWN


def resolve_refiner(spec: RefinerSpec, model: DiffusionModel) -> Refine | None:
    """Turn a value of ``refiner=`` into a function on the model's device and in its precision, or None.

    Raises:
        SkipDiffError: if the value is invalid, or names a model of another scale or without a refiner.
    """
    spec, strength = _parted(spec)
    if spec == OWN:
        spec = model.folder if model.folder and has_refiner(model.folder) else None
    if spec is None or spec == NONE:
        return None
    if isinstance(spec, str | os.PathLike):
        folder = model_folder(spec)
        scale = read_config(folder / CONFIG).scale
        if scale != model.scale:
            raise SkipDiffError(
                f"the refiner of {folder} is for {scale}x, but {model.name!r} enlarges {model.scale}x: "
                "give another refiner"
            )
        return load_refiner(folder, model.device, model.dtype, strength)
    if not callable(spec):
        raise SkipDiffError(
            f"refiner={spec!r} must be 'own', 'none', the name or folder of a model, or a function"
        )
    return spec


def has_refiner(folder: Path) -> bool:
    """Return whether a model folder holds a refiner."""
    return (folder / CONFIG).is_file() and read_config(folder / CONFIG).refiner is not None
