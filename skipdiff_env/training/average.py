"""Averages the weights of two models into one network.

Two training runs from the same weights usually end in the same region of low loss, and points on the line
between them are often better than either end (Wortsman et al. 2022, model soups). Between a faithful and a
sharp network, the line trades faithfulness for sharpness (Wang et al. 2018, ESRGAN, §3.4). Validation
pictures decide which share is best.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..diffusion.folder import empty_network, fill, fresh_folder, save_model
from ..diffusion.model import OPTIONAL, FrozenModel
from ..diffusion.pretrained import load_pretrained
from ..diffusion.unet import UNet
from ..errors import SkipDiffError
from .provenance import earlier_legs, summary


def average_models(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    share: float,
    folder: str | os.PathLike[str],
) -> Path:
    """Write the model with weights (1 - share) · first + share · second.

    Args:
        first: name of a shipped model, or a model folder.
        second: another model of the same architecture, schedule and target.
        share: weight of the second model, in [0, 1].
        folder: folder of the new model, which is made if it is missing; one that holds a model is refused.

    Returns:
        The folder. Its configuration has no start for FSR: choose one on validation pictures.

    Raises:
        SkipDiffError: for a share outside [0, 1], models that differ in more than their weights, or a
            folder that holds a model.
    """
    if not 0 <= share <= 1:
        raise SkipDiffError(f"the second model's share must be from 0 to 1, not {share:g}")
    target = fresh_folder(folder)
    ours, theirs = (load_pretrained(source, "cpu") for source in (first, second))
    _check_alike(ours, theirs)
    others = theirs.network.state_dict()
    weights = {key: w.lerp(others[key], share) for key, w in ours.network.state_dict().items()}
    record = {
        **summary(_joined(earlier_legs(ours), earlier_legs(theirs))),
        "average": [
            {"model": model.name, "hash": model.hash, "share": part}
            for model, part in ((ours, round(1 - share, 6)), (theirs, share))
        ],
    }
    config = replace(ours.config, start=None, refiner=None, training=record, quality={})
    network = empty_network(config, str(first))
    fill(network, weights, str(first))
    return save_model(target, network, config, restorer=ours.restorer)


def _check_alike(ours: FrozenModel, theirs: FrozenModel) -> None:
    for model in (ours, theirs):
        if not isinstance(model.network, UNet):
            raise SkipDiffError(
                f"{model.name} is not a network of SkipDiff, but a {type(model.network).__name__}: only "
                "SkipDiff's own can be averaged"
            )
    mine, other = ours.config.to_dict(), theirs.config.to_dict()
    for key in sorted(set(mine) - OPTIONAL):
        if mine[key] != other[key]:
            raise SkipDiffError(
                f"{ours.name} and {theirs.name} cannot be averaged, since they differ in {key}: "
                f"{mine[key]!r} and {other[key]!r}"
            )
    if (ours.restorer and ours.restorer.hash) != (theirs.restorer and theirs.restorer.hash):
        raise SkipDiffError(f"{ours.name} and {theirs.name} cannot be averaged: their restorers differ")


def _joined(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the legs of both; common ones are listed once, so that their hours count once."""
    return [*first, *(leg for leg in second if leg not in first)]
