"""Draws samples and latents (Figure 6), only of photographs that may be shown freely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from skipdiff_env.diffusion import FrozenModel, NoiseKey, SkipProcess, SkipState, image_key
from skipdiff_env.diffusion.resize import to_arrays
from skipdiff_env.images import BUNDLED_IMAGE_SIZE, ImageSource, bundled_images, make_pair
from skipdiff_env.upscale.compare import side_by_side

from ..measure.drawing import new_figure, save_picture
from ..measure.sampler import Sampler, conditions_of
from .portraits import portraits
from .published import FACES_SCALE

SHOWN = 4
"""Number of bundled photographs that fit on a page."""


def photographs(model: FrozenModel) -> ImageSource:
    """Return the photographs for a model's pictures: bundled ones or, for a model of faces, portraits."""
    return portraits(model.image_size) if model.scale == FACES_SCALE else bundled_images().take(SHOWN)


def draw_samples(
    path: Path,
    model: FrozenModel,
    samplers: Sequence[Sampler],
    about: str,
    source: ImageSource,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Draw a row for each photograph: the input, the result of every sampler, and the original.

    Args:
        path: WebP file.
        model: model whose scale shrinks the photographs.
        samplers: the samplers to show.
        about: what the picture was made from, see :func:`.made_of`.
        source: the photographs, see :func:`photographs`.
        labels: shorter names of samplers whose own names are too long.
    """
    size = _side(source, model)
    rows = []
    for index in range(len(source)):
        pair = make_pair(source, index, scale=model.scale, image_size=size)
        assert pair.hr is not None
        blocks = np.repeat(np.repeat(pair.lr, model.scale, 0), model.scale, 1)
        made = [((labels or {}).get(s.key, s.label), s.one(pair.lr, 0).image) for s in samplers]
        rows.append(side_by_side([("input", blocks), *made, ("original", pair.hr)]))
    save_picture(np.concatenate(rows), path, about)


def draw_latents(path: Path, model: FrozenModel, about: str, source: ImageSource) -> None:
    """Draw Figure 6: latents of the full chain and of CSA (S = 10) at the same levels, with their x̂0."""
    top = model.schedule.steps
    pair = make_pair(source, min(1, len(source) - 1), scale=model.scale, image_size=_side(source, model))
    condition = conditions_of(model, [pair.lr])
    keys = [NoiseKey(image_key(pair.lr), 0)]
    full, coarse = (_states(SkipProcess(model, s), condition, keys) for s in (top, 10))
    figure = new_figure(1.35 * len(coarse), 6.1)
    axes = figure.subplots(4, len(coarse), squeeze=False)
    for column, level in enumerate(sorted(coarse, reverse=True)):
        both = full[level], coarse[level]
        far = float((both[0].x0 - both[1].x0).square().mean().sqrt())
        shown = [state.latent / 2 for state in both] + [state.x0 for state in both]
        for place, signed in zip(axes[:, column], shown, strict=True):
            place.imshow(np.clip(to_arrays(signed)[0] / 2 + 0.5, 0, 1))
            place.set_xticks([])
            place.set_yticks([])
        axes[0, column].set_title(f"t = {level}", size=8)
        axes[3, column].set_xlabel(f"RMS of x̂0s {far:.3f}", size=7)
    for place, name in zip(
        axes[:, 0], ("latent, full", "latent, coarse", "x̂0, full", "x̂0, coarse"), strict=True
    ):
        place.set_ylabel(name, size=8)
    save_picture(figure, path, about)


def _side(source: ImageSource, model: FrozenModel) -> int:
    """Return the side of the squares that are shown, in pixels."""
    side = min(BUNDLED_IMAGE_SIZE, *source[0].shape[:2])
    return side - side % model.scale


def _states(process: SkipProcess, condition: torch.Tensor, keys: list[NoiseKey]) -> dict[int, SkipState]:
    """Return the states by level, at the levels that CSA with 10 steps reaches."""
    found: dict[int, SkipState] = {}
    stride = process.schedule.steps // 10

    def visited(state: SkipState) -> None:
        level = int(state.level[0])
        if level % stride == 0:
            found[level] = state

    process.start(condition, keys, visited)
    return found
