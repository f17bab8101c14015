"""Checkpoints of the SR3 re-implementation in PyTorch and of SkipDiff's authors.

Both publish a network as ``I…_gen.pth``, a state dict pickled by ``torch.save``, with a JSON configuration.
Checkpoints are opened with ``weights_only=True``, which loads tensors and runs no code. A folder that holds
one checkpoint and one JSON file loads as it is.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SkipDiffError, first_line
from ..folder import Format, Loaded, empty_network, fill, fresh_folder, identity, save_model
from ..model import ModelConfig
from ..schedule import NoiseSchedule
from ..unet import UNetConfig

PREFIX = "denoise_fn."
"""Prefix of the network's keys; the other keys of a checkpoint are tables of the schedule."""
TABLES = {
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
    "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
}  # fmt: skip
LEVELS = 100
"""Longer chains are respaced to this many levels unless another number is given."""

_STRING = r'"(?:\\.|[^"\\])*"'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*")
_STRAY_COMMA = re.compile(rf"({_STRING})|,(?=\s*[,}}\]])")


def import_sr3(
    checkpoint: str | os.PathLike[str],
    config: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    levels: int = LEVELS,
) -> Path:
    """Write a model folder for a published network, with float32 weights.

    Args:
        checkpoint: ``I…_gen.pth``.
        config: the JSON file that the network was trained with.
        folder: folder to write; a folder that holds a model is refused.
        levels: T of the chain. The network sees the continuous level √ᾱ, so a chain of 2000 steps can be
            run in 100; a chain of at most ``levels`` steps is kept as it is.

    Returns:
        The folder.

    Raises:
        SkipDiffError: if a file, or a key or field in it, is not as expected, or the folder cannot be used;
            the message names it.
    """
    source, target = Path(config), fresh_folder(folder)
    network, described = read_network(Path(checkpoint), source, levels)
    card = (
        f"# {target.name}\n\n{described.scale}x super-resolution, imported from "
        f"`{Path(checkpoint).name}` and `{source.name}`. The weights are under their authors' licence.\n"
    )
    return save_model(target, network, described, card, torch.float32)


def read_network(checkpoint: Path, source: Path, levels: int = LEVELS) -> tuple[nn.Module, ModelConfig]:
    """Read the network of a checkpoint, and its configuration from the JSON ``source``; see
    :func:`import_sr3`."""
    described = model_config(read_json(source), str(source), levels)
    weights = {}
    for key, tensor in read_state_dict(checkpoint).items():
        if key.startswith(PREFIX):
            weights[key[len(PREFIX) :]] = tensor
        elif key not in TABLES:
            raise SkipDiffError(f"{checkpoint} holds the unknown key {key!r}: it is not an SR3 network")
    network = empty_network(described, str(source))
    fill(network, weights, str(checkpoint), PREFIX)
    return network, described


def _pair(folder: Path) -> tuple[Path, Path] | None:
    """Return the checkpoint and the JSON if the folder holds exactly one of each, and None otherwise."""
    checkpoints, sources = sorted(folder.glob("*_gen.pth")), sorted(folder.glob("*.json"))
    return (checkpoints[0], sources[0]) if len(checkpoints) == len(sources) == 1 else None


def read_folder(folder: Path) -> Loaded:
    """Read the network, the configuration and the identity of a folder with ``I…_gen.pth`` and its JSON."""
    pair = _pair(folder)
    assert pair is not None  # it was recognised
    network, described = read_network(*pair)
    return network, described, identity(pair[0], described)


FORMAT = Format("SR3", ("*_gen.pth", "*.json"), lambda folder: _pair(folder) is not None, read_folder)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.pth`` file, by name, onto the CPU.

    Raises:
        SkipDiffError: if the file is missing, damaged, or holds anything but named tensors.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SkipDiffError(f"{path} is missing: give a .pth file") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise SkipDiffError(f"{path} is damaged or not a PyTorch checkpoint: copy it again") from None
        raise SkipDiffError(
            f"{path} holds a pickled {found[1]}, and pickled objects are never opened: load it where it was "
            "made, and torch.save() its state_dict()"
        ) from None
    except OSError:
        raise
    except Exception as error:  # a damaged file can make an unpickler raise any error
        why = first_line(error)
        raise SkipDiffError(f"{path} is damaged or not a PyTorch checkpoint ({why}): copy it again") from None
    if not isinstance(loaded, dict):
        raise SkipDiffError(f"{path} holds an object of type {type(loaded).__name__}, not a state dict")
    for key, value in loaded.items():
        if not isinstance(key, str):
            raise SkipDiffError(f"{path} is not a state dict: its key {key!r} is not a string")
        if not isinstance(value, Tensor):
            raise SkipDiffError(
                f"{path}: {key!r} is of type {type(value).__name__}, not a tensor: it is not a state dict"
            )
    return dict(loaded)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, ignoring ``//`` comments, stray commas and a byte-order mark.

    Raises:
        SkipDiffError: if the file is missing, or is still not a JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows may write a byte-order mark
    except FileNotFoundError:
        raise SkipDiffError(f"{path} is missing: give the JSON that the network was trained with") from None
    except UnicodeDecodeError:
        raise SkipDiffError(f"{path} is not text: give the JSON that the network was trained with") from None
    for junk in (_COMMENT, _STRAY_COMMA):  # a string is matched first, and kept: "https://…" has no comment
        text = junk.sub(lambda found: found[1] or "", text)
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SkipDiffError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise SkipDiffError(f"{path} holds no JSON object")
    return data


class _Fields:
    """A JSON object whose errors name the file and the field."""

    def __init__(self, data: Any, where: str, name: str = "") -> None:
        if not isinstance(data, dict):
            raise SkipDiffError(f"{where}: {name or 'the whole'!r} is not a JSON object")
        self.data, self.where, self.name = data, where, name

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def object(self, key: str) -> _Fields:
        return _Fields(self.value(key), self.where, self.path(key))

    def value(self, key: str) -> Any:
        if key not in self:
            raise SkipDiffError(f"{self.where}: field {self.path(key)!r} is missing")
        return self.data[key]

    def number(self, key: str, default: float | None = None) -> float:
        value = default if default is not None and key not in self else self.value(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SkipDiffError(f"{self.where}: field {self.path(key)!r} must be a number, not {value!r}")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if not float(value).is_integer() or value < 1:
            raise SkipDiffError(
                f"{self.where}: field {self.path(key)!r} must be a whole number of at least 1, not {value!r}"
            )
        return int(value)

    def wholes(self, key: str) -> tuple[int, ...]:
        value = self.value(key)
        if not isinstance(value, list):
            raise SkipDiffError(f"{self.where}: field {self.path(key)!r} must be a list, not {value!r}")
        items = _Fields({str(i): item for i, item in enumerate(value)}, self.where, self.path(key))
        return tuple(items.whole(str(i)) for i in range(len(value)))

    def must_be(self, key: str, allowed: tuple[Any, ...]) -> Any:
        value = self.value(key)
        if value not in allowed:
            shown = " or ".join(map(repr, allowed))
            raise SkipDiffError(
                f"{self.where}: field {self.path(key)!r} is {value!r}, and only {shown} can be imported"
            )
        return value


def model_config(data: dict[str, Any], where: str, levels: int = LEVELS) -> ModelConfig:
    """Return the configuration that a published JSON, read from ``where``, describes.

    Raises:
        SkipDiffError: if a field is missing or describes another kind of network; the message names it.
    """
    whole = _Fields(data, where)
    model = whole.object("model")
    if "which_model_G" in model:
        model.must_be("which_model_G", ("sr3",))
    unet, diffusion = model.object("unet"), model.object("diffusion")
    for fields, key, allowed in (
        (unet, "in_channel", 6),
        (unet, "out_channel", 3),
        (diffusion, "channels", 3),
        (diffusion, "conditional", True),
    ):
        fields.must_be(key, (allowed,))
    datasets = whole.object("datasets")
    images = datasets.object("val" if "val" in datasets else "train")
    low, high = images.whole("l_resolution"), images.whole("r_resolution")
    if high % low:
        raise SkipDiffError(
            f"{where}: {high} pixels are not a whole multiple of {low} ({images.path('r_resolution')!r})"
        )
    return ModelConfig(
        scale=high // low,
        image_size=high,
        unet=UNetConfig(
            channels=unet.whole("inner_channel"),
            multipliers=unet.wholes("channel_multiplier"),
            res_blocks=unet.whole("res_blocks"),
            norm_groups=unet.whole("norm_groups", 32),
            dropout=unet.number("dropout", 0.0),
            image_size=diffusion.whole("image_size"),
            attention_sizes=unet.wholes("attn_res"),
        ),
        schedule=_schedule(model.object("beta_schedule"), levels).config,
        coarse_levels="rebuilt",
        training={"imported": Path(where).name},
    )


def _schedule(schedules: _Fields, levels: int) -> NoiseSchedule:
    """Build the schedule for sampling (``val`` if there is one, else ``train``), with at most ``levels``
    levels."""
    fields = schedules.object("val" if "val" in schedules else "train")
    steps = fields.whole("n_timestep")
    if fields.must_be("schedule", ("linear", "cosine")) == "cosine":
        schedule = NoiseSchedule.cosine(steps)
    else:
        first, last = fields.number("linear_start"), fields.number("linear_end")
        try:
            schedule = NoiseSchedule.linear(steps, first, last)
        except ValueError as error:
            raise SkipDiffError(f"{fields.where}: {fields.name!r} is not a schedule: {error}") from None
    try:
        return schedule.respaced(min(levels, steps))
    except ValueError as error:
        raise SkipDiffError(str(error)) from None
