"""The blocks of a recipe, see :mod:`.recipe`. Each refuses values that make no sense."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Literal

from ..diffusion.restorer import RestorerConfig
from ..diffusion.unet import UNetConfig
from .data.drawings import SIDE

POOL = 1000
"""Number of the latest batches that the training of a refiner uses again, see :attr:`RefinerRecipe.reuse`."""


def check_range(
    name: str, value: float | None, low: float, high: float = sys.float_info.max, above: bool = False
) -> None:
    """Raise a ValueError naming a value outside ``low`` … ``high``, or at ``low`` if it must be ``above``.

    None, for an option that is not used, is allowed; NaN is not.
    """
    if value is None or (low < value <= high or (value == low and not above)):
        return
    if high < sys.float_info.max:
        wanted = f"be from {low} to {high}"
    else:
        wanted = f"be {'finite and ' if value == math.inf else ''}{'above' if above else 'at least'} {low}"
    raise ValueError(f"{name} = {value} must {wanted}")


@dataclass(frozen=True)
class DataRecipe:
    """How crops are cut from the training images and augmented."""

    crop: int
    """Side of the HR crops in pixels; a multiple of the model's scale. Smaller images are left out."""
    resize_short: int | None = None
    """Larger images are first shrunk until their shorter side has this many pixels; null: not shrunk."""
    in_memory: bool = True
    """Whether to decode all images once and keep them, instead of decoding them at each step."""
    weights: dict[str, float] = field(default_factory=dict)
    """Relative frequency of drawing an image, by the beginning of its file name; 1 for all others."""
    held_out: str | None = None
    """List of pictures that no training may see, see :mod:`.data.held_out`: the name of a shipped list, or a
    file."""
    orientations: Literal["dihedral", "mirror", "none"] = "dihedral"
    """Orientations of the crops: all eight flips and quarter turns, only left-right mirroring, or none."""
    zoom: float = 1.0
    """Windows with up to this many times the crop's side are cut, and shrunk to that side."""
    colour: float = 0.0
    """Maximum relative change of brightness, contrast and saturation; half of it for each channel's gain."""

    drawings: int = 0
    """Number of added pictures of text and line art, see :mod:`.data.drawings`; needs ``in_memory``."""

    def __post_init__(self) -> None:
        check_range("crop", self.crop, 1)
        check_range("drawings", self.drawings, 0)
        if self.drawings and (self.crop > SIDE or not self.in_memory):
            raise ValueError(f"drawings = {self.drawings} needs in_memory, and a crop of at most {SIDE}")
        check_range("resize_short", self.resize_short, 1)
        check_range("zoom", self.zoom, 1)  # HR must not be blurred
        check_range("colour", self.colour, 0, 1)
        for start, weight in self.weights.items():
            check_range(f"weights.{start}", weight, 0)


@dataclass(frozen=True)
class LossRecipe:
    """The loss, Eq. 7 of the paper."""

    norm: Literal["l1", "l2"] = "l2"
    """Norm of the error; the paper's authors use L1."""
    min_snr: float | None = None
    """γ of min-SNR-γ weights; null for uniform weights."""

    def __post_init__(self) -> None:
        check_range("min_snr", self.min_snr, 0, above=True)


@dataclass(frozen=True)
class OptimiserRecipe:
    """The optimiser, with a linear warm-up and then a constant learning rate."""

    lr: float
    kind: Literal["adamw", "muon"] = "adamw"
    """AdamW (Adam where ``weight_decay`` is 0), or Muon for all convolutions but the first and the
    last, and AdamW for the rest."""
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 300
    """Number of steps until the full learning rate."""
    clip: float = 1.0
    """Maximum norm of the gradient."""
    ema: float = 0.999
    """Decay per step of the moving average of the weights; this average is exported."""

    def __post_init__(self) -> None:
        check_range("lr", self.lr, 0)
        check_range("weight_decay", self.weight_decay, 0)
        check_range("warmup", self.warmup, 0)
        check_range("clip", self.clip, 0, math.inf, above=True)
        for name, decay in (("betas", min(self.betas)), ("betas", max(self.betas)), ("ema", self.ema)):
            if not 0 <= decay < 1:
                raise ValueError(f"{name} = {decay} must be at least 0 and below 1")


@dataclass(frozen=True)
class ValidationRecipe:
    """Validation: what is measured, and how often."""

    every: int = 2000
    """Number of steps between validations."""
    images: int = 8
    """Maximum number of validation images."""
    grid: int = 2
    """Number of these images in the picture grid; each of them takes a full chain."""
    metrics: tuple[str, ...] = ("lpips", "niqe")
    """Metrics of skipdiff_env.metrics besides PSNR; if one is not available, all are left out with a note."""

    def __post_init__(self) -> None:
        check_range("every", self.every, 1)
        check_range("images", self.images, 0)
        check_range("grid", self.grid, 0)


@dataclass(frozen=True)
class ConsistencyRecipe:
    """CCSR's first stage (see :mod:`.trainers.consistency`), in which the usual loss, Eq. 7, is restricted to
    levels up to CCSR's t_max."""

    every: int = 2
    """The consistency loss is used in every ``every``-th step."""

    def __post_init__(self) -> None:
        check_range("every", self.every, 1)


@dataclass(frozen=True)
class AdversarialRecipe:
    """A discriminator and its weight."""

    weight: float
    """Weight of the adversarial term in the generator's loss; at 0 no discriminator is trained."""
    lr_share: float = 1.0
    """Learning rate of the discriminator, in units of the generator's."""

    def __post_init__(self) -> None:
        check_range("weight", self.weight, 0)
        check_range("lr_share", self.lr_share, 0, above=True)  # a discriminator has to learn


@dataclass(frozen=True)
class RefinerRecipe:
    """CCSR's second stage, see :mod:`.trainers.refiner`."""

    unet: UNetConfig
    """Architecture of the refiner."""
    adversarial: AdversarialRecipe
    steps: tuple[int, ...] = (1, 2, 4)
    """Numbers of evaluations of CCSR's chains whose outputs it learns from, one of them in each step. The
    most frequent number is that of the chain that the refiner is meant for."""
    reuse: int = 1
    """Number of steps, on average, that use a batch, since running a chain may cost more than learning from
    its result. The steps between new batches use one of the last :data:`POOL` batches."""
    lpips: float = 1.0
    """Weight of LPIPS with AlexNet; the weight of L1, in [-1, 1], is 1."""
    vgg: float = 0.0
    """Weight of ST-LPIPS with VGG16, which, unlike LPIPS, is in no table of results. It needs the package
    stlpips_pytorch, see :mod:`skipdiff_env.metrics.shift_tolerant`."""
    init: str | None = None
    """Name or folder of a model whose refiner to start from; null for the identity."""

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ValueError(f"steps = {self.steps} must hold numbers of evaluations, each at least 1")
        check_range("reuse", self.reuse, 1)
        check_range("lpips", self.lpips, 0)
        check_range("vgg", self.vgg, 0)


@dataclass(frozen=True)
class RestorerRecipe:
    """The training of a restorer, see :mod:`.trainers.restorer`."""

    network: RestorerConfig
    """Its architecture."""
    init: str | None = None
    """Name or folder of a model whose restorer to start from; null for the identity."""


@dataclass(frozen=True)
class AddSRRecipe:
    """AddSR's distillation, see :mod:`.trainers.addsr`."""

    adversarial: AdversarialRecipe
    self_refinement: float = 0.5
    """w of prediction-based self-refinement."""
    adaptive: bool = True
    """Whether steps are weighted by the time-step-adaptive weight instead of equally."""
    teacher: Literal["hr", "lr"] = "hr"
    """Condition of the teacher: made from the original, or the same as the student's."""

    def __post_init__(self) -> None:
        check_range("self_refinement", self.self_refinement, 0, 1)
