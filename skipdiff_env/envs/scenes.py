"""The pictures of a batch of episodes on one device: choosing them, and scoring the results.

:class:`Scenes` combines an image source, a frozen model and a metric. How a picture is made, by decisions
about fine steps or about every network call, is left to :mod:`.episodes` and :mod:`.call_episodes`. An
episode is determined by its image and its noise seed: they fix the crop, every noise draw and therefore,
given the actions, the result.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..diffusion import DiffusionModel, NoiseKey, as_model, image_key, load_pretrained
from ..diffusion.resize import to_planes
from ..errors import SkipDiffError
from ..images import BUNDLED_IMAGE_SIZE, Pair, episode_pair, make_pair, open_source
from ..metrics import Results, load_metric, psnr_y, ssim_y
from .books import OUTCOME, Ledger, draw_price
from .options import SceneOptions

NOISE_SEEDS = 2**32
"""Number of noise seeds that ``noise="fresh"`` draws from."""

RESET = ("image", "noise_seed", "step_cost")
"""The options that a reset accepts."""

_CHECKED_IMAGES = 32
"""Maximum number of images that are decoded when an environment is made, to refuse those that are too
small."""

Observation = dict[str, Tensor] | Tensor


class Opening(NamedTuple):
    """What new episodes begin with, one entry per row."""

    image: list[int]
    noise_seed: list[int]
    price: list[float]
    pairs: list[Pair]
    condition: Tensor
    """c, (B, 3, H, W)."""
    keys: list[NoiseKey]


class Cell(NamedTuple):
    """A decision as it is rendered."""

    inside: str
    below: str
    skips: bool | None
    """None for a decision that is still to come."""


class Scenes(ABC):
    """``count`` parallel episodes in one batch; rows may be at different levels.

    Args:
        count: number of rows.
        options: the arguments of the environment.

    Attributes:
        source, model, metric: the images, the model and the metric that the options specify.
        image_size: side of the SR images in pixels.
        pairs: the images of each row; empty before the first :meth:`begin`, which must begin all rows.
        books: the ledger of the rows, which gives their infos.
        state: the state of the process, one entry per row.
        observation_space, action_space: the spaces of one row.
        longest: maximum number of decisions in an episode.
    """

    state: Any
    books: Ledger
    observation_space: spaces.Space[Any]
    action_space: spaces.Discrete
    longest: int

    def __init__(self, count: int, options: SceneOptions) -> None:
        self.count, self.options = count, options
        self._load()
        self.source = open_source(options.images, low_resolution=options.low_resolution)
        own = BUNDLED_IMAGE_SIZE if options.images is None else self.model.image_size
        self.image_size = self._checked_size(own if options.image_size is None else options.image_size)
        self.pairs: list[Pair] = []

    @abstractmethod
    def begin(
        self,
        rows: Sequence[int] | np.ndarray,
        rngs: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Start new episodes in ``rows``.

        Args:
            rows: the rows, in ascending order.
            rngs: one random generator for each of ``rows``.
            options: ``image`` and ``noise_seed``, integers, and ``step_cost``, a number; each one value for
                all rows, or one for every row of the whole batch.

        Raises:
            SkipDiffError: for an unknown option, one out of range, or an image that is too small.
        """

    @abstractmethod
    def step(
        self, rows: Sequence[int] | np.ndarray, actions: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take a decision in each of ``rows``.

        Returns:
            The rewards, float64, and whether the episodes are over, bool, both (len(rows),).
        """

    @abstractmethod
    def observe(self) -> Observation:
        """Return the observations of all rows, on the device, in new memory."""

    @abstractmethod
    def cells(self, row: int) -> list[Cell]:
        """Return the decisions of a row as they are rendered; their number is the same for every row at any
        time."""

    @abstractmethod
    def _load_process(self) -> None:
        """Create the process that drives the model; like the model, it is not pickled."""

    def _load(self) -> None:
        """Load everything that is shared between environments and not pickled with them."""
        model, device = self.options.model, self.options.device
        if isinstance(model, (str, os.PathLike)):
            self.model: DiffusionModel = load_pretrained(model, device)
        else:
            self.model = as_model(model)
            own, asked = self.model.device, torch.device("cpu" if device == "auto" else device)
            other = asked.type != own.type or (asked.index is not None and asked.index != (own.index or 0))
            if device != "auto" and other:
                raise SkipDiffError(
                    f"the model is on {own}, not on {device}: move it there, or leave device='auto'"
                )
        self.device = self.model.device
        self._load_process()
        self.metric = load_metric(self.options.metric, self.device)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("model", "process", "metric")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()

    def _checked_size(self, size: int | None) -> int:
        """Return ``size`` if it suits the images, the model and the metric; raise an error otherwise."""
        if size is None:
            raise SkipDiffError("this model has no image_size of its own: give image_size= in pixels")
        if self.metric.reference and self.source.low_resolution:
            raise SkipDiffError(
                f"metric {self.metric.name!r} needs the originals, but low_resolution=True says that "
                "there are none: use a no-reference metric such as 'niqe'"
            )
        for metric in [self.metric] + ([] if self.source.low_resolution else [load_metric("ssim")]):
            if size < metric.min_size:
                raise SkipDiffError(
                    f"metric {metric.name!r} needs images of side {metric.min_size} or more, but "
                    f"image_size is {size}: give a larger image_size= or another metric="
                )
        for index in range(min(len(self.source), _CHECKED_IMAGES)):
            make_pair(self.source, index, scale=self.model.scale, image_size=size)
        return size

    def _opening(
        self,
        rows: Sequence[int] | np.ndarray,
        rngs: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None,
    ) -> Opening:
        """Choose the images, noise seeds and prices of new episodes, and open their pictures."""
        images, seeds, prices = self._chosen(rows, rngs, options)
        pairs = [self._pair(image, seed) for image, seed in zip(images, seeds, strict=True)]
        lr = to_planes(np.stack([pair.lr for pair in pairs])).contiguous().to(self.device)
        keys = [NoiseKey(image_key(pair.lr), seed) for pair, seed in zip(pairs, seeds, strict=True)]
        return Opening(images, seeds, prices, pairs, self.model.condition(lr), keys)

    def _chosen(
        self,
        rows: Sequence[int] | np.ndarray,
        rngs: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None,
    ) -> list[list[Any]]:
        """Choose the images, noise seeds and prices of new episodes, a list (len(rows),) each."""
        given = self._read_options(options)
        # Drawn whatever the options say: an option must not shift what later episodes draw.
        chosen = [
            self._draw(rng) | {name: values[row] for name, values in given.items()}
            for row, rng in zip(rows, rngs, strict=True)
        ]
        return [[each[name] for each in chosen] for name in RESET]

    def _checked(self, actions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return actions as an array of integers; raise an error if one is not in the action space."""
        array, most = np.asarray(actions), int(self.action_space.n) - 1
        if not (np.issubdtype(array.dtype, np.integer) and 0 <= array.min() <= array.max() <= most):
            raise SkipDiffError(f"actions must be integers from 0 to {most}, got {array!r}")
        return array

    def _put(self, rows: Sequence[int] | np.ndarray, state: Any, pairs: Sequence[Pair]) -> None:
        """Put new episodes into ``rows``."""
        if len(rows) == self.count:
            self.state, self.pairs = state, list(pairs)
            return
        self.state = self.state.replace(rows, state)
        for row, pair in zip(rows, pairs, strict=True):
            self.pairs[row] = pair

    def _draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the image, the noise seed and the price of an episode."""
        image, noise_seed = int(rng.integers(len(self.source))), int(rng.integers(NOISE_SEEDS))
        noise_seed = 0 if self.options.noise == "fixed" else noise_seed
        return {
            "image": image,
            "noise_seed": noise_seed,
            "step_cost": draw_price(self.options.step_cost, rng),
        }

    def _read_options(self, options: Mapping[str, Any] | None) -> dict[str, list[Any]]:
        limits = {"image": len(self.source), "noise_seed": 2**63}
        unknown = sorted(set(options or {}) - {*RESET})
        if unknown:
            raise SkipDiffError(
                f"unknown reset option {unknown[0]!r}: use 'image', 'noise_seed' or 'step_cost'"
            )
        given: dict[str, list[Any]] = {}
        for name, value in (options or {}).items():
            array = np.asarray(value)
            if name == "step_cost":
                given[name] = self._given_step_costs(array)
                continue
            if array.dtype.kind not in "iu" or array.shape not in ((), (self.count,)):
                raise SkipDiffError(
                    f"reset option {name}={value!r} must be an integer, or one for each environment"
                )
            given[name] = np.broadcast_to(array, self.count).tolist()
            if array.min() < 0 or int(array.max()) >= limits[name]:
                raise SkipDiffError(f"reset option {name}={value!r} must be from 0 to {limits[name] - 1}")
        return given

    def _given_step_costs(self, costs: np.ndarray) -> list[float]:
        low, high = self.options.step_cost if isinstance(self.options.step_cost, tuple) else (0.0, math.inf)
        if costs.dtype.kind not in "iuf" or costs.shape not in ((), (self.count,)):
            raise SkipDiffError("reset option step_cost must be a number, or one for each environment")
        if not (np.isfinite(costs).all() and low <= costs.min() and costs.max() <= high):
            bounds = f"from {low} to {high}" if high < math.inf else "finite, and 0 or more"
            raise SkipDiffError(f"reset option step_cost={costs.tolist()} must be {bounds}")
        return np.broadcast_to(costs, self.count).astype(np.float64).tolist()

    def _pair(self, image: int, noise_seed: int) -> Pair:
        return episode_pair(
            self.source, image, noise_seed, scale=self.model.scale, image_size=self.image_size,
            crop=self.options.crop,
        )  # fmt: skip

    def _results(self, rows: np.ndarray) -> tuple[Results, np.ndarray | None]:
        """Return the newest x̂0 of ``rows`` and, if there are any, their originals, uint8 (B, H, W, 3)."""
        x0 = self.state.x0[torch.as_tensor(rows, device=self.device)]
        originals = [hr for row in rows if (hr := self.pairs[row].hr) is not None]
        return Results.of(x0), np.stack(originals) if originals else None

    def _fidelity(self, images: np.ndarray, references: np.ndarray | None) -> dict[str, np.ndarray]:
        """Compute ``psnr`` and ``ssim``, each (B,); NaN without originals."""
        if references is None:
            return {name: np.full(len(images), np.nan) for name in ("psnr", "ssim")}
        return {"psnr": psnr_y(images, references), "ssim": ssim_y(images, references)}

    def _outcome(self) -> dict[str, Any]:
        """Return the info keys whose values are known only at the end of an episode, with placeholders until
        then."""
        blank = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        return {**OUTCOME, **({"sr_image": blank} if self.options.return_image else {})}

    def _lr(self) -> Tensor:
        """Return the LR images of all rows, float32 (B, 3, h, w) in [0, 1]."""
        arrays = np.stack([pair.lr for pair in self.pairs])
        return to_planes(arrays).contiguous().to(self.device).float() / 255

    @property
    def begun(self) -> bool:
        """Whether every row has an episode."""
        return bool(self.pairs)

    def finished(self, row: int) -> bool:
        """Return whether the episode of a row is over or has not begun yet."""
        return not self.begun or bool(self.state.level[row] == 0)

    def picture(self, row: int) -> np.ndarray:
        """Return the newest x̂0 of a row as the 8-bit image that would be saved, uint8 (H, W, 3)."""
        return Results.of(self.state.x0[row : row + 1]).images[0]
