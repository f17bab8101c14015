"""A batch of SkipDiff episodes on one device: the machine that both environments drive.

It joins an image source, the diffusion process and a metric; what is Gymnasium's (auto-reset, NumPy
or tensors, rendering) is left to the environments, and what is counted and told to the books. An episode is
determined by its image and its noise seed: they fix the crop, every noise draw and so, given the actions,
the result.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diffusion import (
    DiffusionModel,
    NoiseKey,
    SkipProcess,
    SkipState,
    as_model,
    image_key,
    load_pretrained,
    to_uint8,
)
from ..diffusion.refiner import resolve_refiner
from ..diffusion.resize import to_arrays, to_planes
from ..errors import SkipDiffError
from ..images import BUNDLED_IMAGE_SIZE, Pair, make_pair, open_source
from ..latent_cache import CachedProcess
from ..metrics import load_metric, psnr_y, ssim_y
from ..policies.file import as_seen
from .books import OUTCOME, Books, draw_price
from .observing import observation_space
from .options import Options

NOISE_SEEDS = 2**32
"""How many noise seeds ``noise="fresh"`` draws from."""

RESET = ("image", "noise_seed", "step_cost")
"""What a reset may be told of an episode."""

_CHECKED_IMAGES = 32
"""How many images are decoded when an environment is made, to refuse those that are too small."""

Observation = dict[str, Tensor] | Tensor


class Episodes:
    """``count`` episodes side by side, all in one batch; rows may be at different levels.

    Args:
        count: number of rows.
        options: the arguments of the environment.

    Attributes:
        observation_space: of one row.
        source, model, process, metric: what the options stand for.
        image_size: side of the SR images, pixels.
        pairs: the images of each row, none before the first :meth:`begin`, which must begin all of them.
        books: what each row has done, and what is told of it.
        state: the process's state, one row each.
    """

    state: SkipState

    def __init__(self, count: int, options: Options) -> None:
        self.count, self.options = count, options
        self._load()
        if self.process.decisions < 1:
            raise SkipDiffError(
                f"fine_steps={self.process.fine_steps} leaves nothing to decide (an episode has "
                "fine_steps - 1 decisions): give fine_steps=2 or more"
            )
        self.source = open_source(options.images, low_resolution=options.low_resolution)
        own = BUNDLED_IMAGE_SIZE if options.images is None else self.model.image_size
        self.image_size = self._checked_size(own if options.image_size is None else options.image_size)
        self.observation_space = observation_space(
            options,
            options.observation_size or self.image_size,
            self.process.fine_steps,
            self.image_size // self.model.scale,
        )
        outcome = dict(OUTCOME)
        if options.return_image:
            outcome["sr_image"] = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        self.books = Books(count, self.process.coarse_steps, self.process.decisions, outcome)
        self.pairs: list[Pair] = []

    def _load(self) -> None:
        """Everything that is shared between environments and not pickled with them."""
        options, model, device = self.options, self.options.model, self.options.device
        if isinstance(model, (str, os.PathLike)):
            self.model: DiffusionModel = load_pretrained(model, device)
        else:
            self.model = as_model(model)
            own = self.model.device
            if device != "auto" and torch.device(device).type != own.type:
                raise SkipDiffError(
                    f"the model lies on {own}, not on {device}: move it there, or leave device='auto'"
                )
        self.device = self.model.device
        settings = (self.model, options.coarse_steps, options.fine_steps, options.skip_rule)
        refine = resolve_refiner(options.refiner, self.model)
        self.process = SkipProcess(*settings, refine=refine)
        if options.cache is not None:
            self.process = CachedProcess(*settings, cache=options.cache, refine=refine)
        self.metric = load_metric(options.metric, self.device)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("model", "process", "metric")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()

    def _checked_size(self, size: int | None) -> int:
        """``size``, if the images, the model and the metric can all live with it."""
        if size is None:
            raise SkipDiffError("this model names no image_size of its own: give image_size= (pixels)")
        if self.metric.reference and self.source.low_resolution:
            raise SkipDiffError(
                f"metric {self.metric.name!r} compares with the original, but low_resolution=True says that "
                "there is none: use a no-reference metric such as 'niqe'"
            )
        for metric in [self.metric] + ([] if self.source.low_resolution else [load_metric("ssim")]):
            if size < metric.min_size:
                raise SkipDiffError(
                    f"metric {metric.name!r} needs images of at least {metric.min_size} pixels, but "
                    f"image_size is {size}: give a larger image_size= or another metric="
                )
        for index in range(min(len(self.source), _CHECKED_IMAGES)):
            make_pair(self.source, index, scale=self.model.scale, image_size=size)
        return size

    def begin(
        self,
        rows: Sequence[int] | np.ndarray,
        rngs: Sequence[np.random.Generator],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Start new episodes in ``rows``: choose image and noise, run CSA (S - 1 network calls).

        Args:
            rows: which rows, in rising order.
            rngs: one generator for each of them.
            options: ``image`` and ``noise_seed``, each an integer for all rows or one for every row of
                the whole batch; and ``step_cost``, a number likewise.

        Raises:
            SkipDiffError: for an unknown option, one out of range, or an image that is too small.
        """
        given = self._read_options(options)
        # Drawn whatever the options say: an option must not shift what later episodes draw.
        chosen = [
            self._draw(rng) | {name: values[row] for name, values in given.items()}
            for row, rng in zip(rows, rngs, strict=True)
        ]
        images, seeds, prices = ([each[name] for each in chosen] for name in RESET)
        fresh = [self._pair(image, seed) for image, seed in zip(images, seeds, strict=True)]
        lr = to_planes(np.stack([pair.lr for pair in fresh])).contiguous().to(self.device)
        keys = [NoiseKey(image_key(pair.lr), seed) for pair, seed in zip(fresh, seeds, strict=True)]
        state = self.process.start(self.model.condition(lr), keys)
        if len(rows) == self.count:
            self.state, self.pairs = state, fresh
        else:
            self.state = self.state.replace(rows, state)
            for row, pair in zip(rows, fresh, strict=True):
                self.pairs[row] = pair
        self.books.begin(rows, images, seeds, prices)

    def _draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """What an episode plays unless it is told."""
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
                f"unknown reset option {unknown[0]!r}: use 'image', 'noise_seed' and 'step_cost'"
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
                raise SkipDiffError(f"reset option {name}={value!r} must lie in 0 … {limits[name] - 1}")
        return given

    def _given_step_costs(self, costs: np.ndarray) -> list[float]:
        low, high = self.options.step_cost if isinstance(self.options.step_cost, tuple) else (0.0, math.inf)
        if costs.dtype.kind not in "iuf" or costs.shape not in ((), (self.count,)):
            raise SkipDiffError("reset option step_cost must be a number, or one for each environment")
        if not (np.isfinite(costs).all() and low <= costs.min() and costs.max() <= high):
            raise SkipDiffError(f"reset option step_cost={costs.tolist()} must lie in {low} … {high}")
        return np.broadcast_to(costs, self.count).astype(np.float64).tolist()

    def _pair(self, image: int, noise_seed: int) -> Pair:
        """The crop of an episode: a function of what replays it, and of nothing else."""
        rng = np.random.default_rng([image, noise_seed]) if self.options.crop == "random" else None
        return make_pair(self.source, image, scale=self.model.scale, image_size=self.image_size, rng=rng)

    def step(
        self, rows: Sequence[int] | np.ndarray, actions: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decide in ``rows`` (0 denoise, 1 skip); after the last decision, finish and score.

        Returns:
            rewards, float64, and whether the episode is over, bool, both (len(rows),).
        """
        everyone = len(rows) == self.count
        before = self.state if everyone else self.state.select(rows)
        after = self.process.step(before, actions)
        done = after.level == 1
        if done.all():
            after = self.process.finish(after)
        elif done.any():
            last = np.flatnonzero(done)
            after = after.replace(last, self.process.finish(after.select(last)))
        self.state = after if everyone else self.state.replace(rows, after)
        rewards = self.books.decide(rows, actions)
        if done.any():
            rewards[done] += self._score(np.asarray(rows)[done])
        return rewards, done

    def _score(self, rows: np.ndarray) -> np.ndarray:
        """Reward of the finished ``rows``, float64; what there is to report goes into the books."""
        x0 = self.state.x0[torch.as_tensor(rows, device=self.device)]
        images = to_arrays(to_uint8(x0))
        originals = [hr for row in rows if (hr := self.pairs[row].hr) is not None]
        scores = self._measure(images, np.stack(originals) if originals else None)
        finite = torch.isfinite(x0).flatten(1).all(dim=1).cpu().numpy()
        quality = np.where(finite, self.metric.rewards(scores["metric"]), np.nan)
        pictures = {"sr_image": images} if self.options.return_image else {}
        return self.books.finish(rows, quality, **scores, **pictures)

    def _measure(self, images: np.ndarray, references: np.ndarray | None) -> dict[str, np.ndarray]:
        """``metric``, ``psnr`` and ``ssim``, each (B,); remembered if there is a cache, since a warm cache
        would otherwise spend all its time here."""
        cache = self.options.cache
        if cache is None:
            return self._compute(images, references)
        digests = [[_digest(batch[i]) for batch in (images, references) if batch is not None]
                   for i in range(len(images))]  # fmt: skip
        names = [(self.metric, *digest) for digest in digests]
        scores = [cache.score(name) for name in names]
        missing = [i for i, known in enumerate(scores) if known is None]
        if missing:
            fresh = self._compute(images[missing], None if references is None else references[missing])
            for row, i in enumerate(missing):
                scores[i] = {key: column[row].item() for key, column in fresh.items()}
                cache.put_score(names[i], scores[i])
        return {key: np.array([found[key] for found in scores if found]) for key in scores[0] or ()}

    def _compute(self, images: np.ndarray, references: np.ndarray | None) -> dict[str, np.ndarray]:
        scores = {"metric": self.metric(images, references)}
        if references is None:
            return scores | {name: np.full(len(images), np.nan) for name in ("psnr", "ssim")}
        return scores | {"psnr": psnr_y(images, references), "ssim": ssim_y(images, references)}

    def observe(self) -> Observation:
        """What the agent sees in every row, on the device, in fresh memory."""
        latent = as_seen(self.state.latent, self.options.observation_size or self.image_size).contiguous()
        if self.options.observation == "latent":
            return latent
        lr = to_planes(np.stack([pair.lr for pair in self.pairs])).contiguous().to(self.device).float() / 255
        told = self.books.observation(self.options.priced)
        return {"latent": latent, "lr": lr} | {
            name: torch.from_numpy(column).to(self.device) for name, column in told.items()
        }

    def finished(self, row: int) -> bool:
        """Whether the episode of a row is over, or none was begun yet."""
        return not self.pairs or bool(self.state.level[row] == 0)

    def picture(self, row: int) -> np.ndarray:
        """The newest x̂0 of a row as the 8-bit image it would be saved as, uint8 (H, W, 3)."""
        return to_arrays(to_uint8(self.state.x0[row : row + 1]))[0]


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()
