"""Writes models as diffusers model folders, if a ``UNet2DModel`` can have their architecture."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import SkipDiffError
from ...files import write_atomically
from ..folder import CARD, fill, fresh_folder
from ..model import FrozenModel
from ..pretrained import load_pretrained
from ..unet import Downsample, Stage, UNet, UNetConfig, Upsample
from .diffusers import EXTRAS, WEIGHTS, Extras, import_diffusers

PREDICTIONS = {"noise": "epsilon", "v": "v_prediction"}


def export_diffusers(model: FrozenModel | str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Write one of SkipDiff's models as a flat diffusers model folder, with a model card.

    The exported network computes the same function. Its time embedding becomes a table: row t holds the
    embedding of √ᾱ at level t + 1. SkipDiff's blocks add a linear function of the embedding e, whereas
    diffusers applies a SiLU to e first; since SiLU(e) - SiLU(-e) = e, the exported network is given both e
    and -e.

    Args:
        model: the model, its name or its folder.
        folder: folder to write, which is created if it is missing; a folder that holds a model is refused.

    Returns:
        The folder.

    Raises:
        SkipDiffError: if a ``UNet2DModel`` cannot have the architecture, the model has a restorer, or the
            folder cannot be used.
    """
    if not isinstance(model, FrozenModel):
        model = load_pretrained(model, "cpu")
    diffusers, target, config = import_diffusers(), fresh_folder(folder), model.config
    if not isinstance(model.network, UNet):
        raise SkipDiffError(
            f"{model.name!r} is not a network of SkipDiff, but a {type(model.network).__name__}: "
            "only SkipDiff's own can be exported"
        )
    if model.restorer:
        raise SkipDiffError(f"{model.name!r} cannot be exported: a diffusers model folder has no restorer")
    for field, wanted, found in (
        ("patch_size", 1, config.unet.patch_size),
        ("multipliers", "to begin with 1", config.unet.multipliers[0]),
    ):
        if found != 1:
            raise SkipDiffError(
                f"{model.name!r} cannot be exported: UNet2DModel needs {field} {wanted}, not {found}"
            )
    described = _describe(config.unet, model.schedule.steps)
    with torch.device("meta"):
        network = diffusers.UNet2DModel(**described)
    levels = torch.from_numpy(model.schedule.noise_level(np.arange(1, model.schedule.steps + 1)))
    weights = dict(_translate(deepcopy(model.network).cpu(), levels))
    fill(network, {k: v.contiguous().clone() for k, v in weights.items()}, repr(model.name))
    target.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(target, safe_serialization=True)
    (target / WEIGHTS).chmod(0o644)  # diffusers makes them readable only to their owner
    table = model.schedule.alpha_bar
    diffusers.DDPMScheduler(
        num_train_timesteps=model.schedule.steps,
        trained_betas=(1 - table[1:] / table[:-1]).tolist(),
        prediction_type=PREDICTIONS[config.prediction],
        clip_sample=config.target == "image",
    ).save_pretrained(target)
    own = {"target", "residual_scale", "coarse_levels", "start", "scale", "image_size"}
    extras = Extras(**{name: getattr(config, name) for name in sorted(own)})
    write_atomically(target / EXTRAS, (json.dumps(asdict(extras), indent=2) + "\n").encode())
    write_atomically(target / CARD, _card(model).encode())
    return target


def _describe(unet: UNetConfig, steps: int) -> dict[str, Any]:
    """Return the arguments of a ``UNet2DModel`` with the architecture of ours."""
    attends = [unet.image_size >> level in unet.attention_sizes for level in range(len(unet.multipliers))]
    return {
        "sample_size": unet.image_size,
        "in_channels": 6,
        "out_channels": 3,
        "time_embedding_type": "learned",
        "num_train_timesteps": steps,
        "down_block_types": tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        "block_out_channels": tuple(unet.channels * m for m in unet.multipliers),
        "layers_per_block": unet.res_blocks,
        "dropout": unet.dropout,
        "attention_head_dim": None,
        "norm_num_groups": unet.norm_groups,
        "add_attention": unet.middle_attention,
    }


def _translate(ours: UNet, levels: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the state dict of the ``UNet2DModel``; ``levels`` are √ᾱ of levels 1 … T."""
    embed, first, _, second = ours.noise_level_mlp
    width, blocks, depth = ours.config.channels, ours.config.res_blocks, len(ours.config.multipliers)
    yield "time_proj.weight", embed(levels)
    yield from _layer("time_embedding.linear_1", first)
    rest = 2 * width  # of 4 · width
    for kind, value in second.state_dict().items():
        zeros = value.new_zeros(rest, *value.shape[1:])
        yield f"time_embedding.linear_2.{kind}", torch.cat([value, -value, zeros])
    yield from _layer("conv_in", ours.downs[0])
    for name, layers, count in (("down_blocks", ours.downs[1:], blocks), ("up_blocks", ours.ups, blocks + 1)):
        left = iter(layers)
        for level in range(depth):
            for i in range(count):
                yield from _stage(f"{name}.{level}", i, next(left))
            sampler = next(left, None)
            if isinstance(sampler, (Downsample, Upsample)):
                kind = "downsamplers" if isinstance(sampler, Downsample) else "upsamplers"
                yield from _layer(f"{name}.{level}.{kind}.0.conv", sampler.conv)
    for i, stage in enumerate(ours.mid):
        yield from _stage("mid_block", i, stage)
    norm, _, _, convolution = ours.final_conv.block
    yield from chain(_layer("conv_norm_out", norm), _layer("conv_out", convolution))


def _layer(name: str, layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for kind, value in layer.state_dict().items():
        yield f"{name}.{kind}", value


def _stage(block: str, index: int, stage: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a residual block and of the attention after it."""
    assert isinstance(stage, Stage)
    residual, name = stage.res_block, f"{block}.resnets.{index}"
    for i, part in enumerate((residual.block1, residual.block2), 1):
        yield from chain(_layer(f"{name}.norm{i}", part.block[0]), _layer(f"{name}.conv{i}", part.block[3]))
    if not isinstance(residual.res_conv, nn.Identity):
        yield from _layer(f"{name}.conv_shortcut", residual.res_conv)
    level = cast(nn.Linear, residual.noise_func.noise_func[0])
    zeros = level.weight.new_zeros(len(level.weight), 2 * level.in_features)
    yield f"{name}.time_emb_proj.weight", torch.cat([level.weight, -level.weight, zeros], dim=1)
    yield f"{name}.time_emb_proj.bias", level.bias
    if stage.attn is None:
        return
    name = f"{block}.attentions.{index}"
    yield from _layer(f"{name}.group_norm", stage.attn.norm)
    for letter, weight in zip("qkv", stage.attn.qkv.weight[:, :, 0, 0].chunk(3), strict=True):
        yield f"{name}.to_{letter}.weight", weight
        yield f"{name}.to_{letter}.bias", weight.new_zeros(len(weight))
    yield f"{name}.to_out.0.weight", stage.attn.out.weight[:, :, 0, 0]
    yield f"{name}.to_out.0.bias", cast(Tensor, stage.attn.out.bias)


def _card(model: FrozenModel) -> str:
    config = model.config
    made = "the image" if config.target == "image" else f"{config.residual_scale:g} · (image - condition)"
    return (
        f"# {model.name}\n\n{model.scale}x super-resolution, exported by SkipDiff for diffusers "
        "(`UNet2DModel`, `DDPMScheduler`).\n\n"
        "Input: 6 channels, first the condition (the LR image enlarged by bicubic interpolation, in "
        f"[-1, 1]), then the noisy latent; integer timesteps 0 … {model.schedule.steps - 1}. "
        f"The target of the chain is {made}; the network predicts {PREDICTIONS[config.prediction]}.\n"
        f"Sides must be multiples of {config.unet.multiple} pixels.\n"
    )
