"""The frozen conditional DDPM, which turns the output of a network into an image.

The network sees [condition c, latent x_t] and the level √ᾱ_t. The meaning of its output depends on
``prediction``:

- ``noise``: ε̂, x̂0 = (x_t - √(1-ᾱ) ε̂) / √ᾱ (Ho et al. 2020; SR3, the paper)
- ``v``: v̂ = √ᾱ ε - √(1-ᾱ) x0, x̂0 = √ᾱ x_t - √(1-ᾱ) v̂ (Salimans & Ho 2022), well behaved at level T

The target of the chain depends on ``target``:

- ``image``: the HR image in [-1, 1], as in the paper
- ``residual``: k · (HR - c) with ``residual_scale`` k (SRDiff, Li et al. 2022)

Whatever the target, ``predict`` returns x̂0 **in image space, clamped to [-1, 1]**; this is what metrics see.
Latents (what an agent sees) are those of the target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import SkipDiffError
from .engines import TORCH, run_by
from .resize import bicubic, to_signed
from .restorer import Restorer, RestorerConfig
from .schedule import NoiseSchedule
from .unet import UNet, UNetConfig


@dataclass(frozen=True)
class RefinerConfig:
    """The refiner of a model folder, as ``config.json`` describes it."""

    unet: UNetConfig
    strength: float = 1.0
    """Share of the refiner's change that is applied, chosen on validation images to balance perception and
    distortion."""
    training: dict[str, Any] = field(default_factory=dict)
    """Provenance, in the same form as the model's."""


@dataclass(frozen=True)
class ModelConfig:
    """The content of a model folder's ``config.json``."""

    scale: int
    """Enlargement factor."""
    image_size: int
    """Side in pixels of the HR images that the model is meant for; other sizes work too."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    schedule: dict[str, Any] = field(default_factory=lambda: NoiseSchedule.cosine().config)
    prediction: Literal["noise", "v"] = "noise"
    target: Literal["image", "residual"] = "image"
    residual_scale: float = 1.0
    """k of a residual target, such that k · (HR - c) has about unit variance."""
    coarse_levels: Literal["strided", "rebuilt"] = "strided"
    """Rule for CSA's topmost level; see :meth:`NoiseSchedule.coarse`."""
    start: int | None = None
    """The fixed start of FSR at S = 10 that did best on validation images; None if none was chosen."""
    chain: str | None = None
    """The chain that the model and its refiner were made for, such as ``ccsr:2``; None for CSA and FSR."""
    refiner: RefinerConfig | None = None
    """The model's refiner, or None; see :mod:`.refiner`."""
    restorer: RestorerConfig | None = None
    """The model's restorer, or None; see :mod:`.restorer`."""
    training: dict[str, Any] = field(default_factory=dict)
    """Provenance: data, steps, hours and hardware."""
    quality: dict[str, Any] = field(default_factory=dict)
    """Measured figures on each test set."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("prediction", ("noise", "v")),
            ("target", ("image", "residual")),
            ("coarse_levels", ("strided", "rebuilt")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}: use one of {allowed}")
        for name in ("scale", "image_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if not isinstance(self.residual_scale, (int, float)) or not self.residual_scale > 0:
            raise ValueError(f"residual_scale must be a number above 0, not {self.residual_scale!r}")
        if self.start is not None and (not isinstance(self.start, int) or self.start < 1):
            raise ValueError(f"start must be a level of at least 1 or null, not {self.start!r}")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Build a configuration from a dictionary in the form that :meth:`to_dict` returns.

        Raises:
            ValueError: if a field is unknown, missing or malformed; the message names it.
        """
        _check_fields(cls, data, "")
        unet, refiner = _unet(data["unet"], "unet."), data.get("refiner")
        if refiner is not None:
            _check_fields(RefinerConfig, refiner, "refiner.")
            refiner = RefinerConfig(**{**refiner, "unet": _unet(refiner["unet"], "refiner.unet.")})
            if not 0 <= refiner.strength <= 1:
                raise ValueError(f"refiner.strength must be from 0 to 1, not {refiner.strength!r}")
        restorer = data.get("restorer")
        if restorer is not None:
            _check_fields(RestorerConfig, restorer, "restorer.")
            try:
                restorer = RestorerConfig(**restorer)
            except ValueError as error:
                raise ValueError(f"restorer.{error}") from None
        NoiseSchedule.from_config(data["schedule"])
        return cls(**{**data, "unet": unet, "refiner": refiner, "restorer": restorer})

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as a dictionary that can be written as JSON."""
        return asdict(self)


OPTIONAL = {"start", "refiner", "restorer", "chain", "strength", "training", "quality"}
"""Fields that a configuration may lack; none of them affects what the diffusion network computes."""


def _unet(data: Any, prefix: str) -> UNetConfig:
    _check_fields(UNetConfig, data, prefix)
    plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
    return UNetConfig(**plain)


def _check_fields(cls: type, data: Any, prefix: str) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'the configuration'} must be an object, not {data!r}")
    names = {f.name for f in fields(cls)}
    for name in sorted(set(data) - names):
        raise ValueError(f"unknown field {prefix}{name!r}")
    for name in sorted(names - set(data) - OPTIONAL):
        raise ValueError(f"field {prefix}{name!r} is missing")


def bicubic_condition(lr: Tensor, scale: int) -> Tensor:
    """Enlarge LR images, uint8 (B, 3, h, w), to the condition c, float32
    (B, 3, h·scale, w·scale) in [-1, 1]."""
    height, width = (side * scale for side in lr.shape[-2:])
    return bicubic(to_signed(lr), height, width).clamp_(-1, 1)


def chain_target(image: Tensor, condition: Tensor, config: ModelConfig) -> Tensor:
    """Compute x_0 of the chain whose result is ``image``; all tensors are (B, 3, H, W)."""
    return image if config.target == "image" else (image - condition).mul_(config.residual_scale)


def chain_image(x0: Tensor, condition: Tensor, config: ModelConfig) -> Tensor:
    """Compute the image that corresponds to x_0 of the chain, the inverse of :func:`chain_target`."""
    return x0 if config.target == "image" else condition + x0 / config.residual_scale


def noise_scale(level: Tensor) -> Tensor:
    """Compute √(1 - ᾱ) for the level √ᾱ, in float64, since it is only 0.025 at t = 1."""
    return (1 - level.double().square()).sqrt().to(level.dtype)


def diffuse(x0: Tensor, level: Tensor, noise: Tensor) -> Tensor:
    """Compute x_t = √ᾱ x_0 + √(1 - ᾱ) ε, with the shape and type of ``x0``; ``level`` is √ᾱ,
    broadcastable."""
    signal, sigma = (x.to(x0.dtype) for x in (level, noise_scale(level)))
    return signal * x0 + sigma * noise


def x0_from_output(output: Tensor, latent: Tensor, level: Tensor, prediction: str) -> Tensor:
    """Compute x̂0, the estimate of the chain's target, from the network's output; ``level`` is √ᾱ,
    broadcastable."""
    noise = noise_scale(level)
    if prediction == "v":
        return level * latent - noise * output
    return (latent - noise * output) / level


def image_from_output(
    output: Tensor, latent: Tensor, condition: Tensor, level: Tensor, config: ModelConfig
) -> Tensor:
    """Compute x̂0 in image space, (B, 3, H, W), not clamped, from the network's output; ``level`` is √ᾱ
    (B,)."""
    x0 = x0_from_output(output.float(), latent, level[:, None, None, None], config.prediction)
    return chain_image(x0, condition, config)


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Refuse bfloat16 on a CPU without instructions for it, where it would be very slow or crash.

    Raises:
        SkipDiffError: if ``device`` cannot be used with ``dtype``.
    """
    if dtype != torch.bfloat16 or device.type != "cpu":
        return
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not (known.get("avx512_bf16") or known.get("amx_bf16")):
        raise SkipDiffError("bfloat16 needs CUDA or a processor with AVX512-BF16 or AMX: use float32")


class FrozenModel:
    """A trained network as a :class:`~.protocol.DiffusionModel`, in eval mode, without gradients,
    channels-last.

    Args:
        network: the network, (B, 6, H, W), (B,) → (B, 3, H, W).
        config: the configuration of the model folder.
        device: device on which the network runs.
        dtype: autocast type on the device; float32: no autocast.
        name: name of the model.
        hash: identity of the weights, for caches and provenance.
        folder: folder from which the model was loaded, or None.
        engine: library that runs the network; see :mod:`.engines`.
        restorer: network that restores LR before it is enlarged, or None; see :mod:`.restorer`.
    """

    def __init__(
        self,
        network: nn.Module,
        config: ModelConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str = "unnamed",
        hash: str = "",
        folder: Path | None = None,
        engine: str = TORCH,
        restorer: Restorer | None = None,
    ) -> None:
        self.config, self.name, self.hash, self.folder = config, name, hash, folder
        self.restorer = restorer
        self.device, self.dtype = torch.device(device), dtype
        self.schedule = NoiseSchedule.from_config(config.schedule)
        self.scale, self.image_size = config.scale, config.image_size
        self.start, self.chain, self.coarse_levels = config.start, config.chain, config.coarse_levels
        network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval().requires_grad_(False)
        self.engine = engine
        self.forward = run_by(engine, self.network, config.unet.multiple, self.device, dtype)

    def restored(self, lr: Tensor) -> Tensor:
        """Restore LR images, uint8 (B, 3, h, w), with the model's restorer; without one, return them as they
        are."""
        return self.restorer(lr) if self.restorer else lr

    def condition(self, lr: Tensor) -> Tensor:
        """Compute the condition c, float32 in [-1, 1], by restoring LR images, uint8 (B, 3, h, w), and
        enlarging the results bicubically by the scale."""
        return bicubic_condition(self.restored(lr).to(self.device), self.scale)

    def to_latent(self, image: Tensor, condition: Tensor) -> Tensor:
        """Compute x_0 of the chain for an image in [-1, 1]: the image, or k · (image - condition)."""
        return chain_target(image, condition, self.config)

    # no_grad, not inference_mode, since a user's own policy may differentiate through the result
    @torch.no_grad()
    def predict(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """Estimate x̂0 in image space, clamped to [-1, 1]; the shapes are those of
        :meth:`~.protocol.DiffusionModel.predict`."""
        return self.predict_unclamped(latent, condition, noise_level).clamp(-1, 1)

    @torch.no_grad()
    def predict_unclamped(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """Estimate x̂0 as :meth:`predict` does, but do not clamp it."""
        x = torch.cat([condition, latent], dim=1).contiguous(memory_format=torch.channels_last)
        autocast = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype) if autocast else nullcontext():
            output = self.forward(x, noise_level)
        return image_from_output(output, latent, condition, noise_level, self.config)

    def __deepcopy__(self, memo: Any) -> FrozenModel:
        """Return the model itself: it never changes, and Gymnasium often copies the arguments of
        environments."""
        return self

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.network.parameters())
        return (
            f"FrozenModel({self.name!r}, {self.scale}x, {weights / 1e6:.1f} M weights, "
            f"T = {self.schedule.steps}, {self.config.prediction}-prediction of the {self.config.target}, "
            f"on {self.device})"
        )


def tiny_config(scale: int = 4, image_size: int = 32, **changes: Any) -> ModelConfig:
    """Return the configuration of a network for trials, which has about 40,000 weights and runs in
    milliseconds."""
    unet = UNetConfig(
        channels=8, multipliers=(1, 2), res_blocks=1, norm_groups=4, dropout=0.0, attention_sizes=(),
        middle_attention=False, patch_size=2, image_size=image_size,
    )  # fmt: skip
    config = ModelConfig(scale=scale, image_size=image_size, unet=unet, prediction="v")
    return replace(config, **changes)


def random_model(
    config: ModelConfig | None = None, seed: int = 0, device: torch.device | str = "cpu"
) -> FrozenModel:
    """Create a model with random weights drawn from ``seed``; ``config`` is :func:`tiny_config` by
    default."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = config or tiny_config()
        network = UNet(config.unet)
    digest = hashlib.sha256(repr((seed, config)).encode()).hexdigest()[:16]
    return FrozenModel(network, config, device, name=f"random-{seed}", hash=digest)
