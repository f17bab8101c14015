"""Loads models by name, by folder or by their id on the Hugging Face hub.

Names are looked up in the shipped ``pretrained/`` folder: package data of an installed wheel, or
the folder beside the package in a source tree. A folder may have any layout of :data:`FORMATS`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import resources
from pathlib import Path

import torch

from ..errors import SkipDiffError
from .device import pick_device
from .engines import TORCH
from .folder import ABOUT_POLICY, CARD, CONFIG, OURS, PLANS, POLICY, Format, read_restorer
from .interop import diffusers, sr3
from .interop.hub import fetch, looks_like_hub_id
from .model import FrozenModel, check_dtype

FORMATS: list[Format] = [diffusers.FORMAT, OURS, sr3.FORMAT]
"""Layouts of model folders; the first that recognises a folder reads it. A new layout is a new entry."""


def pretrained_folder() -> Path:
    """Return the folder of the shipped models."""
    # Not files("skipdiff_env.pretrained"): for a folder without __init__.py, that is not a single path.
    package = Path(str(resources.files("skipdiff_env")))
    inside = package / "pretrained"
    return inside if inside.is_dir() else package.parent / "pretrained"


def available_models() -> dict[str, Path]:
    """Return the names and folders of the shipped models."""
    folder = pretrained_folder()
    found = sorted(p.parent for p in folder.glob(f"*/{CONFIG}")) if folder.is_dir() else []
    return {path.name: path for path in found}


def model_folder(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the folder of a model given by the name of a shipped model, by path, or else by Hugging Face id
    (``owner/name``).

    Raises:
        SkipDiffError: if there is no such model.
    """
    shipped = available_models()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    folder = Path(name_or_path).expanduser()
    if holds_model(folder):
        return folder
    if not folder.exists() and looks_like_hub_id(str(name_or_path)):
        return fetched(str(name_or_path))
    why = f"{folder} holds no {CONFIG}" if folder.is_dir() else "no such folder"
    raise SkipDiffError(
        f"unknown model {str(name_or_path)!r} ({why}): use one of {', '.join(shipped) or '(none shipped)'} "
        "or the path of a model folder"
    )


def holds_model(folder: Path) -> bool:
    """Return whether a folder holds a model in any known layout."""
    return any(format.recognises(folder) for format in FORMATS)


@lru_cache
def fetched(name: str) -> Path:
    """Fetch a model from the Hugging Face hub once per process, and return its folder; see
    :func:`.hub.fetch`."""
    return fetch(name, [*_files(), CARD, POLICY, ABOUT_POLICY, PLANS], holds_model)


def load_pretrained(
    name_or_path: str | os.PathLike[str] = "natural-4x",
    device: torch.device | str = "auto",
    dtype: torch.dtype | None = None,
    engine: str = TORCH,
) -> FrozenModel:
    """Load a frozen model by name, by folder or by its id on the Hugging Face hub.

    The same arguments give the same object, as long as the model's files do not change and it is among the
    eight models that were asked for last.

    Args:
        name_or_path: name of a shipped model; a model folder of SkipDiff, of SR3 or (with the extra
            ``diffusers``) of diffusers; or the Hugging Face id of such a folder.
        device: device on which the model runs; ``"auto"`` takes CUDA if it is available, else the CPU.
        dtype: autocast type; None: bfloat16 on CUDA and float32 elsewhere.
        engine: library that runs the network: ``torch``, or ``onnx`` for ONNX Runtime (extra ``export``),
            which runs float32 on the CPU only and whose results differ from those of torch by at most 1 in
            8-bit values. See :mod:`.engines`.

    Raises:
        SkipDiffError: if the folder, its configuration or its weights are invalid (the message names the file
            and the key), or if this machine lacks the device, ``dtype`` or ``engine``.
    """
    target = pick_device(device)
    if dtype is None:
        dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
    check_dtype(dtype, target)
    folder = model_folder(name_or_path).resolve()
    stamps = tuple(stamp(path) for name in _files() for path in sorted(folder.glob(name)))
    return _load(folder, target, dtype, engine, stamps)


def stamp(path: Path) -> tuple[int, ...]:
    """Return numbers that change whenever a file does; the date alone is not enough, since a copy
    may keep it."""
    if not path.exists():
        return ()
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


@lru_cache(maxsize=8)
def _load(
    folder: Path, device: torch.device, dtype: torch.dtype, engine: str, stamps: tuple[tuple[int, ...], ...]
) -> FrozenModel:
    format = next(format for format in FORMATS if format.recognises(folder))
    network, config, digest = format.read(folder)
    restorer = read_restorer(folder, config.restorer, device, dtype) if config.restorer else None
    return FrozenModel(network, config, device, dtype, folder.name, digest, folder, engine, restorer)


def _files() -> list[str]:
    return [pattern for format in FORMATS for pattern in format.files]
