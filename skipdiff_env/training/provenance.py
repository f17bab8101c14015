"""The origin of weights, for the ``training`` field of a model folder's ``config.json``."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..diffusion.model import FrozenModel, ModelConfig
from ..diffusion.pretrained import load_pretrained
from ..errors import SkipDiffError
from .distributed import World
from .trainers.base import Trainer

FREE = ("image_size", "attention_sizes", "dropout", "zero_init")
"""Fields in which the recipe's network may differ from that of the model that it starts from."""


@dataclass
class Provenance:
    """The legs of a model's training; the last one is under way.

    Attributes:
        recipe: name of the recipe.
        data: names of the training data's files and folders.
        hardware: hardware that the training runs on.
        earlier: legs before this one, from the record of the model that it started from.
        init: name and hash of that model.
        degradation: lowest and highest strength of each fault in the inputs, see
            :attr:`.degradations.DegradationRecipe.ranges`.
    """

    recipe: str
    data: list[str]
    hardware: str
    earlier: list[dict[str, Any]] = field(default_factory=list)
    init: dict[str, str] | None = None
    degradation: dict[str, list[float]] | None = None

    def record(self, steps: int, images: int, seconds: float, cooldown_steps: int = 0) -> dict[str, Any]:
        """Return the whole record as plain JSON: totals, and the legs one by one."""
        leg: dict[str, Any] = {
            "recipe": self.recipe, "steps": steps, "images": images, "hours": round(seconds / 3600, 4),
            "hardware": self.hardware, "data": self.data,
        }  # fmt: skip
        if cooldown_steps:
            leg["cooldown_steps"] = cooldown_steps
        if self.init:
            leg["init"] = self.init
        if self.degradation:
            leg["degradation"] = self.degradation
        return summary([*self.earlier, leg])


def earlier_legs(model: FrozenModel) -> list[dict[str, Any]]:
    """Return the legs in a model's record."""
    record = dict(model.config.training)
    legs: list[dict[str, Any]] = record.get("legs", [record] if record else [])
    return legs


def summary(legs: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a model's record: recipe, hardware and faults of the last leg, all data, totals, and all legs."""
    totals = {key: sum(leg.get(key, 0) for leg in legs) for key in ("steps", "images", "hours")}
    totals["hours"] = round(totals["hours"], 4)
    data = sorted({name for leg in legs for name in leg.get("data", [])})
    last = {key: legs[-1].get(key, "unknown") for key in ("recipe", "hardware")} if legs else {}
    faults = {key: legs[-1][key] for key in ("degradation",) if legs and key in legs[-1]}
    return {**last, **faults, "data": data, **totals, "legs": legs}


def start_from(trainer: Trainer, source: str | os.PathLike[str], provenance: Provenance) -> FrozenModel:
    """Load the weights of a model into a trainer, and its record into the provenance.

    Raises:
        SkipDiffError: if the model has another architecture, predicts something else, or has a restorer and
            the trainer has none.
    """
    model = load_pretrained(source, "cpu")
    theirs, ours = _meaning(model.config), _meaning(trainer.recipe.model)
    for key, value in ours.items():
        if theirs[key] != value:
            raise SkipDiffError(
                f"cannot start from {source}: its {key} is {theirs[key]!r}, "
                f"but recipe {trainer.recipe.name} has {value!r}"
            )
    if model.restorer and not trainer.restorer:
        raise SkipDiffError(
            f"cannot start from {source}: it has a restorer, so also set restorer_of={source}"
        )
    try:
        trainer.network.load_state_dict(model.network.state_dict())
    except RuntimeError:  # image_size and attention_sizes together determine which levels have attention
        raise SkipDiffError(f"cannot start from {source}: it has attention at other levels") from None
    trainer.restart_ema()
    provenance.earlier = earlier_legs(model)
    provenance.init = {"model": model.name, "hash": model.hash}
    return model


def _meaning(model: ModelConfig) -> dict[str, Any]:
    """Return the settings that two models must share if weights are to mean the same in both."""
    unet = {f"unet.{k}": v for k, v in asdict(model.unet).items() if k not in FREE}
    return {"prediction": model.prediction, "target": model.target, **unet}


def describe_hardware(device: torch.device, world: World) -> str:
    """Describe the hardware, such as ``1 x NVIDIA H200`` or ``2 CPU threads (Intel(R) Xeon(R) …)``."""
    if device.type == "cuda":
        return f"{world.size} x {torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads() * world.size
    return f"{threads} CPU thread{'s' if threads > 1 else ''} ({_processor()})"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else os.uname().machine if hasattr(os, "uname") else "unknown"
