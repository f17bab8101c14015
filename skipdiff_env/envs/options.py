"""The arguments of the environments, each defined once with its default and its meaning."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch

from ..diffusion import DiffusionModel
from ..diffusion.refiner import RefinerSpec
from ..errors import SkipDiffError, not_negative, whole_number
from ..latent_cache import LatentCache

if TYPE_CHECKING:
    from .recordings import Recordings


def _option(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


class SceneOptions:
    """The arguments that all environments have in common; the base class of frozen dataclasses."""

    model: str | os.PathLike[str] | DiffusionModel
    images: Any
    metric: Any
    noise: str
    observation: str
    observation_size: int | None
    image_size: int | None
    crop: Literal["random", "center"]
    low_resolution: bool
    step_cost: float | tuple[float, float]
    return_image: bool
    device: str | torch.device

    def __post_init__(self) -> None:
        one_of("noise", self.noise, ("fresh", "fixed"))
        one_of("observation", self.observation, ("latent", "dict"))
        one_of("crop", self.crop, ("random", "center"))
        for name in ("observation_size", "image_size"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), 1)
        object.__setattr__(self, "step_cost", checked_step_cost(self.step_cost))

    @classmethod
    def pick(cls: type[Some], arguments: Mapping[str, Any]) -> Some:
        """Pick the options from the ``locals()`` of a function that has them all as arguments."""
        return cls(**{option.name: arguments[option.name] for option in fields(cls)})  # type: ignore[arg-type]

    @property
    def priced(self) -> bool:
        """Whether every episode draws its own price."""
        return isinstance(self.step_cost, tuple)


Some = TypeVar("Some", bound=SceneOptions)


@dataclass(frozen=True, eq=False)
class Options(SceneOptions):
    """The arguments of :class:`.SkipDiffusionEnv` except ``render_mode``.

    Raises:
        SkipDiffError: if a value is invalid whatever the model and the images are.
    """

    model: str | os.PathLike[str] | DiffusionModel = _option(
        "natural-4x", "a name, folder, hub id or model object (`skipdiff_env.diffusion.interop`)"
    )
    images: Any = _option(
        None, "a folder, `.tar`, file, list or torch Dataset; None: the bundled photographs"
    )
    metric: Any = _option("niqe", '`"niqe"`, `"lpips"`, the name of any pyiqa metric, or a function')
    coarse_steps: int = _option(10, "number of coarse steps S, a divisor of T")
    fine_steps: int | None = _option(None, "number of fine levels F, 2 ... T; None: T/S")
    skip_rule: Literal["reset", "hold"] = _option(
        "reset", 'what a skip does, see Action Space: `"reset"` or `"hold"`'
    )
    noise: Literal["fresh", "fixed"] = _option(
        "fresh", '`"fresh"`: a new noise seed in each episode; `"fixed"`: always noise seed 0'
    )
    observation: Literal["latent", "dict"] = _option("latent", '`"latent"` or `"dict"`')
    observation_size: int | None = _option(None, "side of the observed latent in pixels; None: not resized")
    image_size: int | None = _option(
        None, "side of HR and SR in pixels; None: the model's, or 192 if `images` is None"
    )
    crop: Literal["random", "center"] = _option(
        "random", 'where larger images are cropped: `"random"` or `"center"`'
    )
    low_resolution: bool = _option(False, "whether `images` are LR images without originals")
    step_cost: float | tuple[float, float] = _option(
        0.0, "price of a network evaluation in units of reward, or a range (low, high)"
    )
    return_image: bool = _option(False, "whether `info` holds the SR image")
    device: str | torch.device = _option(
        "auto", 'where the model and the metric run; `"auto"` takes CUDA if it is available'
    )
    cache: LatentCache | None = _option(None, "a `skipdiff_env.latent_cache.LatentCache`, see below")
    refiner: RefinerSpec = _option(
        None, '`"own"` (the model\'s), name or folder of a model with a refiner, or a function'
    )


def checked_step_cost(step_cost: float | Sequence[float]) -> float | tuple[float, float]:
    """Return a price, or the range of prices that episodes draw from; raise an error for anything else."""
    if isinstance(step_cost, (tuple, list)):
        numbers = all(isinstance(price, int | float | np.number) for price in step_cost)
        if not (numbers and len(step_cost) == 2 and 0 < step_cost[0] < step_cost[1] < math.inf):
            raise SkipDiffError(f"step_cost={step_cost} must be a number, or (low, high) with 0 < low < high")
        return float(step_cost[0]), float(step_cost[1])
    return not_negative("step_cost", step_cost)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise an error that names the value unless it is one of the allowed ones."""
    if value not in allowed:
        raise SkipDiffError(f"unknown {name} {value!r}: use one of {', '.join(map(repr, allowed))}")


def _as_in_v0(name: str) -> Any:
    """Return the argument of SkipDiff-v0 with this name, with its default and its meaning."""
    (known,) = (option for option in fields(Options) if option.name == name)
    return _option(known.default, known.metadata["meaning"])


@dataclass(frozen=True, eq=False)
class RecordedOptions(SceneOptions):
    """The arguments of :class:`.RecordedEnv` except ``render_mode``.

    Raises:
        SkipDiffError: if a value is invalid whatever the model and the images are.
    """

    noise: ClassVar[str] = "fresh"  # type: ignore[misc]
    return_image: ClassVar[bool] = False  # type: ignore[misc]

    model: str | os.PathLike[str] | DiffusionModel = _as_in_v0("model")
    images: Any = _as_in_v0("images")
    metric: str = _option("niqe", '`"niqe"`, `"lpips"`, or the name of any pyiqa metric')
    coarse_steps: int = _as_in_v0("coarse_steps")
    fine_steps: int | None = _as_in_v0("fine_steps")
    skip_rule: Literal["reset", "hold"] = _as_in_v0("skip_rule")
    noise_seeds: int = _option(2, "number of noise seeds per image: 0, 1, ...")
    recordings: str | os.PathLike[str] | Recordings | None = _option(
        None, "folder of the recordings; None: `skipdiff/recordings` in the user's cache"
    )
    observation: Literal["latent", "dict"] = _as_in_v0("observation")
    observation_size: int = _option(32, "side of the observed latent in pixels")
    image_size: int | None = _as_in_v0("image_size")
    crop: Literal["random", "center"] = _as_in_v0("crop")
    low_resolution: bool = _as_in_v0("low_resolution")
    step_cost: float | tuple[float, float] = _as_in_v0("step_cost")
    device: str | torch.device = _as_in_v0("device")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("noise_seeds", self.noise_seeds, 1)


@dataclass(frozen=True, eq=False)
class CallOptions(SceneOptions):
    """The arguments of :class:`.SkipDiffusionCallEnv` except ``render_mode``.

    Raises:
        SkipDiffError: if a value is invalid whatever the model and the images are.
    """

    model: str | os.PathLike[str] | DiffusionModel = _as_in_v0("model")
    images: Any = _as_in_v0("images")
    metric: Any = _option(
        "lpips", 'a name, a function, or names with weights: `{"lpips": 1, "niqe-full": 0.5}`'
    )
    actions: Literal["jump", "full"] = _option(
        "jump", 'what is decided about a call, see Action Space: `"jump"` or `"full"`'
    )
    episode: Literal["call", "plan"] = _option(
        "call", '`"call"`: one decision per network call; `"plan"`: one decision per episode'
    )
    levels: Sequence[float] | None = _option(
        None, "levels besides 0 that calls may lead to; None: up to 18 (`env.unwrapped.levels`)"
    )
    plans: Sequence[Any] | None = _option(None, "plans to choose from, as text; None: the model's own")
    budget: int | None = _option(
        None, "maximum number of network calls in an episode; None: set by the levels or plans"
    )
    noise: Literal["fresh", "fixed"] = _as_in_v0("noise")
    observation: Literal["latent", "dict"] = _as_in_v0("observation")
    observation_size: int | None = _as_in_v0("observation_size")
    image_size: int | None = _as_in_v0("image_size")
    crop: Literal["random", "center"] = _as_in_v0("crop")
    low_resolution: bool = _as_in_v0("low_resolution")
    step_cost: float | tuple[float, float] = _option(0.0, "price of a network call, or a range (low, high)")
    return_image: bool = _as_in_v0("return_image")
    device: str | torch.device = _as_in_v0("device")

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("actions", self.actions, ("jump", "full"))
        one_of("episode", self.episode, ("call", "plan"))
        if self.budget is not None:
            whole_number("budget", self.budget, 1)
        if self.plans is not None and self.episode != "plan":
            raise SkipDiffError("plans= is used only with episode='plan': give that too")
        if self.episode == "plan" and (self.levels is not None or self.actions != "jump"):
            raise SkipDiffError("levels= and actions= are not used with episode='plan': leave them out")
        if isinstance(self.plans, (str, os.PathLike)):
            raise SkipDiffError(f"plans={str(self.plans)!r} must be a list of plans, such as ['100>50>0']")
