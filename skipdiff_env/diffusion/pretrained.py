"""Model folders: ``config.json``, ``ddpm.safetensors``, ``README.md`` (the model card), and, where there is
one, its agent: ``policy.safetensors`` and ``policy.json``.

Names are looked up in the shipped ``pretrained/`` folder: package data of an installed wheel, or
the folder beside the package in a source tree. Folders that diffusers wrote load as well, and so do
both kinds from the Hugging Face hub, see :mod:`.interop`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from functools import lru_cache
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import SkipDiffError
from ..locks import held
from .interop.hub import fetch, looks_like_hub_id
from .model import OPTIONAL, FrozenModel, ModelConfig, check_dtype
from .unet import UNet

CONFIG, WEIGHTS, CARD = "config.json", "ddpm.safetensors", "README.md"
REFINER = "refiner.safetensors"
"""What follows a model's chain, see :mod:`.refiner`."""
POLICY, ABOUT_POLICY = "policy.safetensors", "policy.json"
"""A model's own agent, and what it was trained for."""
DIFFUSERS_INDEX, DIFFUSERS_WEIGHTS = "model_index.json", "diffusion_pytorch_model.safetensors"
DIFFUSERS_SCHEDULER, DIFFUSERS_EXTRAS = "scheduler_config.json", "skipdiff.json"
FILES = (
    CONFIG, WEIGHTS, REFINER, DIFFUSERS_INDEX, DIFFUSERS_WEIGHTS, DIFFUSERS_SCHEDULER, DIFFUSERS_EXTRAS,
    f"unet/{CONFIG}", f"unet/{DIFFUSERS_WEIGHTS}", f"scheduler/{DIFFUSERS_SCHEDULER}",
)  # fmt: skip
"""All that a model, ours or of diffusers, is read from."""


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
    """The folder of a shipped model's name, of a path, or else of a Hugging Face id (``owner/name``).

    Raises:
        SkipDiffError: if it is none of them, with the names that exist.
    """
    shipped = available_models()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    folder = Path(name_or_path).expanduser()
    if (folder / CONFIG).is_file() or (folder / DIFFUSERS_INDEX).is_file():
        return folder
    if not folder.exists() and looks_like_hub_id(str(name_or_path)):
        return fetch(str(name_or_path))
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
        name_or_path: a shipped model's name, a model folder of ours or of diffusers (with the extra
            ``diffusers``), or the Hugging Face id of either.
        device: ``"auto"`` takes CUDA if there is one, else the CPU.
        dtype: autocast type: None means bfloat16 on CUDA and float32 elsewhere.
        compile: whether to ``torch.compile`` the network (CUDA; the first call then takes a minute).

    Raises:
        SkipDiffError: naming file and key if the folder, its configuration or its weights are bad; or for a
            device or ``dtype`` that this machine lacks.
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
    check_dtype(dtype, target)
    folder = model_folder(name_or_path).resolve()
    stamps = tuple(_stamp(folder / name) for name in FILES)
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
    if written_by_diffusers(folder):
        from .interop.diffusers import read_folder

        theirs, config, digest = read_folder(folder)
        return FrozenModel(theirs, config, device, dtype, folder.name, digest, compile)
    config = read_config(folder / CONFIG)
    network = empty_network(config, str(folder / CONFIG))
    fill(network, read_safetensors(folder / WEIGHTS), str(folder / WEIGHTS))
    digest = identity(folder / WEIGHTS, config)
    return FrozenModel(network, config, device, dtype, folder.name, digest, compile)


def written_by_diffusers(folder: Path) -> bool:
    """Whether a model folder is diffusers' and not ours: its files name the class they are for."""
    if (folder / DIFFUSERS_INDEX).is_file():
        return True
    try:
        return "_class_name" in json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, TypeError):
        return False  # whatever it is instead is said when it is read


def identity(weights: Path, config: ModelConfig, *also: object) -> str:
    """16 hexadecimal digits for all that decides what a model computes; caches are keyed by it."""
    words = {k: v for k, v in config.to_dict().items() if k not in OPTIONAL}
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(json.dumps([words, *also] if also else words, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def empty_network(config: ModelConfig, where: str) -> UNet:
    """The network of a configuration, which stands in ``where``, without weights (on the meta device)."""
    try:
        with torch.device("meta"):
            return UNet(config.unet)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise SkipDiffError(f"{where}: 'unet' describes no network: {why}") from None


def read_config(path: Path) -> ModelConfig:
    """Read ``config.json``; what is wrong with it is raised as one line naming file and field."""
    try:
        return ModelConfig.from_dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        raise SkipDiffError(f"{path} is missing: a model folder needs it") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise SkipDiffError(f"{path} is not a model configuration: {error}") from None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

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
    """Fill ``network`` (which may be on the meta device), as float32.

    Args:
        network: what to fill.
        weights: its state dict, complete and without anything else.
        where: the file they are from, for messages.
        prefix: what the keys begin with in that file, for messages.

    Raises:
        SkipDiffError: naming the key that is missing, unknown or of another shape.
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


def save_model(
    folder: str | os.PathLike[str],
    network: nn.Module,
    config: ModelConfig,
    card: str = "",
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a model folder; each file appears whole or not at all.

    Args:
        folder: made if it is missing.
        network: whose weights to write.
        config: what goes into ``config.json``.
        card: the model card, if there is one.
        dtype: what the weights are stored as; half precision takes half the space.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    write_weights(target / WEIGHTS, network, dtype)
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
        SkipDiffError: naming the tensor that is not finite; nothing is written then.
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
    """``path``, if no model lies there that another one's files would mix with.

    Raises:
        SkipDiffError: if one does, or a file is in the way.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise SkipDiffError(f"{folder} is a file: name a folder for the model")
    found = next((name for name in (*FILES, POLICY) if (folder / name).exists()), None)
    if found:
        raise SkipDiffError(f"{folder} holds a model already ({found}): name another folder")
    return folder


def write_atomically(path: Path, data: bytes, replace: bool = True) -> None:
    """Write a file that appears whole or not at all: under another name in the same folder, then renamed.

    Processes and threads that write one file do so one after another. The file has the permissions that the
    process's umask leaves.

    Args:
        path: the file, in a folder that exists.
        data: what it will hold.
        replace: whether to replace what is there.

    Raises:
        FileExistsError: if something is there and ``replace`` is false.
        OSError: if it cannot be written; nothing is left of it then.
    """
    # A name of its own length, for a file's may be as long as the system allows.
    part = path.with_name(f".{hashlib.blake2b(os.fsencode(path.name), digest_size=10).hexdigest()}.part")
    with held(part):
        if not replace and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
