"""Makes the trainer that a recipe asks for, with the frozen model that it may learn from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..diffusion.folder import WEIGHTS
from ..diffusion.model import FrozenModel
from ..diffusion.pretrained import load_pretrained, model_folder
from ..diffusion.restorer import Restorer
from ..errors import SkipDiffError
from .distributed import World
from .provenance import Provenance, start_from
from .recipe import Program, Recipe, load_recipe
from .trainers.addsr import AddSRTrainer
from .trainers.base import Trainer, training_dtype
from .trainers.refiner import RefinerTrainer
from .trainers.restorer import RestorerTrainer

COMMANDS: dict[Program, str] = {
    "ddpm": "train-ddpm",
    "refiner": "train-refiner",
    "addsr": "train-addsr",
    "restorer": "train-restorer",
}
"""The command of each program."""


def load_program(
    source: object,
    program: Program,
    init: str | os.PathLike[str] | None,
    cuda: bool,
    overrides: Sequence[str],
) -> Recipe:
    """Load a recipe for a program. A frozen model's configuration replaces that in the recipe.

    Raises:
        SkipDiffError: if the recipe is invalid, is for another program, or names no model to train from.
    """
    recipe = load_recipe(source, cuda, overrides)  # type: ignore[arg-type]
    if recipe.program != program:
        raise SkipDiffError(
            f"recipe {recipe.name} is for skipdiff {COMMANDS[recipe.program]}: use that command"
        )
    if program == "ddpm":
        return recipe
    if init or recipe.init:
        frozen = json.dumps(str(init or recipe.init))
        return load_recipe(source, cuda, [f"model={frozen}", f"init={frozen}", *overrides])  # type: ignore[arg-type]
    raise SkipDiffError(f"recipe {recipe.name} does not name a model to train from: give one with init")


def make_trainer(recipe: Recipe, device: torch.device, world: World) -> Trainer:
    """Make the trainer of a recipe, with its frozen model if it has one."""
    if recipe.program == "ddpm":
        return Trainer(recipe, device, world, _restorer(recipe, device))
    folder = model_folder(recipe.init or "")
    if not (folder / WEIGHTS).is_file():
        raise SkipDiffError(
            f"{folder} holds no {WEIGHTS}: only models in SkipDiff's own format can be trained from"
        )
    model = load_pretrained(folder, device, training_dtype(recipe, device))
    if recipe.program == "refiner":
        return RefinerTrainer(recipe, device, world, model, Path(folder))
    if recipe.program == "restorer":
        return RestorerTrainer(recipe, device, world, model, Path(folder))
    return AddSRTrainer(recipe, device, world, model)


def _restorer(recipe: Recipe, device: torch.device) -> Restorer | None:
    """Load the restorer that LR passes through, if the recipe names one."""
    if recipe.restorer_of is None:
        return None
    model = load_pretrained(recipe.restorer_of, device, training_dtype(recipe, device))
    if model.restorer is None:
        raise SkipDiffError(f"recipe {recipe.name}: restorer_of names {model.name}, which has no restorer")
    return model.restorer


def begin(trainer: Trainer, source: str | os.PathLike[str], provenance: Provenance) -> FrozenModel:
    """Start a new run from the weights of a model; a refiner and a restorer, which have weights of their
    own, only record it."""
    if isinstance(trainer, RefinerTrainer | RestorerTrainer):
        provenance.init = {"model": trainer.model.name, "hash": trainer.model.hash, **trainer.began_from}
        provenance.earlier = trainer.earlier_legs
        return trainer.model
    return start_from(trainer, source, provenance)


def check_frozen(trainer: Trainer, provenance: Provenance) -> None:
    """Raise a SkipDiffError if the frozen model is not the one that the run began with."""
    model = trainer.learnt_from
    began = provenance.init or {}
    if model is not None and model.hash != began.get("hash"):
        raise SkipDiffError(
            f"the run started with the model {began.get('model')} (hash {began.get('hash')}), but "
            f"{model.name} is another one ({model.hash}): give the same model"
        )
