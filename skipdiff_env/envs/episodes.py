"""A batch of SkipDiff episodes on one device: the machine that both environments drive.

It joins an image source, the diffusion process and a metric; what is Gymnasium's (auto-reset, NumPy
or tensors, rendering) is left to the environments. An episode is determined by its image and its
noise seed: they fix the crop, every noise draw and so, given the actions, the result.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..diffusion import (
    DiffusionModel,
    NoiseKey,
    SkipProcess,
    SkipState,
    as_model,
    bicubic,
    image_key,
    load_pretrained,
    to_uint8,
)
from ..diffusion.refiner import RefinerSpec, resolve_refiner
from ..errors import SkipDiffError
from ..images import BUNDLED_IMAGE_SIZE, Pair, make_pair, open_source
from ..latent_cache import CachedProcess, LatentCache
from ..metrics import load_metric, psnr_y, ssim_y

LATENT_BOUND = 20.0
"""Observed latents are clipped to ± this. They are signal plus noise of at most unit variance, and the
signal is at most 1 (image targets) or 2k (residual targets, k about 5), so that clipping would take
noise of ten standard deviations: it keeps the observation space finite and changes nothing."""

NOISE_SEEDS = 2**32
"""How many noise seeds ``noise="fresh"`` draws from."""

_CHECKED_IMAGES = 32
"""How many images are decoded when an environment is made, to refuse those that are too small."""

Observation = dict[str, Tensor] | Tensor


@dataclass
class Episode:
    """What one row of the batch plays, and how far it got."""

    image: int
    noise_seed: int
    pair: Pair
    step_cost: float
    actions: list[int] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    """Empty until the end; then the last infos: metric, reward_valid, psnr, ssim, sr_image."""


class Episodes:
    """``count`` episodes side by side, all in one batch; rows may be at different levels.

    Arguments are those of :class:`.SkipDiffusionEnv`, where they are explained.

    Attributes:
        observation_space: of one row.
        source, model, process, metric: what the arguments stand for.
        image_size: side of the SR images, pixels.
        rows: the episodes, none before the first :meth:`begin`, which must begin all of them.
        state: the process's state, one row each.
    """

    state: SkipState

    def __init__(
        self,
        count: int,
        *,
        model: str | os.PathLike[str] | DiffusionModel = "natural-4x",
        images: Any = None,
        metric: Any = "niqe",
        coarse_steps: int = 10,
        fine_steps: int | None = None,
        skip_rule: Literal["reset", "hold"] = "reset",
        noise: Literal["fresh", "fixed"] = "fresh",
        observation: Literal["latent", "dict"] = "latent",
        observation_size: int | None = None,
        image_size: int | None = None,
        crop: Literal["random", "center"] = "random",
        low_resolution: bool = False,
        step_cost: float | tuple[float, float] = 0.0,
        return_image: bool = False,
        device: str | torch.device = "auto",
        cache: LatentCache | None = None,
        refiner: RefinerSpec = None,
    ) -> None:
        _one_of("noise", noise, ("fresh", "fixed"))
        _one_of("observation", observation, ("latent", "dict"))
        _one_of("crop", crop, ("random", "center"))
        if observation_size is not None and observation_size < 1:
            raise SkipDiffError(f"observation_size={observation_size} must be at least 1 pixel, or None")
        self.step_cost = checked_step_cost(step_cost)
        self.noise, self.crop, self.return_image = noise, crop, return_image
        self.observation, self.observation_size = observation, observation_size
        self.cache = cache
        self._loading = (model, device, metric, coarse_steps, fine_steps, skip_rule, refiner)
        self._load()
        if self.process.decisions < 1:
            raise SkipDiffError(
                f"fine_steps={self.process.fine_steps} leaves nothing to decide (an episode has "
                "fine_steps - 1 decisions): give fine_steps=2 or more"
            )
        self.source = open_source(images, low_resolution=low_resolution)
        default_size = BUNDLED_IMAGE_SIZE if images is None else self.model.image_size
        self.image_size = self._checked_size(default_size if image_size is None else image_size)
        self.observation_space = self._observation_space()
        self.count = count
        self.rows: list[Episode] = []

    def _load(self) -> None:
        """Everything that is shared between environments and not pickled with them."""
        model, device, metric, coarse_steps, fine_steps, skip_rule, refiner = self._loading
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
        settings = (self.model, coarse_steps, fine_steps, skip_rule)
        refine = resolve_refiner(refiner, self.model)
        self.process = SkipProcess(*settings, refine=refine)
        if self.cache is not None:
            self.process = CachedProcess(*settings, cache=self.cache, refine=refine)
        self.metric = load_metric(metric, self.device)

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

    def _observation_space(self) -> spaces.Space[Any]:
        side = self.observation_size or self.image_size
        latent = spaces.Box(-LATENT_BOUND, LATENT_BOUND, (3, side, side), np.float32)
        if self.observation == "latent":
            return latent
        small = self.image_size // self.model.scale
        parts: dict[str, spaces.Space[Any]] = {
            "latent": latent,
            "lr": spaces.Box(0.0, 1.0, (3, small, small), np.float32),
            "step": spaces.Discrete(self.process.fine_steps),
        }
        if isinstance(self.step_cost, tuple):
            parts["step_cost"] = step_cost_space(self.step_cost)
        return spaces.Dict(parts)

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
        fresh = []
        for row, rng in zip(rows, rngs, strict=True):
            # Drawn whatever the options say: an option must not shift what later episodes draw.
            image, noise_seed = int(rng.integers(len(self.source))), int(rng.integers(NOISE_SEEDS))
            if self.noise == "fixed":
                noise_seed = 0
            image = given["image"][row] if "image" in given else image
            noise_seed = given["noise_seed"][row] if "noise_seed" in given else noise_seed
            cost = draw_step_cost(self.step_cost, rng)
            cost = given["step_cost"][row] if "step_cost" in given else cost
            fresh.append(Episode(image, noise_seed, self._pair(image, noise_seed), cost))
        lr = _to_tensor([episode.pair.lr for episode in fresh], self.device)
        keys = [NoiseKey(image_key(episode.pair.lr), episode.noise_seed) for episode in fresh]
        state = self.process.start(self.model.condition(lr), keys)
        if len(rows) == self.count:
            self.state, self.rows = state, fresh
            return
        self.state = self.state.replace(rows, state)
        for row, episode in zip(rows, fresh, strict=True):
            self.rows[row] = episode

    def _read_options(self, options: Mapping[str, Any] | None) -> dict[str, list[Any]]:
        limits = {"image": len(self.source), "noise_seed": 2**63}
        unknown = sorted(set(options or {}) - {*limits, "step_cost"})
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
        low, high = self.step_cost if isinstance(self.step_cost, tuple) else (0.0, math.inf)
        if costs.dtype.kind not in "iuf" or costs.shape not in ((), (self.count,)):
            raise SkipDiffError("reset option step_cost must be a number, or one for each environment")
        if not (np.isfinite(costs).all() and low <= costs.min() and costs.max() <= high):
            raise SkipDiffError(f"reset option step_cost={costs.tolist()} must lie in {low} … {high}")
        return np.broadcast_to(costs, self.count).astype(np.float64).tolist()

    def _pair(self, image: int, noise_seed: int) -> Pair:
        """The crop of an episode: a function of what replays it, and of nothing else."""
        rng = np.random.default_rng([image, noise_seed]) if self.crop == "random" else None
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
        for row, action in zip(rows, actions, strict=True):
            self.rows[row].actions.append(int(action))
        costs = np.array([self.rows[row].step_cost for row in rows])
        rewards = -costs * (after.evaluations - before.evaluations) + 0.0  # no -0.0
        if done.any():
            rewards[done] += self._score(np.asarray(rows)[done])
        return rewards, done

    def _score(self, rows: np.ndarray) -> np.ndarray:
        """Reward of the finished ``rows``, float64; what there is to report goes into their results."""
        x0 = self.state.x0[torch.as_tensor(rows, device=self.device)]
        images = _to_array(to_uint8(x0))
        originals = [hr for row in rows if (hr := self.rows[row].pair.hr) is not None]
        references = np.stack(originals) if originals else None
        columns = self._measure(images, references)
        quality = self.metric.rewards(columns["metric"])
        finite = torch.isfinite(x0).flatten(1).all(dim=1).cpu().numpy()
        valid = np.isfinite(quality) & finite
        columns["reward_valid"] = valid
        for i, row in enumerate(rows):
            result = {name: column[i].item() for name, column in columns.items()}
            self.rows[row].result = result | ({"sr_image": images[i]} if self.return_image else {})
        return np.where(valid, quality, 0.0)

    def _measure(self, images: np.ndarray, references: np.ndarray | None) -> dict[str, np.ndarray]:
        """``metric``, and ``psnr`` and ``ssim`` where there are references, each (B,); remembered if there
        is a cache, since a warm cache would otherwise spend all its time here."""
        if self.cache is None:
            return self._compute(images, references)
        digests = [[_digest(batch[i]) for batch in (images, references) if batch is not None]
                   for i in range(len(images))]  # fmt: skip
        names = [(self.metric, *digest) for digest in digests]
        scores = [self.cache.score(name) for name in names]
        missing = [i for i, known in enumerate(scores) if known is None]
        if missing:
            fresh = self._compute(images[missing], None if references is None else references[missing])
            for row, i in enumerate(missing):
                scores[i] = {key: column[row].item() for key, column in fresh.items()}
                self.cache.put_score(names[i], scores[i])
        return {key: np.array([found[key] for found in scores if found]) for key in scores[0] or ()}

    def _compute(self, images: np.ndarray, references: np.ndarray | None) -> dict[str, np.ndarray]:
        columns = {"metric": self.metric(images, references)}
        if references is not None:
            columns |= {"psnr": psnr_y(images, references), "ssim": ssim_y(images, references)}
        return columns

    def observe(self) -> Observation:
        """What the agent sees in every row, on the device, in fresh memory."""
        latent, size = self.state.latent, self.observation_size
        if size is not None:
            latent = bicubic(latent, size, size)
        latent = latent.clamp(-LATENT_BOUND, LATENT_BOUND).contiguous()
        if self.observation == "latent":
            return latent
        lr = _to_tensor([episode.pair.lr for episode in self.rows], self.device).float() / 255
        steps = [len(episode.actions) for episode in self.rows]
        parts = {"latent": latent, "lr": lr, "step": torch.tensor(steps, device=self.device)}
        if isinstance(self.step_cost, tuple):
            costs = [[episode.step_cost] for episode in self.rows]
            parts["step_cost"] = torch.tensor(costs, dtype=torch.float32, device=self.device)
        return parts

    def info(self, row: int) -> dict[str, Any]:
        """The info dictionary of a row: plain numbers, and nothing that a later call will change."""
        episode = self.rows[row]
        result = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in episode.result.items()}
        return {
            "evaluations": int(self.state.evaluations[row]),
            "actions": list(episode.actions),
            "image": episode.image,
            "noise_seed": episode.noise_seed,
            **({"step_cost": episode.step_cost} if isinstance(self.step_cost, tuple) else {}),
            **result,
        }

    def finished(self, row: int) -> bool:
        """Whether the episode of a row is over, or none was begun yet."""
        return not self.rows or bool(self.state.level[row] == 0)

    def picture(self, row: int) -> np.ndarray:
        """The newest x̂0 of a row as the 8-bit image it would be saved as, uint8 (H, W, 3)."""
        return _to_array(to_uint8(self.state.x0[row : row + 1]))[0]


def checked_step_cost(step_cost: float | tuple[float, float]) -> float | tuple[float, float]:
    """A price, or the range of prices that episodes draw from; anything else is refused."""
    if isinstance(step_cost, (tuple, list)):
        if not (len(step_cost) == 2 and 0 < step_cost[0] < step_cost[1] < math.inf):
            raise SkipDiffError(f"step_cost={step_cost} must be a number, or a range (low, high) above 0")
        return float(step_cost[0]), float(step_cost[1])
    if not (math.isfinite(step_cost) and step_cost >= 0):
        raise SkipDiffError(f"step_cost={step_cost} must be a finite number, 0 or more")
    return float(step_cost)


def draw_step_cost(step_cost: float | tuple[float, float], rng: np.random.Generator) -> float:
    """An episode's price: from a range, log-uniformly, since what an evaluation gains varies as widely."""
    if isinstance(step_cost, tuple):
        return float(np.exp(rng.uniform(*np.log(step_cost))))
    return step_cost


def step_cost_space(step_costs: tuple[float, float]) -> spaces.Box:
    """Where the dictionary observation's ``step_cost`` lies, (1,)."""
    low, high = (np.float32(cost) for cost in step_costs)
    below, above = np.nextafter(low, np.float32(0)), np.nextafter(high, np.float32(np.inf))
    return spaces.Box(below, above, (1,), np.float32)


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise SkipDiffError(f"unknown {name} {value!r}: use one of {', '.join(map(repr, allowed))}")


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


def _to_tensor(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """uint8 (h, w, 3) arrays of one size → uint8 (B, 3, h, w) on the device."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).contiguous()


def _to_array(images: Tensor) -> np.ndarray:
    """uint8 (B, 3, H, W) → uint8 (B, H, W, 3) on the host, contiguous."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())
