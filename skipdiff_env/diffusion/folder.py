"""SkipDiff's own model folders: ``config.json``, ``ddpm.safetensors``, ``README.md`` (the model card) and, if
the model has them, ``restorer.safetensors``, ``refiner.safetensors``, its plans (``plans.json``), and its
agent (``policy.safetensors`` and ``policy.json``).

A :class:`Format` describes one layout of a model folder; :mod:`.pretrained` lists all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import SkipDiffError, first_line
from ..files import write_atomically
from .model import OPTIONAL, ModelConfig
from .restorer import Restorer, RestorerConfig, RestorerNetwork
from .unet import UNet

CONFIG, WEIGHTS, CARD = "config.json", "ddpm.safetensors", "README.md"
REFINER = "refiner.safetensors"
"""The weights of a model's refiner; see :mod:`.refiner`."""
RESTORER = "restorer.safetensors"
"""The weights of a model's restorer; see :mod:`.restorer`."""
POLICY, ABOUT_POLICY = "policy.safetensors", "policy.json"
"""The weights of a model's own agent, and the record of its training."""
PLANS = "plans.json"
"""A model's own plans, and the record of how they were chosen."""

Loaded = tuple[nn.Module, ModelConfig, str]
"""A network with its weights, its configuration, and the identity of both; see :func:`identity`."""


@dataclass(frozen=True)
class Format:
    """A layout of a model folder."""

    name: str
    """The library that writes it."""
    files: tuple[str, ...]
    """Patterns of the files from which a model is read, relative to its folder."""
    recognises: Callable[[Path], bool]
    """Function that returns whether a folder holds a model in this layout. It never raises an error."""
    read: Callable[[Path], Loaded]
    """Function that reads a folder, or raises a SkipDiffError that names the file and the field."""


def read_folder(folder: Path) -> Loaded:
    """Read the network, the configuration and the identity of a model folder in SkipDiff's own layout."""
    config = read_config(folder / CONFIG)
    network = empty_network(config, str(folder / CONFIG))
    fill(network, read_safetensors(folder / WEIGHTS), str(folder / WEIGHTS))
    return network, config, identity(folder / WEIGHTS, config, *_of_restorer(folder, config))


def _of_restorer(folder: Path, config: ModelConfig) -> list[object]:
    """Return what identifies the restorer of a model folder; nothing without one."""
    if config.restorer is None or not (folder / RESTORER).is_file():
        return []
    digest = hashlib.sha256((folder / RESTORER).read_bytes()).hexdigest()
    return [config.restorer.channels, config.restorer.blocks, digest]


OURS = Format(
    "SkipDiff", (CONFIG, WEIGHTS, RESTORER, REFINER), lambda folder: (folder / CONFIG).is_file(), read_folder
)


def identity(weights: Path, config: ModelConfig, *also: object) -> str:
    """Return 16 hexadecimal digits that identify what a model computes; caches are keyed by them."""
    words = {k: v for k, v in config.to_dict().items() if k not in OPTIONAL}
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(json.dumps([words, *also] if also else words, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def empty_network(config: ModelConfig, where: str) -> UNet:
    """Build the network of a configuration without weights (on the meta device); in messages, ``where`` names
    the file of the configuration."""
    try:
        with torch.device("meta"):
            return UNet(config.unet)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        why = first_line(error)
        raise SkipDiffError(f"{where}: 'unet' does not describe a network: {why}") from None


def read_config(path: Path) -> ModelConfig:
    """Read ``config.json``.

    Raises:
        SkipDiffError: if the file is missing or invalid; the message names the file and, if one is to blame,
            the field.
    """
    try:
        return ModelConfig.from_dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        raise SkipDiffError(f"{path} is missing: a model folder needs it") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise SkipDiffError(f"{path} is not a model configuration: {error}") from None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        SkipDiffError: if it is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise SkipDiffError(f"{path} is missing: copy the model's weights there") from None
    except SafetensorError as error:
        raise SkipDiffError(f"{path} is damaged or not a safetensors file ({error}): copy it again") from None


def fill(network: nn.Module, weights: dict[str, Tensor], where: str, prefix: str = "") -> None:
    """Load weights into ``network`` (which may be on the meta device), as float32.

    Args:
        network: the network to fill.
        weights: its complete state dict, without other keys.
        where: file that the weights are from, for messages.
        prefix: prefix of the keys in that file, for messages.

    Raises:
        SkipDiffError: if a key is missing or unknown, or its tensor has another shape; the message names it.
    """
    wanted = network.state_dict()
    for key, tensor in wanted.items():
        if key not in weights:
            raise SkipDiffError(
                f"{where} lacks the key {prefix + key!r}: it was made for another architecture"
            )
        if weights[key].shape != tensor.shape:
            have, need = tuple(weights[key].shape), tuple(tensor.shape)
            raise SkipDiffError(
                f"{where}: {prefix + key!r} has shape {have}, but the configuration needs {need}"
            )
    extra = sorted(set(weights) - set(wanted))
    if extra:
        raise SkipDiffError(
            f"{where} holds the unknown key {prefix + extra[0]!r}: it was made for another architecture"
        )
    network.load_state_dict({k: v.float() for k, v in weights.items()}, strict=True, assign=True)


def read_restorer(
    folder: Path,
    config: RestorerConfig,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Restorer:
    """Read the restorer of a model's folder, whose ``config.json`` describes it.

    Raises:
        SkipDiffError: if its file is missing, damaged or made for another architecture.
    """
    file = folder / RESTORER
    with torch.device("meta"):
        network = RestorerNetwork(config)
    fill(network, read_safetensors(file), str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return Restorer(network, config, device, dtype, digest)


def save_model(
    folder: str | os.PathLike[str],
    network: nn.Module,
    config: ModelConfig,
    card: str = "",
    dtype: torch.dtype = torch.float16,
    restorer: Restorer | None = None,
) -> Path:
    """Write a model folder. Each file appears whole or not at all.

    Args:
        folder: the folder, which is created if it is missing.
        network: the network whose weights are written.
        config: the content of ``config.json``.
        card: text of the model card; if it is empty, no card is written.
        dtype: type in which the weights are stored; half precision halves the space.
        restorer: the model's restorer, whose configuration is written too; None if the model has none.

    Raises:
        SkipDiffError: if ``config`` describes a restorer and none is given, or if a weight is not finite.
    """
    if config.restorer is not None and restorer is None:
        raise SkipDiffError("the configuration describes a restorer: give it too (the model's .restorer)")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_weights(target / WEIGHTS, network, dtype)
    if restorer is not None:
        config = replace(config, restorer=restorer.config)
        write_weights(target / RESTORER, restorer.network, dtype)
    write_config(target / CONFIG, config)
    if card:
        write_atomically(target / CARD, card.encode())
    return target


def write_config(path: Path, config: ModelConfig) -> None:
    """Write ``config.json``, which :func:`read_config` reads."""
    write_atomically(path, (json.dumps(config.to_dict(), indent=2) + "\n").encode())


def write_weights(path: Path, network: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Write a network's weights as safetensors.

    Raises:
        SkipDiffError: if a tensor is not finite; the message names it, and nothing is written.
    """
    weights: dict[str, Tensor] = {
        k: v.detach().cpu().to(dtype).contiguous() for k, v in network.state_dict().items()
    }
    for key, tensor in weights.items():
        if not tensor.isfinite().all():
            limit = torch.finfo(dtype).max
            raise SkipDiffError(f"{key!r} is not finite ({dtype} ends at {limit:g}): {path} was not written")
    write_atomically(path, save(weights))


def fresh_folder(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as the folder of a new model.

    Raises:
        SkipDiffError: if it is a file, or holds a ``.json`` or ``.safetensors`` file, as the folder of a
            model does.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise SkipDiffError(f"{folder} is a file: name a folder for the model")
    found = next((p for p in sorted(folder.rglob("*")) if p.suffix in (".json", ".safetensors")), None)
    if found:
        raise SkipDiffError(
            f"{folder} holds a model already ({found.relative_to(folder)}): name another folder"
        )
    return folder
