"""One picture, model, step pair and seed, and all that the page can ask about them.

The method itself is implemented elsewhere: :class:`SkipDiffSampler` runs chains, :class:`CachedProcess` plays
single decisions with a cache, which makes going back and forth a lookup, and :func:`find_optimum` shares
this cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..chains import CSA, Chain, ChainSpec, OnState, SkipDiff, State, named_chain, parse_skipdiff
from ..diffusion import Call, NoiseKey, SkipState, bicubic, image_key, to_signed, to_uint8
from ..diffusion.protocol import DiffusionModel
from ..diffusion.resize import to_arrays, to_planes
from ..errors import SkipDiffError
from ..images import RGB8
from ..latent_cache import CachedProcess, LatentCache
from ..metrics import load_metric
from ..oracle import Optimum, find_optimum
from ..policies.base import CoinFlip, Policy, first_memory
from ..policies.file import NetworkPolicy
from ..sampler import SkipDiffSampler
from .pictures import Task

CACHE_BYTES = 256 * 2**20
"""Limit on the latents that a study keeps, in bytes."""
THUMB = 144
"""Longer side of the pictures on a film strip, in pixels."""
METRICS = ("psnr", "ssim", "lpips", "niqe")


class Metered:
    """Wraps a frozen model, and reports each call and how long it took.

    Args:
        model: any :class:`DiffusionModel`.
    """

    def __init__(self, model: DiffusionModel) -> None:
        self._model = model
        self.on_call: Callable[[int, int, float], None] | None = None
        """Function that is called with the rows, the pixels per row, and the seconds of each network call."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        """Do the same as the model's own ``predict``."""
        began = time.perf_counter()
        x0 = self._model.predict(latent, condition, noise_level)
        if x0.is_cuda:
            torch.cuda.synchronize(x0.device)
        if self.on_call:
            self.on_call(len(latent), latent[0, 0].numel(), time.perf_counter() - began)
        return x0


class Watched:
    """A policy for one picture that records the probability of a skip.

    Args:
        policy: the policy that takes the decisions.

    Attributes:
        skip: probability of a skip at each decision so far; None where the policy has none.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.skip: list[float | None] = []

    def __call__(self, latent: Tensor, memory: Any) -> tuple[Any, Any]:
        if isinstance(self.policy, NetworkPolicy):
            logits, memory = self.policy.logits(latent, memory)
            self.skip.append(float(logits.softmax(dim=1)[0, 1]))
            return logits.argmax(dim=1), memory
        self.skip.append(0.5 if isinstance(self.policy, CoinFlip) else None)
        return self.policy(latent, memory)

    def begin(self, keys: Sequence[NoiseKey]) -> Any:
        """Return the policy's first memory."""
        return first_memory(self.policy, keys)


@dataclass(frozen=True)
class Frame:
    """A latent of a chain, and the decision that was taken on it."""

    level: int
    latent: np.ndarray
    """Every n-th pixel of the latent, float32 (3, h, w), so that noise still looks like noise."""
    x0: RGB8
    """The estimate x̂0 that belongs to it, uint8 (h, w, 3)."""
    action: int | None = None
    """The decision: 0 (denoise), 1 (skip), or None if there was none."""
    skip: float | None = None
    """The policy's probability of a skip; None if it has none."""
    reached: float = 0.0
    """For a plan, the level that had been reached before ``call``."""
    call: Call | None = None
    """For a plan, the call that led here."""


@dataclass(frozen=True)
class Result:
    """A finished picture and how it was made."""

    picture: RGB8
    """uint8 (H, W, 3)."""
    actions: tuple[int, ...]
    evaluations: int
    seconds: float
    frames: tuple[Frame, ...] = ()
    calls: tuple[Call, ...] = ()
    """The calls of a plan; empty for other chains."""


@dataclass(frozen=True)
class Position:
    """The state of a game."""

    level: int
    """The current level; 0 when the game is over."""
    evaluations: int
    frames: tuple[Frame, ...]
    """The frames, beginning with the latent at level F, at the end of the coarse jumps."""
    picture: RGB8
    """The current x̂0, which is the result when the game is over."""


def full_chain(model: DiffusionModel, task: Task, seed: int) -> Result:
    """Run SR3's sampler, which visits all T levels."""
    return run_chain(CSA(model.schedule.steps), model, task, seed)


def run_chain(
    chain: Chain,
    model: DiffusionModel,
    task: Task,
    seed: int,
    on_state: OnState | None = None,
    clean: float = 1.0,
    detail: float = 1.0,
) -> Result:
    """Run a chain on a picture."""
    out = SkipDiffSampler(model, clean=clean, detail=detail)(task.lr, chain, seed, on_state)
    trace = out.trace[0]
    made = tuple(trace.actions), trace.evaluations, trace.seconds
    return Result(out.images[0], *made, calls=tuple(trace.calls))


def bicubic_picture(task: Task, scale: int) -> RGB8:
    """Enlarge the input bicubically."""
    height, width = (side * scale for side in task.lr.shape[:2])
    signed = to_signed(to_planes(task.lr))
    return _picture(bicubic(signed, height, width))


def score(picture: RGB8, hr: RGB8 | None, device: Any = "cpu") -> dict[str, float | str | None]:
    """Score a picture by all metrics: a value, None without a required original, or why there is no value."""
    found: dict[str, float | str | None] = {}
    for name in METRICS:
        metric = load_metric(name, device)
        if metric.reference and hr is None:
            found[name] = None
            continue
        try:
            found[name] = float(metric(picture[None], None if hr is None else hr[None])[0])
        except SkipDiffError as error:
            found[name] = str(error)
    return found


class Study:
    """A picture under one model, step pair and seed.

    Args:
        model: the frozen model.
        task: the picture.
        coarse_steps: S, a divisor of the model's T; F is T/S.
        seed: noise seed.
    """

    def __init__(self, model: DiffusionModel, task: Task, coarse_steps: int, seed: int) -> None:
        self.model, self.task, self.seed = model, task, seed
        self.process = CachedProcess(model, coarse_steps, cache=LatentCache(CACHE_BYTES))
        if self.process.decisions < 1:
            raise SkipDiffError(f"{coarse_steps} coarse steps leave nothing to decide: use fewer")
        self._optima: dict[str, Optimum] = {}

    def run(self, spec: ChainSpec, clean: float = 1.0, detail: float = 1.0) -> Result:
        """Run a chain on the picture, with a film strip. Nothing is looked up, so the seconds are real."""
        named = spec if isinstance(spec, Chain) else named_chain(spec, self.model)
        chain = named or parse_skipdiff(spec, self.model, self.process.coarse_steps)
        frames: list[Frame] = []
        skip: list[float | None] = []
        if isinstance(chain, SkipDiff):
            watched = Watched(chain.policy)
            chain, skip = replace(chain, policy=watched), watched.skip
        note: OnState = lambda state: frames.append(_frame(state))  # noqa: E731
        result = run_chain(chain, self.model, self.task, self.seed, note, clean, detail)
        if isinstance(chain, SkipDiff) and result.actions:
            # CSA's last latent is the first with a decision; at level 1 there is no choice.
            for i, (action, likely) in enumerate(
                zip(result.actions, skip, strict=True), chain.coarse_steps - 2
            ):
                frames[i] = replace(frames[i], action=action, skip=likely)
        reached = float(self.model.schedule.steps)
        for i, call in enumerate(result.calls):
            frames[i], reached = replace(frames[i], call=call, reached=reached), call.to
        return replace(result, frames=tuple(frames))

    def play(self, actions: Sequence[int]) -> Position:
        """Return the position after some decisions, the first at level F; after F - 1, the game is over.

        Latents that were reached before, also by :meth:`optimum`, are looked up.
        """
        actions = [int(action) for action in actions]
        if len(actions) > self.process.decisions or not set(actions) <= {0, 1}:
            raise SkipDiffError(
                f"the decisions of a game are 0 or 1, at most {self.process.decisions} of them, not {actions}"
            )
        state = self._start()
        frames = [_frame(state)]
        for action in actions:
            state = self.process.step(state, [action])
            frames[-1] = replace(frames[-1], action=action)
            frames.append(_frame(state))
        if len(actions) == self.process.decisions:
            state = self.process.finish(state)
            frames.append(_frame(state))
        return Position(int(state.level[0]), int(state.evaluations[0]), tuple(frames), _picture(state.x0))

    def actions(self, spec: ChainSpec) -> tuple[int, ...]:
        """Return the decisions of a policy; known latents are looked up."""
        chain = parse_skipdiff(spec, self.model, self.process.coarse_steps)
        chain = replace(chain, process=partial(CachedProcess, cache=self.process.cache))
        return run_chain(chain, self.model, self.task, self.seed).actions

    def optimum(self, metric: str) -> Optimum:
        """Find all outcomes, best first, by a metric; they are computed once.

        Raises:
            SkipDiffError: if the metric needs an original that is not known, or a larger picture.
        """
        if metric not in self._optima:
            hr = self.task.hr
            self._optima[metric] = find_optimum(
                self.model,
                self.task.lr if hr is None else hr,
                self.seed,
                metric,
                low_resolution=hr is None,
                process=self.process,
                max_calls=10**6,
            )
        return self._optima[metric]

    def _start(self) -> SkipState:
        condition = self.model.condition(to_planes(self.task.lr))
        return self.process.start(condition, [NoiseKey(image_key(self.task.lr), self.seed)])


def _frame(state: State) -> Frame:
    latent, picture = state.latent[0].detach().cpu().numpy(), _picture(state.x0)
    every = -(-max(picture.shape[:2]) // THUMB)
    return Frame(int(state.level[0]), latent[:, ::every, ::every].copy(), _thumb(picture))


def _picture(x0: Tensor) -> RGB8:
    return to_arrays(to_uint8(x0[:1]))[0]


def _thumb(picture: RGB8) -> RGB8:
    image = Image.fromarray(picture)
    image.thumbnail((THUMB, THUMB), Image.Resampling.BOX)
    return np.asarray(image)
