"""The blocks of a recipe, see :mod:`.recipe`; each refuses values that cannot be meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..diffusion.unet import UNetConfig

POOL = 1000
"""Batches that a refiner's training goes back to, see :attr:`RefinerRecipe.reuse`."""


@dataclass(frozen=True)
class DataRecipe:
    """How crops are cut from the training images, and how they are varied."""

    crop: int
    """Side of the HR crops in pixels; a multiple of the model's scale. Smaller images are left out."""
    resize_short: int | None = None
    """Shrink larger images until their shorter side is this many pixels, before anything else."""
    in_memory: bool = True
    """Decode everything once and keep it; if false, decode what a step needs when it needs it."""
    weights: dict[str, float] = field(default_factory=dict)
    """How often an image is drawn, by the beginning of its file name; 1 for all others."""
    held_out: str | None = None
    """A list of pictures that no training may see, see :mod:`.held_out`: a shipped one's name, or a file."""
    orientations: Literal["dihedral", "mirror", "none"] = "dihedral"
    """All eight flips and quarter turns, left-right mirroring alone, or neither."""
    zoom: float = 1.0
    """Cut windows of up to this many times the crop's side and shrink them to it."""
    colour: float = 0.0
    """Largest relative change of brightness, contrast and saturation; half as much of each channel's gain."""


@dataclass(frozen=True)
class LossRecipe:
    """Eq. 7."""

    norm: Literal["l1", "l2"] = "l2"
    """L1 is the authors'."""
    min_snr: float | None = None
    """γ of min-SNR-γ weights; null for uniform ones."""


@dataclass(frozen=True)
class OptimiserRecipe:
    """Linear warm-up, then a constant rate."""

    lr: float
    kind: Literal["adamw", "muon"] = "adamw"
    """AdamW (Adam where ``weight_decay`` is 0), or Muon for all but the outermost convolutions."""
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup: int = 300
    """Steps until the full rate."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay a step of the moving average of the weights, which is what gets exported."""


@dataclass(frozen=True)
class ValidationRecipe:
    """What is measured on validation images, and how often."""

    every: int = 2000
    """Steps between validations."""
    images: int = 8
    """Validation images used, at most."""
    grid: int = 2
    """How many of them are in the picture grid, which takes the full chain."""
    metrics: tuple[str, ...] = ("lpips", "niqe")
    """Metrics of skipdiff_env.metrics, besides PSNR; left out with a word where they are missing."""


@dataclass(frozen=True)
class ConsistencyRecipe:
    """CCSR's first stage, see :mod:`.consistency`; Eq. 7 then keeps to levels up to t_max."""

    every: int = 2
    """Of so many steps the last one takes the consistency loss."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every = {self.every} must be at least 1")


@dataclass(frozen=True)
class AdversarialRecipe:
    """A discriminator and what it counts for."""

    weight: float
    """Of the adversarial term in the generator's loss."""
    lr_share: float = 1.0
    """The discriminator's rate, in units of the generator's."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight = {self.weight} must be at least 0")
        if self.lr_share <= 0:
            raise ValueError(f"lr_share = {self.lr_share} must be above 0: a discriminator has to learn")


@dataclass(frozen=True)
class RefinerRecipe:
    """CCSR's second stage, see :mod:`.stage2`."""

    unet: UNetConfig
    """The refiner."""
    adversarial: AdversarialRecipe
    steps: tuple[int, ...] = (1, 2, 4)
    """Evaluations of CCSR's chains whose outputs it learns from, one of them in each step. The most frequent
    number is the chain that the refiner is meant for."""
    reuse: int = 1
    """Steps that a batch serves in the mean, since a chain may cost more than learning from what it made:
    the steps between new batches go back to one of the last :data:`POOL`."""
    lpips: float = 1.0
    """Weight of LPIPS; L1, in [-1, 1], counts 1."""
    init: str | None = None
    """Name or folder of a model whose refiner to start from; null for the identity."""

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ValueError(f"steps = {self.steps} must hold numbers of evaluations, each at least 1")
        if self.reuse < 1:
            raise ValueError(f"reuse = {self.reuse} must be at least 1")
        if self.lpips < 0:
            raise ValueError(f"lpips = {self.lpips} must be at least 0")


@dataclass(frozen=True)
class AddSRRecipe:
    """AddSR's distillation, see :mod:`.addsr`."""

    adversarial: AdversarialRecipe
    self_refinement: float = 0.5
    """w of prediction-based self-refinement."""

    def __post_init__(self) -> None:
        if not 0 <= self.self_refinement <= 1:
            raise ValueError(f"self_refinement = {self.self_refinement} must lie in 0 … 1")
