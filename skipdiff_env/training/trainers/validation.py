"""Measures a model in training on validation images: loss under fixed noise, and samples with their scores.

Noise, levels and LR faults are the same in every validation, so that differences between two validations are
due to the weights alone. LPIPS and NIQE come from :mod:`skipdiff_env.metrics`, which may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ...chains import CSA, Chain, parse_skipdiff
from ...diffusion.degradations import degrade_batch, draw_seeds
from ...diffusion.model import FrozenModel, bicubic_condition
from ...diffusion.noise import NoiseKey, image_key
from ...diffusion.resize import degrade, to_arrays, to_planes, to_signed, to_uint8
from ...errors import SkipDiffError
from ...metrics.fidelity import psnr_y
from ...policies.base import COARSE_STEPS, usual_start
from ..recipe import Recipe
from .loss import diffusion_loss, draw_levels

LEVELS = 4
"""Number of noise levels per image in the validation loss."""


class Validation:
    """Measures models on a few images, which are centre-cropped to the same size.

    Args:
        recipe: recipe, which gives the scale, LR faults, loss and number of images.
        images: uint8 (H, W, 3), the first ``recipe.validation.images`` of which are used. Images smaller than
            those that the model is meant for are used only if there are no others, since all are cropped to
            the size of the smallest.
        device: device on which to compute.
        say: function that is called with a message about images or metrics that are left out.
    """

    def __init__(
        self, recipe: Recipe, images: Sequence[np.ndarray], device: torch.device, say: Callable[[str], None]
    ) -> None:
        self.recipe = recipe
        images, side = _of_one_size(images, recipe.model.image_size, recipe.model.scale, say)
        images = images[: recipe.validation.images]
        self.hr = np.stack([_centre(image, side) for image in images])
        self._hr = to_planes(self.hr).to(device)
        self._clean = degrade(self._hr, recipe.model.scale)
        self._lr = self._spoiled(self._clean)
        self.keys = [NoiseKey(image_key(to_arrays(lr[None])[0]), 0) for lr in self._lr]
        self.metrics = _load_metrics(recipe.validation.metrics, self.hr[:1], device, say)

    def _spoiled(self, lr: Tensor) -> Tensor:
        if self.recipe.degradation is None:
            return lr
        seeds = draw_seeds(len(lr), torch.Generator().manual_seed(0))
        return degrade_batch(lr, self.recipe.degradation, seeds)

    @torch.no_grad()
    def loss(self, model: FrozenModel) -> float:
        """Compute Eq. 7 at fixed levels under fixed noise."""
        loss, draws, total = self.recipe.loss, torch.Generator().manual_seed(0), 0.0
        for image, lr in zip(self._hr, self._lr, strict=True):
            condition = model.condition(lr[None]).expand(LEVELS, -1, -1, -1)
            target = model.to_latent(to_signed(image[None]), condition)
            level = draw_levels(model.schedule, LEVELS, draws).to(model.device)
            noise = torch.randn(target.shape, generator=draws).to(model.device)
            with torch.autocast(model.device.type, model.dtype, model.dtype != torch.float32):
                value = diffusion_loss(
                    model.network, model.config, target, condition, level, noise, loss.norm, loss.min_snr
                )
            total += value.item()
        return total / len(self.hr)

    def restoring(self, restore: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Compute the mean error of restored LR, in [-1, 1], and its ratio to the error before."""
        clean = to_signed(self._clean)
        before, after = ((to_signed(lr) - clean).abs().mean().item() for lr in (self._lr, restore(self._lr)))
        return {"val_loss": after, "val_left": after / max(before, 1e-6)}

    def samples(
        self, model: FrozenModel, chains: Mapping[str, Chain], count: int | None = None
    ) -> dict[str, np.ndarray]:
        """Draw samples, uint8 (B, H, W, 3), by the name of their chain; ``bicubic`` is the plain enlargement.

        Args:
            model: model to sample from.
            chains: chains to run, by name.
            count: number of images to use, beginning with the first; None: all.
        """
        condition = model.condition(self._lr[:count])
        plain = bicubic_condition(self._lr[:count], model.scale)
        made = {name: chain(model, condition, self.keys[:count]).x0 for name, chain in chains.items()}
        return {name: to_arrays(to_uint8(x0)) for name, x0 in {"bicubic": plain, **made}.items()}

    def figures(self, pictures: dict[str, np.ndarray]) -> dict[str, float]:
        """Compute mean scores, named ``psnr/coarse`` and so on; what cannot be computed is left out."""
        found = {}
        for name, images in pictures.items():
            scores = {"psnr": psnr_y(images, self.hr)}
            for metric in self.metrics:
                scores[metric.name] = metric(images, self.hr if metric.reference else None)
            for metric_name, values in scores.items():
                if np.isfinite(values).any():
                    found[f"{metric_name}/{name}"] = float(values[np.isfinite(values)].mean())
        return found


def usual_chains(model: FrozenModel) -> dict[str, Chain]:
    """Return ``coarse``, CSA alone with 10 coarse steps, and ``skip``, SkipDiff from the paper's start;
    neither if 10 does not divide the number of the schedule's steps.

    They are the same for all models, so that the figures of two training runs can be compared.
    """
    if model.schedule.steps % COARSE_STEPS:
        return {}
    start = usual_start(model.schedule, COARSE_STEPS)
    return {"coarse": CSA(COARSE_STEPS), "skip": parse_skipdiff(start, model, COARSE_STEPS)}


def _load_metrics(
    names: Sequence[str], image: np.ndarray, device: torch.device, say: Callable[[str], None]
) -> list:
    """Return the metrics that are available and can score pictures such as ``image`` (1, H, W, 3)."""
    if not names:
        return []
    try:
        from skipdiff_env.metrics import load_metric

        found = [load_metric(name, device) for name in names]
        usable = [metric for metric in found if metric.min_size <= image.shape[1]]
        for metric in usable:  # loads what the metric needs, or says what is missing
            metric(image, image if metric.reference else None)
    except (ImportError, SkipDiffError) as error:
        say(f"validation measures PSNR only, without {' and '.join(names)}: {error}")
        return []
    for metric in found:
        if metric not in usable:
            say(f"validation goes without {metric.name}: it needs {metric.min_size} pixels per side")
    return usable


def _of_one_size(
    images: Sequence[np.ndarray], wanted: int, scale: int, say: Callable[[str], None]
) -> tuple[Sequence[np.ndarray], int]:
    """Return the images that can be cropped to ``wanted`` pixels, or all if none can, and their new side."""
    wanted -= wanted % scale
    large = [image for image in images if min(image.shape[:2]) >= wanted]
    if not large:
        side = min(min(image.shape[:2]) for image in images)
        side -= side % scale
        say(f"validation images have {side} pixels per side: none has {wanted}")
        return images, side
    if len(large) < len(images):
        few = len(images) - len(large)
        say(f"validation images left out because a side is below {wanted} pixels: {few}")
    return large, wanted


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]
