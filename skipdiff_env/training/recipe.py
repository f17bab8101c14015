"""Recipes: one YAML file holds everything that decides what is trained, and how.

A recipe is a tree of dataclasses; an unknown key is refused by name. The block ``cuda:`` has the same layout
and holds what is different on a GPU, such as larger batches and crops; it replaces those values when the
training device is a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
import yaml

from ..diffusion.degradations import DegradationRecipe
from ..diffusion.folder import CONFIG, read_config
from ..diffusion.model import ModelConfig
from ..diffusion.pretrained import model_folder
from ..diffusion.unet import UNet
from ..errors import SkipDiffError, first_line
from .blocks import (
    AddSRRecipe,
    ConsistencyRecipe,
    DataRecipe,
    LossRecipe,
    OptimiserRecipe,
    RefinerRecipe,
    RestorerRecipe,
    ValidationRecipe,
    check_range,
)
from .trainers.features import MIN_SIZE

FOLDER = Path(__file__).resolve().parent / "recipes"
T = TypeVar("T")
Program = Literal["ddpm", "refiner", "addsr", "restorer"]
"""The kinds of training."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run."""

    name: str
    model: ModelConfig
    data: DataRecipe
    optimiser: OptimiserRecipe
    batch: int
    """Number of images per step, over all processes together."""
    seed: int = 0
    """Seed of the random numbers of every step and of the first weights."""
    init: str | None = None
    """Name or folder of the model whose weights to start from; null for random weights."""
    degradation: DegradationRecipe | None = None
    """Degradations of the LR images; null for none."""
    loss: LossRecipe = LossRecipe()
    consistency: ConsistencyRecipe | None = None
    """Settings for training CCSR's first stage."""
    refiner: RefinerRecipe | None = None
    """Settings for training a refiner of the model ``init``, which stays as it is."""
    addsr: AddSRRecipe | None = None
    """Settings for training a student of the model ``init``."""
    restorer: RestorerRecipe | None = None
    """Settings for training a restorer for the model ``init``, which stays as it is."""
    restorer_of: str | None = None
    """Name or folder of the model whose restorer LR passes through before the diffusion model sees it, in
    training as in use; null for none. A refiner and a student use that of their frozen model."""
    validation: ValidationRecipe = ValidationRecipe()
    checkpoint_minutes: float = 4.0
    """Minutes between checkpoints."""
    log_every: int = 50
    """Number of steps between lines of the log."""
    compile: bool = True
    """Whether to ``torch.compile`` the network; on CUDA only."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast type; auto: bfloat16 on CUDA, float32 elsewhere. A CPU with AVX512-BF16 trains much faster in
    bfloat16; on a CPU without instructions for bfloat16, it is refused."""

    def __post_init__(self) -> None:
        if self.data.crop % self.model.scale:
            raise ValueError(f"data.crop = {self.data.crop} must be a multiple of scale {self.model.scale}")
        check_range("batch", self.batch, 1)
        check_range("log_every", self.log_every, 1)
        check_range("checkpoint_minutes", self.checkpoint_minutes, 0, math.inf)
        self._check_program()

    def _check_program(self) -> None:
        names = ("consistency", "refiner", "addsr", "restorer")
        blocks = [name for name in names if getattr(self, name) is not None]
        if self.restorer_of and self.program != "ddpm":
            raise ValueError(f"restorer_of cannot be combined with {blocks[0]}: the model brings its own")
        if len(blocks) > 1:
            raise ValueError(f"{' and '.join(blocks)} cannot be trained at once: keep one of these blocks")
        if self.program == "restorer" and self.degradation is None:
            raise ValueError("restorer needs degradation: without it, there is nothing to restore")
        if self.program == "restorer" or (self.program == "ddpm" and not blocks):
            return
        if self.model.prediction != "v":
            raise ValueError(f"{blocks[0]} needs prediction v: at level T, x̂0 made from ε is useless")
        if self.program != "ddpm" and self.data.crop < MIN_SIZE:
            raise ValueError(f"data.crop = {self.data.crop} must be at least {MIN_SIZE}, for AlexNet")

    @property
    def program(self) -> Program:
        """The program that trains the recipe, which follows from its block."""
        if self.restorer:
            return "restorer"
        return "refiner" if self.refiner else "addsr" if self.addsr else "ddpm"

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON."""
        return _plain(asdict(self))


def available_recipes() -> list[str]:
    """List the names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(
    source: str | Path | Mapping[str, Any], cuda: bool = False, overrides: Sequence[str] = ()
) -> Recipe:
    """Read a recipe.

    Args:
        source: name of a shipped recipe, a YAML file, or the content of one.
        cuda: whether to apply the block ``cuda:``.
        overrides: changes such as ``"data.crop=64"``, which are applied last; values are YAML.

    Raises:
        SkipDiffError: if there is no such recipe, or a key is unknown, missing, of the wrong kind or out of
            range; the message names recipe and key.
    """
    data, name = _read(source)
    block = data.pop("cuda", None) or {}
    try:
        data = _with_model(data)
        on_cuda = _merged(data, block)
        build(Recipe, on_cuda)  # so that mistakes in the block are found on any device
        chosen = on_cuda if cuda else data
        for override in overrides:
            chosen = _with_model(_merged(chosen, _override(override)))
        recipe = build(Recipe, chosen)
        _check_networks(recipe)
        return recipe
    except ValueError as error:
        raise SkipDiffError(f"recipe {name}: {error}") from None


def _check_networks(recipe: Recipe) -> None:
    """Raise a ValueError if a network cannot be built, or cannot take the crops; nothing is computed."""
    networks = {"model.unet": recipe.model.unet}
    if recipe.refiner:
        networks["refiner.unet"] = recipe.refiner.unet
    for name, unet in networks.items():
        try:
            with torch.device("meta"), torch.no_grad():
                UNet(unet)(torch.zeros(1, 6, recipe.data.crop, recipe.data.crop), torch.ones(1))
        except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            raise ValueError(f"{name} does not describe a network: {first_line(error)}") from None


def _read(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    if isinstance(source, Mapping):
        return dict(source), str(source.get("name", "(unnamed)"))
    path = FOLDER / f"{source}.yaml"
    if str(source) not in available_recipes():
        path = Path(source).expanduser()
    if not path.is_file():
        raise SkipDiffError(
            f"unknown recipe {str(source)!r}: use one of {', '.join(available_recipes())}, or a YAML file"
        )
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SkipDiffError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise SkipDiffError(f"{path} is not a recipe: it must hold keys and values")
    return data, str(path if path.parent != FOLDER else source)


def _override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not a change: write key.key=value, such as data.crop=64")
    *parents, last = key.strip().split(".")
    nested = {last: yaml.safe_load(value)}
    for part in reversed(parents):
        nested = {part: nested}
    return nested


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _with_defaults(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fill a recipe's model with SR3's values for fields that it leaves out; a model folder must give all."""
    standard = ModelConfig(scale=1, image_size=1).to_dict()
    for name in ("scale", "image_size"):
        del standard[name]
    return {**standard, **data, "unet": {**standard["unet"], **data.get("unet", {})}}


def _with_model(data: dict[str, Any]) -> dict[str, Any]:
    """Replace ``model`` in a recipe, if it is a name or folder, by that model's configuration.

    The configuration's start, refiner, restorer, training record and figures are left out.
    """
    if not isinstance(data.get("model"), str):
        return data
    config = read_config(model_folder(data["model"]) / CONFIG)
    plain = replace(config, start=None, refiner=None, restorer=None, training={}, quality={})
    return {**data, "model": plain.to_dict()}


def build(cls: type[T], data: Any, path: str = "") -> T:
    """Build dataclass ``cls`` from nested dictionaries; ``path`` is their place in the recipe.

    Raises:
        ValueError: if a key is unknown, missing, of the wrong kind or out of range; the message names it.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{path.rstrip('.') or 'the recipe'} must hold keys and values, not {data!r}")
    if cls is ModelConfig:
        try:
            return ModelConfig.from_dict(_with_defaults(data))  # type: ignore[return-value]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path.rstrip('.')}: {error}") from None
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ValueError(f"unknown key {path + str(unknown[0])!r}: use {', '.join(known)}")
    for name, f in known.items():
        if name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"key {path + name!r} is missing")
    hints = get_type_hints(cls)
    values = {key: _value(hints[key], value, path + key) for key, value in data.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{path}{error}") from None


def _value(hint: Any, value: Any, path: str) -> Any:
    """Convert ``value`` to the type that a field's annotation asks for."""
    options = get_args(hint)
    if hint is Any:
        return value
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return None
        hint = next(option for option in options if option is not type(None))
        return _value(hint, value, path)
    if is_dataclass(hint):
        return build(hint, value, path + ".")  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if value not in options:
            raise ValueError(f"{path} = {value!r} must be one of {', '.join(map(str, options))}")
        return value
    if get_origin(hint) is Sequence:
        hint, options = tuple[options[0], ...], (options[0], ...)  # type: ignore[valid-type]
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        options = options[:1] * len(value) if options[-1] is Ellipsis else options
    if get_origin(hint) is tuple and isinstance(value, list | tuple) and len(value) == len(options):
        return tuple(_value(option, v, path) for option, v in zip(options, value, strict=True))
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return {str(k): _value(options[1], v, f"{path}.{k}") for k, v in value.items()}
    # YAML reads 1e-4 (without a point) as a string
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool) == isinstance(value, bool):
        return value
    raise ValueError(f"{path} = {value!r} is not of type {getattr(hint, '__name__', hint)}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str = "") -> list[str]:
    """List the dotted keys at which two recipes, as from :meth:`Recipe.to_dict`, differ."""
    found = []
    for key in sorted(set(a) | set(b)):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differences(left, right, f"{path}{key}.")
        elif left != right:
            found.append(path + key)
    return found
