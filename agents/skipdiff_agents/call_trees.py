"""All chains that SkipDiff-v1 can run on a picture under ``actions="jump"``, computed once for later lookups.

A *node* is a latent that calls can reach, with the network's estimate x̂0 for it: the chain may end on x̂0,
or continue from the latent. With the same levels and budget, node i is reached by the same calls for every
picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipdiff_env.chains import Plan
from skipdiff_env.diffusion import Call, CallProcess, CallState, NoiseKey, image_key
from skipdiff_env.diffusion.calls import checked_levels
from skipdiff_env.diffusion.protocol import DiffusionModel
from skipdiff_env.diffusion.resize import to_planes
from skipdiff_env.files import write_atomically
from skipdiff_env.images import Pair
from skipdiff_env.metrics import Results, load_metric, or_zero
from skipdiff_env.policies.file import as_seen


@dataclass(frozen=True)
class Shape:
    """The structure that all trees with the same levels and budget share.

    Args:
        top: T.
        levels: levels that calls may lead to; 0 is added if it is missing.
        budget: maximum number of network calls in a chain.
    """

    top: int
    levels: tuple[float, ...]
    budget: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(checked_levels(self.levels, self.top)))

    @cached_property
    def paths(self) -> list[tuple[float, ...]]:
        """The levels reached on the way to each node, beginning with T. Nodes that take fewer calls come
        first."""
        newest: list[tuple[float, ...]] = [(float(self.top),)]
        found = [*newest]
        for _ in range(self.budget - 1):
            newest = [(*path, u) for path in newest for u in self.levels[:-1] if u < path[-1]]
            found += newest
        return found

    @property
    def child(self) -> NDArray[np.int64]:
        """The node that a call from each node to each level leads to, (nodes, levels); -1 if it ends the
        chain or is not allowed."""
        paths = self.paths
        number = {path: i for i, path in enumerate(paths)}
        return np.array([[number.get((*path, u), -1) for u in self.levels] for path in paths], np.int64)

    @property
    def spent(self) -> NDArray[np.int64]:
        """Number of network calls of the chain that ends on each node, (nodes,)."""
        return np.array([len(path) for path in self.paths])

    def plan(self, node: int) -> Plan:
        """Return the chain that ends on a node."""
        path = (*self.paths[node], 0.0)
        return Plan(self.top, tuple(Call(a, b) for a, b in zip(path, path[1:], strict=False)))


@dataclass(frozen=True)
class CallTree:
    """The nodes of a picture under one noise seed."""

    condition: NDArray[np.float16]
    """c, (3, n, n); like all pictures and latents here, it is resized to the side that agents see."""
    latents: NDArray[np.float16]
    """The latent of each node, (nodes, 3, n, n)."""
    x0: NDArray[np.float16]
    """The x̂0 of each node, (nodes, 3, n, n)."""
    scores: NDArray[np.float64]
    """Scores of the chain that ends on each x̂0, (nodes, metrics)."""


def record_tree(
    model: DiffusionModel, pair: Pair, noise_seed: int, shape: Shape, metrics: Sequence[str], size: int
) -> CallTree:
    """Run every chain on a picture, with one network call for each node.

    Args:
        model: the frozen model.
        pair: the HR and the LR picture.
        noise_seed: seed of all noise.
        shape: the levels and the budget.
        metrics: names of the metrics that score x̂0 against HR.
        size: n, side in pixels of what agents see.
    """
    process = CallProcess(model)
    condition = process.model.condition(to_planes(pair.lr))
    state = process.start(condition, [NoiseKey(image_key(pair.lr), noise_seed)])
    latents, estimates, scores = [], [], []
    for depth in range(shape.budget):
        x0 = torch.cat([process.predict(part, part.level) for part in _parts(state)])
        latents.append(_small(state.latent, size))
        estimates.append(_small(x0, size))
        scores.append(_judged(x0, pair, metrics))
        if depth < shape.budget - 1:
            moves = [(i, u) for i, t in enumerate(state.level) for u in shape.levels[:-1] if u < t]
            rows, to = (np.array(column) for column in zip(*moves, strict=True))
            state = process.call(state.select(rows), state.level[rows], to, x0=x0[rows.tolist()])
    seen = np.concatenate(latents), np.concatenate(estimates)
    return CallTree(_small(condition, size)[0], *seen, np.concatenate(scores))


def judged_plans(
    model: DiffusionModel, pair: Pair, noise_seed: int, plans: Sequence[Plan], metrics: Sequence[str]
) -> NDArray[np.float64]:
    """Score plans on a picture, (plans, metrics); arguments as in :func:`record_tree`."""
    condition = model.condition(to_planes(pair.lr))
    keys = [NoiseKey(image_key(pair.lr), noise_seed)]
    scores = [_judged(plan(model, condition, keys).x0, pair, metrics) for plan in plans]
    return np.concatenate(scores) if scores else np.zeros((0, len(metrics)))


def load_or_record(file: Path, **arguments: Any) -> CallTree:
    """Load the tree in a file, or record it if the file is missing; arguments as in :func:`record_tree`."""
    if file.is_file():
        with np.load(file) as stored:
            return CallTree(**stored)
    tree, content = record_tree(**arguments), BytesIO()
    np.savez(content, **{field.name: getattr(tree, field.name) for field in fields(tree)})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content.getvalue())
    return tree


def worth(
    scores: NDArray[np.float64], metrics: Sequence[str], weights: dict[str, float]
) -> NDArray[np.float64]:
    """Return -Σ w ln M of scores (..., metrics), as in the rewards of SkipDiff-v1 with ``metric=weights``.

    It is 0 where a metric cannot be computed.
    """
    total = np.zeros(scores.shape[:-1])
    for name, weight in weights.items():
        total += weight * load_metric(name).worth(scores[..., metrics.index(name)])
    return or_zero(total)


def _parts(state: CallState, rows: int = 16) -> list[CallState]:
    return [state.select(np.arange(len(state))[i : i + rows]) for i in range(0, len(state), rows)]


def _small(planes: Tensor, size: int) -> NDArray[np.float16]:
    return as_seen(planes, size).cpu().numpy().astype(np.float16)


def _judged(x0: Tensor, pair: Pair, metrics: Sequence[str]) -> NDArray[np.float64]:
    results = Results.of(x0)
    originals = np.stack([pair.hr] * len(x0)) if pair.hr is not None else None
    return np.stack([results.scores(load_metric(name), originals) for name in metrics], axis=1)
