"""Evaluates policies on the same images and noise seeds, and compares them with the exact optimum."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from skipdiff_env.chains import ChainSpec, parse_skipdiff
from skipdiff_env.diffusion import NoiseKey, as_model
from skipdiff_env.diffusion.process import SKIP, SkipProcess, SkipRule, start_actions
from skipdiff_env.diffusion.protocol import DiffusionModel
from skipdiff_env.envs import SkipDiffusionVectorEnv
from skipdiff_env.envs.books import paid
from skipdiff_env.envs.options import Options
from skipdiff_env.envs.recordings import WALK, hashes, judge
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import ImageSource, episode_pair
from skipdiff_env.images import Pair as ImagePair
from skipdiff_env.latent_cache import CachedProcess, LatentCache
from skipdiff_env.metrics import load_metric, or_zero
from skipdiff_env.oracle import Optimum, find_optimum, optimum_calls
from skipdiff_env.policies.base import Policy, first_memory
from skipdiff_env.policies.purpose import Purpose

from .pairs import Pair

DRAWS = 2000
"""Number of resamples of a bootstrap."""


@dataclass(frozen=True)
class Setting:
    """The setting in which an agent is trained and evaluated: mostly arguments of the environment."""

    model: DiffusionModel
    source: ImageSource
    metric: Any = "niqe"
    coarse_steps: int = 10
    fine_steps: int | None = None
    skip_rule: SkipRule = "reset"
    image_size: int | None = None
    cache: LatentCache | None = None
    max_calls: int = WALK
    """Maximum number of network calls for finding the optimum of an image."""
    crop: Literal["random", "center"] = "center"

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", as_model(self.model))

    @property
    def side(self) -> int:
        """Side of the SR images in pixels."""
        side = self.image_size or self.model.image_size
        if side is None:
            raise SkipDiffError("this model has no image_size of its own: give image_size in pixels")
        return side

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics whose scores the infos contain, so that no pictures are needed for them."""
        return ()

    def pair(self, image: int, noise_seed: int) -> ImagePair:
        """Return the images of an episode."""
        return episode_pair(
            self.source, image, noise_seed, scale=self.model.scale, image_size=self.side, crop=self.crop
        )

    def purpose(self, algorithm: str, seed: int) -> Purpose:
        """Return the purpose of an agent that is trained in this setting, for its file."""
        process, model = self.plain_process, self.model
        return Purpose(
            model.name, model.hash, process.coarse_steps, process.fine_steps, self.skip_rule,
            load_metric(self.metric).name, algorithm, seed,
        )  # fmt: skip

    @property
    def precision(self) -> str:
        """The floating-point type of the network."""
        return str(self.model.dtype)

    def content(self, image: int, noise_seed: int) -> dict[str, Any]:
        """Return hashes of an episode's two pictures, ``lr`` and ``hr`` (empty if there is no HR picture)."""
        return hashes(self.pair(image, noise_seed))

    def digest(self, pairs: Iterable[Pair]) -> str:
        """Hash episodes to 24 hexadecimal digits, which depend on pixels, noise seeds and order."""
        about = json.dumps([[self.content(*pair), pair[1]] for pair in pairs], sort_keys=True)
        return hashlib.blake2b(about.encode(), digest_size=12).hexdigest()

    @property
    def process(self) -> SkipProcess:
        """The process of its episodes, with the cache if there is one."""
        return CachedProcess(*self._steps, cache=self.cache) if self.cache else self.plain_process

    @property
    def plain_process(self) -> SkipProcess:
        """The process of its episodes, without a cache."""
        return SkipProcess(*self._steps)

    @property
    def _steps(self) -> tuple[DiffusionModel, int, int | None, SkipRule]:
        return self.model, self.coarse_steps, self.fine_steps, self.skip_rule

    def optimum(self, image: int, noise_seed: int) -> Optimum:
        """Find every outcome of an image and a noise seed, see :func:`skipdiff_env.find_optimum`."""
        pair = self.pair(image, noise_seed)
        picture = pair.lr if pair.hr is None else pair.hr
        return find_optimum(
            self.model, picture, noise_seed, self.metric, process=self.process,
            max_calls=self.max_calls, low_resolution=pair.hr is None, lr=pair.lr,
        )  # fmt: skip

    def relative_rewards(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Return arguments that make rewards easier to learn from; empty without recordings."""
        return {}

    def options(self, **others: Any) -> Options:
        """Return the arguments of the environment, to which ``others`` are added."""
        return Options(
            model=self.model, images=self.source, metric=self.metric, coarse_steps=self.coarse_steps,
            fine_steps=self.fine_steps, skip_rule=self.skip_rule, image_size=self.image_size,
            cache=self.cache, crop=self.crop, low_resolution=self.source.low_resolution, **others,
        )  # fmt: skip

    def envs(self, count: int, tensors: bool = False, **others: Any) -> Any:
        """Make a batch of ``count`` environments without autoreset; ``others`` as in :meth:`options`."""
        return SkipDiffusionVectorEnv(
            count, autoreset_mode="Disabled", tensors=tensors, **vars(self.options(**others))
        )


@dataclass(frozen=True)
class Result:
    """A played episode."""

    image: str
    noise_seed: int
    reward: float
    metric: float
    psnr: float
    ssim: float
    evaluations: int
    actions: tuple[int, ...]
    others: tuple[float, ...] = ()
    """Scores by the evaluator's other metrics."""


class Evaluator:
    """Plays policies on fixed episodes.

    Args:
        setting: the model, images, metric and steps.
        pairs: (image, noise seed) of each episode.
        batch: number of episodes played at once.
        others: further metrics that score the results.
    """

    def __init__(
        self, setting: Setting, pairs: Sequence[Pair], batch: int = 16, others: Sequence[Any] = ()
    ) -> None:
        if not pairs:
            raise SkipDiffError("there is no episode to evaluate on: give at least one image and noise seed")
        self.setting, self.pairs = setting, list(pairs)
        self.device = setting.model.device
        self.metric = load_metric(setting.metric, self.device)
        self.others = [load_metric(metric, self.device) for metric in others]
        self._pictures = any(metric.name not in setting.metrics for metric in self.others)
        self.envs = setting.envs(min(batch, len(self.pairs)), tensors=True, return_image=self._pictures)
        self.process = self.envs.process

    def __call__(self, policy: ChainSpec) -> list[Result]:
        """Play a policy; return one result per pair, in their order.

        Args:
            policy: any policy of the sampler that decides in the environment's steps, see
                :mod:`skipdiff_env.chains.parse`.

        Raises:
            SkipDiffError: if the policy does not exist, or is a chain in which nothing is decided.
        """
        decide = self.policy(policy)
        count, results = self.envs.num_envs, []
        for first in range(0, len(self.pairs), count):
            chunk = self.pairs[first : first + count]
            results += self._play(decide, chunk + [chunk[-1]] * (count - len(chunk)))[: len(chunk)]
        return results

    def policy(self, spec: ChainSpec) -> Policy:
        """Turn what a user writes into a policy; raise the same errors as :meth:`__call__`."""
        steps = (self.process.coarse_steps, self.process.fine_steps, self.process.skip_rule)
        return parse_skipdiff(spec, self.setting.model, *steps).policy

    @torch.no_grad()
    def _play(self, decide: Policy, pairs: Sequence[Pair]) -> list[Result]:
        images, seeds = (list(column) for column in zip(*pairs, strict=True))
        latent, _ = self.envs.reset(options={"image": images, "noise_seed": seeds})
        keys = [NoiseKey(self.setting.content(image, seed)["lr"], seed) for image, seed in pairs]
        memory: Any = first_memory(decide, keys)
        infos: dict[str, Any] = {}
        for _ in range(self.process.decisions):
            actions, memory = decide(latent, memory)
            latent, _, _, _, infos = self.envs.step(actions)
        # in float64, as the optimum has it; the environment's own reward is a float32 tensor
        reward = or_zero(self.metric.rewards(infos["metric"]))
        told = (infos[name].tolist() for name in ("metric", "psnr", "ssim", "evaluations"))
        columns = zip(
            (self.setting.source.name(i) for i in images), seeds, reward.tolist(), *told,
            map(tuple, infos["actions"].tolist()), self._judge(pairs, infos), strict=True,
        )  # fmt: skip
        return [Result(*row) for row in columns]

    def _judge(self, pairs: Sequence[Pair], infos: Mapping[str, Any]) -> list[tuple[float, ...]]:
        """Return the other metrics of each result."""
        if not self.others:
            return [()] * len(pairs)
        if not self._pictures:
            unknown = np.full(len(pairs), math.nan)  # for metrics that cannot judge these results
            told = (infos.get(metric.name, unknown).tolist() for metric in self.others)
            return list(zip(*told, strict=True))
        made = infos["sr_image"]
        originals = [self.setting.pair(*pair).hr for pair in pairs]
        references = None if originals[0] is None else np.stack(originals)  # type: ignore[arg-type]
        return list(zip(*(judge(metric, made, references).tolist() for metric in self.others), strict=True))

    def paid(self, result: Result, price: float = 0.0) -> float:
        """Compute the return of an episode if each evaluation after CSA costs ``price``."""
        return float(paid(result.reward, result.actions, price))

    def best_rewards(self, prices: Sequence[float] = (0.0,)) -> np.ndarray:
        """Find the highest return of each pair at each price, float64 (prices, pairs)."""
        optima = self.optima()
        rewards = np.array([[o.reward for o in optimum.outcomes] for optimum in optima])
        schedules = [[o.actions for o in optimum.outcomes] for optimum in optima]
        return np.array([paid(rewards, schedules, price).max(axis=1) for price in prices])

    def can_find_optima(self) -> bool:
        """Return whether the search through all schedules is short enough."""
        return optimum_calls(self.process) <= self.setting.max_calls

    def optima(self) -> list[Optimum]:
        """Find the optimum of each pair.

        Raises:
            SkipDiffError: if the search is too long, see :func:`skipdiff_env.find_optimum`.
        """
        return [self.setting.optimum(*pair) for pair in self.pairs]


def fixed_starts(optima: Sequence[Optimum], fine_steps: int) -> np.ndarray:
    """Return the rewards of the fixed starts 1 … F (Table 5), float64 (len(optima), F), from the optima."""
    rewards = np.empty((len(optima), fine_steps))
    for row, optimum in enumerate(optima):
        by_actions = {outcome.actions: outcome.reward for outcome in optimum.outcomes}
        rewards[row] = [by_actions[tuple(start_actions(k, fine_steps))] for k in range(1, fine_steps + 1)]
    return rewards


def paid_starts(optima: Sequence[Optimum], fine_steps: int, price: float) -> np.ndarray:
    """Return :func:`fixed_starts` less ``price`` per evaluation after CSA, float64 (len(optima), F)."""
    schedules = [start_actions(k, fine_steps) for k in range(1, fine_steps + 1)]
    return paid(fixed_starts(optima, fine_steps), schedules, price)


def best_start(optima: Sequence[Optimum], fine_steps: int) -> int:
    """Find the fixed start with the highest mean reward; among equals, the cheapest."""
    return int(fixed_starts(optima, fine_steps).mean(axis=0).argmax()) + 1


def bootstrap(
    values: Sequence[Any] | np.ndarray,
    over: Sequence[Any] | np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Estimate a mean, or a ratio of means, with its 95 % bootstrap interval; also for paired differences.

    Images and training seeds are drawn with replacement. The noise seeds of an image stay together, since
    their results are correlated and carry less information than the same number of images.

    Args:
        values: (images,), (images, noise seeds) or (images, noise seeds, training seeds); NaNs are left out.
        over: denominator of a ratio of means, of the same shape or one that broadcasts to it.
        draws: number of resamples.
        seed: seed of the resampling.

    Returns:
        The mean (or ratio) and its lower and upper bound; all NaN if there is no value.
    """
    table = _with_axes(values)
    rng, (images, _, runs) = np.random.default_rng(seed), table.shape
    rows = drawn_again(images, draws, rng)[:, :, None]
    columns = drawn_again(runs, draws, rng)[:, None, :]

    def means(table: np.ndarray) -> tuple[Any, np.ndarray]:
        sums, counts = np.nansum(table, axis=1), np.isfinite(table).sum(axis=1)
        drawn = (part[rows, columns].sum(axis=(1, 2)) for part in (sums, counts))
        return np.divide(sums.sum(), counts.sum()), np.divide(*drawn)

    with np.errstate(divide="ignore", invalid="ignore"):
        mean, drawn = means(table)
        if over is not None:
            mean_below, drawn_below = means(np.broadcast_to(_with_axes(over), table.shape))
            mean, drawn = np.divide(mean, mean_below), drawn / drawn_below
    return (float(mean), *interval(drawn))


def drawn_again(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw indices 0 … count - 1 with replacement, int64 (draws, count)."""
    return rng.integers(max(count, 1), size=(draws, count))


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """Compute the 95 % interval of a statistic of resamples, (draws,); NaNs are left out."""
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (math.nan, math.nan)
    return float(low), float(high)


def _with_axes(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Return values as float64 (images, noise seeds, training seeds); a missing axis gets length 1."""
    array = np.asarray(values, np.float64)
    return array.reshape(array.shape + (1,) * (3 - array.ndim))


def by_image(results: Sequence[Result], values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return one value per episode, arranged for :func:`bootstrap`, float64 (images, noise seeds).

    Images are identified by name. Rows of images with fewer noise seeds than others end in NaN.
    """
    rows: dict[str, list[float]] = {}
    for result, value in zip(results, values, strict=True):
        rows.setdefault(result.image, []).append(float(value))
    table = np.full((len(rows), max(map(len, rows.values()), default=0)), math.nan)
    for line, row in zip(table, rows.values(), strict=True):
        line[: len(row)] = row
    return table


def denoise_shares(results: Sequence[Result]) -> np.ndarray:
    """Return the share of the episodes that denoised at each of the levels F … 2, float64 (F - 1,)."""
    return (np.array([r.actions for r in results]) != SKIP).mean(axis=0)
