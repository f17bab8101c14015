"""Model folders: ``config.json``, ``ddpm.safetensors``, ``README.md`` (the model card).

Names are looked up in the shipped ``pretrained/`` folder: package data of an installed wheel, or
the folder beside the package in a source tree.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import lru_cache
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import SkipDiffError
from .model import FrozenModel, ModelConfig
from .unet import UNet

CONFIG, WEIGHTS, CARD = "config.json", "ddpm.safetensors", "README.md"


def pretrained_folder() -> Path:
    """Where the shipped models lie."""
    # Not files("skipdiff_env.pretrained"): for a folder without __init__.py that is no single path.
    package = Path(str(resources.files("skipdiff_env")))
    inside = package / "pretrained"
    return inside if inside.is_dir() else package.parent / "pretrained"


def available_models() -> dict[str, Path]:
    """Names and folders of the shipped models."""
    folder = pretrained_folder()
    found = sorted(p.parent for p in folder.glob(f"*/{CONFIG}")) if folder.is_dir() else []
    return {path.name: path for path in found}


def model_folder(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a shipped model's name or of a path.

    Raises:
        SkipDiffError: if it is neither, with the names that exist.
    """
    shipped = available_models()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    folder = Path(name_or_path).expanduser()
    if (folder / CONFIG).is_file():
        return folder
    why = f"{folder} holds no {CONFIG}" if folder.is_dir() else "no such folder"
    raise SkipDiffError(
        f"unknown model {str(name_or_path)!r} ({why}): use one of {', '.join(shipped) or '(none shipped)'} "
        "or the path of a model folder"
    )


def load_pretrained(
    name_or_path: str | os.PathLike[str] = "natural-4x",
    device: torch.device | str = "auto",
    dtype: torch.dtype | None = None,
    compile: bool = False,
) -> FrozenModel:
    """Load a frozen model by name or folder. The same arguments give the same object.

    Args:
        name_or_path: a shipped model's name, or a model folder.
        device: ``"auto"`` takes CUDA if there is one, else the CPU.
        dtype: autocast type: None means bfloat16 on CUDA and float32 elsewhere.
        compile: whether to ``torch.compile`` the network (CUDA; the first call then takes a minute).

    Raises:
        SkipDiffError: naming file and key if the folder, its configuration or its weights are bad.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise SkipDiffError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
    if dtype is None:
        dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
    folder = model_folder(name_or_path).resolve()
    stamps = tuple(_stamp(folder / name) for name in (CONFIG, WEIGHTS))
    return _load(folder, target, dtype, compile, stamps)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes whenever a file does; its date alone may be that of the file it was copied from."""
    if not path.exists():
        return ()
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=8)
def _load(
    folder: Path, device: torch.device, dtype: torch.dtype, compile: bool, stamps: tuple[tuple[int, ...], ...]
) -> FrozenModel:
    config = read_config(folder / CONFIG)
    try:
        with torch.device("meta"):
            network = UNet(config.unet)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise SkipDiffError(f"{folder / CONFIG}: 'unet' describes no network: {why}") from None
    load_weights(network, folder / WEIGHTS)
    # All that decides what the model computes; caches are keyed by it.
    words = {k: v for k, v in config.to_dict().items() if k not in ("start", "training", "quality")}
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes())
    digest.update(json.dumps(words, sort_keys=True).encode())
    return FrozenModel(network, config, device, dtype, folder.name, digest.hexdigest()[:16], compile)


def read_config(path: Path) -> ModelConfig:
    """Read ``config.json``; what is wrong with it is raised as one line naming file and field."""
    try:
        return ModelConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SkipDiffError(f"{path} is missing: a model folder needs it") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise SkipDiffError(f"{path} is not a model configuration: {error}") from None


def load_weights(network: nn.Module, path: Path) -> None:
    """Fill ``network`` (which may be on the meta device) from a safetensors file, as float32."""
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise SkipDiffError(f"{path} is missing: copy the model's weights there") from None
    except SafetensorError as error:
        raise SkipDiffError(f"{path} is damaged or not a safetensors file ({error}): copy it again") from None
    wanted = network.state_dict()
    for key, tensor in wanted.items():
        if key not in weights:
            raise SkipDiffError(f"{path} lacks the key {key!r}: it was made for another architecture")
        if weights[key].shape != tensor.shape:
            have, need = tuple(weights[key].shape), tuple(tensor.shape)
            raise SkipDiffError(f"{path}: {key!r} has shape {have}, but the configuration needs {need}")
    extra = sorted(set(weights) - set(wanted))
    if extra:
        raise SkipDiffError(
            f"{path} holds the unknown key {extra[0]!r}: it was made for another architecture"
        )
    network.load_state_dict({k: v.float() for k, v in weights.items()}, strict=True, assign=True)


def save_model(
    folder: str | os.PathLike[str], network: nn.Module, config: ModelConfig, card: str = ""
) -> Path:
    """Write a model folder with fp16 weights; each file appears whole or not at all."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    weights: dict[str, Tensor] = {
        k: v.detach().cpu().half().contiguous() for k, v in network.state_dict().items()
    }
    for key, tensor in weights.items():
        if not tensor.isfinite().all():
            raise SkipDiffError(f"{key!r} is not finite in fp16 (it ends at 65504): {target} was not written")
    write_atomically(target / WEIGHTS, save(weights))
    write_atomically(target / CONFIG, (json.dumps(config.to_dict(), indent=2) + "\n").encode())
    if card:
        write_atomically(target / CARD, card.encode())
    return target


def write_atomically(path: Path, data: bytes) -> None:
    """Write to a temporary name in the same folder, then rename."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
