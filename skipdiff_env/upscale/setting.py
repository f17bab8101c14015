"""Chooses a model's tiles, and reads the notice on its card."""

from __future__ import annotations

import os
from typing import Any

import yaml

from ..diffusion import FrozenModel
from ..diffusion.folder import CARD
from ..diffusion.pretrained import model_folder
from ..images.tiling import choose_tile, free_memory

GPU_BATCH = 4
"""Number of tiles per network call on CUDA."""


def usual_tiles(model: FrozenModel, tile: int | None = None) -> tuple[int, int]:
    """Return the side of a tile in pixels, chosen by free memory unless ``tile`` is given, and the number of
    tiles per network call."""
    batch = GPU_BATCH if model.device.type == "cuda" else 1
    return tile or choose_tile(model.config.unet, free_memory(model.device), batch), batch


def model_notice(name_or_path: str | os.PathLike[str]) -> str | None:
    """Read the ``notice`` in a model's card (YAML header), which users should know before using the model.

    A face model may have ``notice: trained on centred faces; anything else comes out badly``.
    """
    notice = _card_header(name_or_path).get("notice")
    return " ".join(str(notice).split()) if notice else None


def _card_header(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the YAML header of a model's card; empty if there is none, or it cannot be read."""
    card = model_folder(name_or_path) / CARD
    if not card.is_file():
        return {}
    parts = card.read_text(encoding="utf-8-sig", errors="replace").split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}
    return header if isinstance(header, dict) else {}
