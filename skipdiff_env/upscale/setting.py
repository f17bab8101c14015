"""Where a model runs, and what its card warns of."""

from __future__ import annotations

import os

import torch
import yaml

from ..diffusion.pretrained import CARD, model_folder
from ..errors import SkipDiffError


def pick_device(name: str) -> torch.device:
    """A device by name; ``auto`` is CUDA where there is one.

    Raises:
        SkipDiffError: if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if name not in known:
        raise SkipDiffError(f"there is no device {name!r} here: use auto or {', '.join(known)}")
    return torch.device(name)


def model_notice(name_or_path: str | os.PathLike[str]) -> str | None:
    """The ``notice`` in the YAML header of a model's card: what a user should know before using it.

    A face model has, say, ``notice: trained on centred faces; anything else comes out badly``.
    """
    card = model_folder(name_or_path) / CARD
    if not card.is_file():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    notice = header.get("notice") if isinstance(header, dict) else None
    return " ".join(str(notice).split()) if notice else None
