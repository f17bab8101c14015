"""``skipdiff info``: versions, devices and models."""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from .._version import __version__

HELP = "show versions, devices and models"

PACKAGES = (
    "torch", "torchvision", "numpy", "opencv-python", "Pillow", "safetensors", "gymnasium", "pyiqa",
    "stable-baselines3", "sb3-contrib",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def run(args: argparse.Namespace) -> int:
    """Print what is installed."""
    from ..diffusion import available_models
    from ..diffusion.pretrained import pretrained_folder

    facts = {
        "skipdiff": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "models_folder": str(pretrained_folder()),
        "models": {name: _model(folder) for name, folder in available_models().items()},
    }
    print(json.dumps(facts, indent=2) if args.json else _text(facts))
    return 0


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, str]:
    """Return the names that ``--device`` accepts, with descriptions; the first is what ``auto`` chooses."""
    import torch

    from ..images.tiling import free_memory

    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    found = {}
    for name in [*cuda, "cpu"]:
        device = torch.device(name)
        threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
        what = torch.cuda.get_device_name(device) if cuda and name != "cpu" else threads
        found[name] = f"{what}, {free_memory(device) / 1e9:.1f} GB free"
    return found


def _model(folder: Path) -> dict[str, Any]:
    from ..chains import efforts, shipped_plans
    from ..diffusion import load_pretrained
    from ..errors import SkipDiffError
    from ..upscale import model_notice

    try:
        model = load_pretrained(folder, "cpu")
        plans, chains = shipped_plans(model), efforts(model)
    except (SkipDiffError, OSError) as error:
        return {"folder": str(folder), "error": str(error)}
    config = model.config
    return {
        "folder": str(folder),
        "scale": config.scale,
        "image_size": config.image_size,
        "weights": sum(p.numel() for p in model.network.parameters()),
        "hash": model.hash,
        "restorer": model.restorer is not None,
        "refiner": config.refiner is not None,
        "start": config.start,
        "efforts": {
            effort: {"chain": str(chain), "evaluations": chain.most_evaluations(model.schedule)}
            for effort, chain in chains.items()
        },
        "plans": {count: str(plan) for count, plan in plans.items()},
        "prediction": config.prediction,
        "target": config.target,
        "training": config.training,
        "quality": config.quality,
        "notice": model_notice(folder),
    }


def _text(facts: dict[str, Any]) -> str:
    lines = [f"skipdiff {facts['skipdiff']}, Python {facts['python']}, {facts['system']}", "", "packages"]
    lines += [f"  {name:18} {version or 'not installed'}" for name, version in facts["packages"].items()]
    lines += ["", "devices"] + [f"  {name:18} {what}" for name, what in facts["devices"].items()]
    lines += ["", f"models in {facts['models_folder']}"]
    for name, model in facts["models"].items():
        if "error" in model:
            lines.append(f"  {name:18} {model['error']}")
            continue
        lines.append(
            f"  {name:18} {model['scale']}x, {model['weights'] / 1e6:.1f} M weights ({model['hash']}), "
            f"{model['prediction']}-prediction of the {model['target']}"
        )
        beside = " and a ".join(part for part in ("restorer", "refiner") if model[part])
        if beside:
            lines.append(f"  {'':18} with a {beside}")
        trained = model["training"]
        if trained:
            data = ", ".join(trained.get("data", [])) or "unknown data"
            hours = f"{trained['hours']:.1f}" if isinstance(trained.get("hours"), (int, float)) else "?"
            lines.append(f"  {'':18} trained {hours} hours on {data} ({trained.get('hardware', '?')})")
        lines += [
            f"  {'':18} {effort}: {about['chain']} ({_calls(about['evaluations'])})"
            for effort, about in model["efforts"].items()
        ]
        if model["plans"]:
            words = ", ".join(f"plan:{count}" for count in model["plans"])
            lines.append(f"  {'':18} plans by number of network calls: --policy {words}")
        if model["notice"]:
            lines.append(f"  {'':18} {model['notice']}")
    return "\n".join(lines if facts["models"] else [*lines, "  none"])


def _calls(count: int) -> str:
    return "1 network call" if count == 1 else f"at most {count} network calls"
