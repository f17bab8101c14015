"""Diffusers model folders: a ``UNet2DModel`` and a DDPM or DDIM scheduler's settings (extra ``diffusers``).

A folder may be flat (``config.json``, ``diffusion_pytorch_model.safetensors``, ``scheduler_config.json``)
or a pipeline (``unet/``, ``scheduler/``). Settings for which diffusers has no field are in an optional
``skipdiff.json``; see :class:`Extras`.

diffusers numbers the T levels 0 … T - 1, and SkipDiff numbers them 1 … T. diffusers has no number for
SkipDiff's level 0, the clean image.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import SkipDiffError, first_line
from ..folder import CONFIG, Format, fill, identity, read_safetensors
from ..model import ModelConfig
from ..schedule import NoiseSchedule
from ..unet import UNetConfig, pad_to_multiple

INDEX, WEIGHTS = "model_index.json", "diffusion_pytorch_model.safetensors"
SCHEDULER, EXTRAS = "scheduler_config.json", "skipdiff.json"
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names in files that early versions of diffusers wrote."""
_OLD = re.compile(rf"(attentions\.\d+\.)({'|'.join(OLD_ATTENTION)})(?=\.)")


@dataclass(frozen=True)
class Extras:
    """The content of ``skipdiff.json`` in a diffusers model folder. Without that file, the defaults apply."""

    scale: int = 4
    """Enlargement factor."""
    image_size: int | None = None
    """Side of the HR images in pixels; None: the network's ``sample_size``, or 256."""
    latent_first: bool = False
    """Whether the 6 input channels are [latent, condition] instead of [condition, latent]."""
    timesteps: Literal["integer", "continuous", "level"] = "integer"
    """How the network is given the level: as the nearest of 0 … T - 1, as a fraction between two of them, or
    as √ᾱ itself."""
    target: Literal["image", "residual"] = "image"
    """For this field and those below, see :class:`~skipdiff_env.diffusion.ModelConfig`."""
    residual_scale: float = 1.0
    coarse_levels: Literal["strided", "rebuilt"] = "strided"
    start: int | None = None

    def __post_init__(self) -> None:
        if self.timesteps not in ("integer", "continuous", "level"):
            raise ValueError(f"unknown timesteps {self.timesteps!r}: use integer, continuous or level")


class DiffusersNetwork(nn.Module):
    """A ``UNet2DModel`` with the interface of SkipDiff's networks: [condition, latent] and √ᾱ → noise or v.

    Args:
        network: the ``UNet2DModel``, with 6 input channels, or with 3, which take the latent alone.
        schedule: the schedule that the network was trained with.
        prediction: ``epsilon``, ``v_prediction`` or ``sample``; the last is converted to v.
        extras: order of the channels, and form of the level.
    """

    signal: Tensor

    def __init__(self, network: nn.Module, schedule: NoiseSchedule, prediction: str, extras: Extras) -> None:
        super().__init__()
        self.network, self.prediction, self.extras = network, prediction, extras
        config: Any = network.config
        self.conditional = config.in_channels == 6
        self.multiple = 2 ** (len(config.block_out_channels) - 1)
        levels = schedule.noise_level(np.arange(1, schedule.steps + 1))
        self.register_buffer("signal", torch.from_numpy(levels), persistent=False)

    def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
        """Map (B, 6, H, W) and (B,) to (B, 3, H, W)."""
        height, width = x.shape[-2:]
        condition, latent = x.chunk(2, dim=1)
        given = torch.cat([latent, condition], dim=1) if self.extras.latent_first else x
        given = pad_to_multiple(given if self.conditional else latent, self.multiple)
        output = self.network(given, self.timestep(noise_level), return_dict=False)[0][..., :height, :width]
        if self.prediction != "sample":
            return output
        signal = noise_level.double()[:, None, None, None]
        return ((signal * latent - output) / (1 - signal.square()).sqrt()).to(latent.dtype)

    def timestep(self, noise_level: Tensor) -> Tensor:
        """Compute the timesteps that stand for √ᾱ (B,): int64 or float (B,)."""
        if self.extras.timesteps == "level":
            return noise_level
        level = noise_level.double()
        if self.extras.timesteps == "integer":
            return (self.signal - level[:, None]).abs().argmin(dim=1)
        right = torch.searchsorted(-self.signal, -level).clamp(1, len(self.signal) - 1)
        above, below = self.signal[right - 1], self.signal[right]
        return (right - (level - below) / (above - below)).clamp(0, len(self.signal) - 1).float()


def read_folder(folder: Path) -> tuple[DiffusersNetwork, ModelConfig, str]:
    """Read the network, the configuration and the identity of a diffusers model folder.

    ``config.unet`` only describes the network's size, from which tiles and memory are planned; the network
    is not built from it.

    Raises:
        SkipDiffError: if a file or field is missing, damaged or of another kind; the message names it.
    """
    place = folder / "unet" if (folder / "unet" / CONFIG).is_file() else folder
    scheduler_file = folder / SCHEDULER
    if not scheduler_file.is_file():
        scheduler_file = folder / "scheduler" / SCHEDULER
    described, scheduled = _read_json(place / CONFIG), _read_json(scheduler_file)
    extras = _read_extras(folder / EXTRAS)
    _check_network(described, place / CONFIG, extras)
    schedule, prediction = _read_scheduler(scheduled, scheduler_file)
    try:
        with torch.device("meta"):
            network = import_diffusers().UNet2DModel.from_config(described)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, AttributeError, KeyError) as error:
        raise SkipDiffError(f"{place / CONFIG} does not describe a network: {first_line(error)}") from None
    fill(network, _read_weights(place), str(place / WEIGHTS))
    try:
        config = _model_config(network.config, schedule, prediction, extras)
    except (ValueError, TypeError) as error:
        raise SkipDiffError(f"{folder / EXTRAS}: {error}") from None
    digest = identity(place / WEIGHTS, config, described, scheduled, asdict(extras))
    return DiffusersNetwork(network, schedule, prediction, extras), config, digest


def import_diffusers() -> Any:
    """Import the package diffusers; if it is missing, a SkipDiffError says how to install it."""
    try:
        import diffusers
    except ImportError:
        raise SkipDiffError("this needs the package diffusers: pip install 'skipdiff[diffusers]'") from None
    return diffusers


def recognises(folder: Path) -> bool:
    """Return whether a folder was written by diffusers, whose files name the class that they belong to."""
    if (folder / INDEX).is_file():
        return True
    try:
        return "_class_name" in json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, TypeError):
        return False  # reading it will say what it is instead


FORMAT = Format(
    "diffusers",
    (
        INDEX,
        CONFIG,
        WEIGHTS,
        SCHEDULER,
        EXTRAS,
        f"unet/{CONFIG}",
        f"unet/{WEIGHTS}",
        f"scheduler/{SCHEDULER}",
    ),
    recognises,
    read_folder,
)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SkipDiffError(f"{path} is missing: a diffusers model folder needs it") from None
    except ValueError as error:
        raise SkipDiffError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise SkipDiffError(f"{path} holds no JSON object")
    return data


def _read_extras(path: Path) -> Extras:
    if not path.is_file():
        return Extras()
    data = _read_json(path)
    if unknown := sorted(set(data) - {f.name for f in fields(Extras)}):
        raise SkipDiffError(f"{path}: unknown field {unknown[0]!r}")
    try:
        return Extras(**data)
    except ValueError as error:
        raise SkipDiffError(f"{path}: {error}") from None


def _read_weights(place: Path) -> dict[str, Tensor]:
    path = place / WEIGHTS
    if not path.is_file() and path.with_suffix(".bin").is_file():
        raise SkipDiffError(
            f"{path} is missing, and pickled weights (.bin) are never opened: write them again with "
            "UNet2DModel.save_pretrained(..., safe_serialization=True)"
        )
    return {
        _OLD.sub(lambda found: found[1] + OLD_ATTENTION[found[2]], key): tensor
        for key, tensor in read_safetensors(path).items()
    }


def _check_network(described: dict[str, Any], path: Path, extras: Extras) -> None:
    """Refuse networks that :class:`DiffusersNetwork` cannot call."""
    learned = described.get("time_embedding_type") == "learned"
    for field, allowed in (
        ("_class_name", ("UNet2DModel",)),
        ("in_channels", (6, 3, None)),
        ("out_channels", (3, None)),
        ("time_embedding_type", ("positional", "learned", None)),
        ("class_embed_type", (None,)),
        ("num_class_embeds", (None,)),
    ):
        if described.get(field) not in allowed:
            shown = " or ".join(map(repr, (a for a in allowed if a is not None)))
            raise SkipDiffError(
                f"{path}: {field!r} is {described[field]!r}, but only {shown or 'none'} can be used here"
            )
    if learned and extras.timesteps != "integer":
        raise SkipDiffError(f"{path}: a learned time embedding accepts only integer timesteps")


def _read_scheduler(scheduled: dict[str, Any], path: Path) -> tuple[NoiseSchedule, str]:
    """Read the schedule, and what the network predicts."""
    if scheduled.get("_class_name") not in ("DDPMScheduler", "DDIMScheduler"):
        raise SkipDiffError(
            f"{path}: '_class_name' is {scheduled.get('_class_name')!r}, but only 'DDPMScheduler' or "
            "'DDIMScheduler' can be used here"
        )
    prediction = scheduled.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise SkipDiffError(f"{path}: unknown 'prediction_type' {prediction!r}")
    try:
        # Betas given in the file are read in full precision; diffusers would round them to float32.
        betas = scheduled.get("trained_betas")
        if betas is None:
            betas = import_diffusers().DDPMScheduler.from_config(scheduled).betas.double().numpy()
        return NoiseSchedule.from_betas(betas), prediction
    except SkipDiffError:
        raise
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise SkipDiffError(f"{path} is not a usable schedule: {first_line(error)}") from None


def _model_config(network: Any, schedule: NoiseSchedule, prediction: str, extras: Extras) -> ModelConfig:
    widths, size = network.block_out_channels, network.sample_size or 256
    size = extras.image_size or (size if isinstance(size, int) else max(size))
    attending = [size >> i for i, kind in enumerate(network.down_block_types) if kind.startswith("Attn")]
    return ModelConfig(
        scale=extras.scale,
        image_size=size,
        unet=UNetConfig(
            channels=widths[0],
            multipliers=tuple(width / widths[0] for width in widths),
            res_blocks=network.layers_per_block,
            norm_groups=network.norm_num_groups,
            dropout=network.dropout,
            image_size=size,
            attention_sizes=tuple(attending),
            middle_attention=network.add_attention,
        ),
        schedule=schedule.config,
        prediction="noise" if prediction == "epsilon" else "v",
        target=extras.target,
        residual_scale=extras.residual_scale,
        coarse_levels=extras.coarse_levels,
        start=extras.start,
        training={"imported": f"diffusers {network._class_name}"},
    )
