"""Which fixed plan is best at a budget of network calls: what every agent has to be compared with."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .chains import Chain, ChainSpec, parse, parse_skipdiff
from .chains.plan import Plan
from .diffusion import Call, NoiseKey, as_model, image_key, to_uint8
from .diffusion.protocol import DiffusionModel
from .diffusion.resize import to_arrays, to_planes
from .errors import SkipDiffError
from .images import ImageSource, make_pair, open_source
from .metrics import Metric, load_metric
from .policies.base import usual_start

if TYPE_CHECKING:
    import optuna

GUARDS = {"psnr": (0.05, -1), "ssim": (0.003, -1), "residue": (0.05, 1)}
"""What a plan may lose against the reference for nothing, and the sign of a loss: PSNR (dB), SSIM, and the
grain in flat areas, which LPIPS and NIQE take for detail, as a share of the reference's."""
TOLL = 0.05
"""What falling behind by one guard more costs, as a share of M."""
FINALISTS = 8
"""Plans that are measured again under another noise seed before one is chosen: of many plans, the one that
was best owes something to chance."""
VERSION = 1
"""Of the family of plans and the objective: another one begins other studies."""

Figures = dict[str, NDArray[np.float64]]
"""By metric, a score for each picture."""


@dataclass(frozen=True)
class FoundPlan:
    """What :func:`find_plan` found."""

    plan: Plan
    figures: dict[str, float]
    """Means over the pictures and two noise seeds, by metric."""
    reference: dict[str, float]
    """Those of the chain that the plan was held against."""
    trials: int
    """Plans that were tried, in all runs of the study."""
    seconds: float
    """Of this run."""


def find_plan(
    model: DiffusionModel,
    images: Any,
    evaluations: int,
    metric: str | Mapping[str, float] = "lpips",
    *,
    trials: int = 150,
    minutes: float | None = None,
    image_size: int | None = 128,
    study: str | os.PathLike[str] | None = None,
    reference: ChainSpec = None,
    batch: int = 8,
    seed: int = 0,
    tell: Callable[[int, float], None] | None = None,
) -> FoundPlan:
    """The best fixed plan in so many network calls, by Optuna's tree-structured Parzen estimator.

    The plans are those of :func:`shaped_plan`: jumps of DDIM down to a level, at most one skip, jumps down
    to 0. What is minimised is the mean over pictures of Σ w ln(M/M of the reference), to which falling
    behind in PSNR, SSIM or flat areas adds, see :data:`GUARDS`.

    Args:
        model: the frozen model.
        images: HR pictures, as :func:`skipdiff_env.images.open_source` takes them, that neither the model
            was trained on nor anything will be judged by.
        evaluations: network calls, 2 or more.
        metric: M, a name, or names with their weights w.
        trials: plans to try, those of earlier runs of the study included. Hopeless ones end early.
        minutes: end the search after so long, in the middle of the trials.
        image_size: side of the crops from the pictures' middle, pixels; None for whole pictures of one size.
        study: a file that holds every trial, from which a later call goes on; None keeps them in memory.
        reference: the chain that plans are held against; None: SkipDiff from the model's own start.
        batch: pictures a network call.
        seed: of the search; trials are drawn one after the other.
        tell: called after each trial with their number and the best objective so far.

    Raises:
        SkipDiffError: if Optuna is not installed, or a request cannot be met.
    """
    began = time.monotonic()
    model, weights = as_model(model), {metric: 1.0} if isinstance(metric, str) else dict(metric)
    if evaluations < 2 or evaluations > model.schedule.steps:
        raise SkipDiffError(f"evaluations={evaluations} must lie in 2 … {model.schedule.steps}")
    pictures = _Pictures(model, open_source(images), weights, image_size, batch)
    start = usual_start(model.schedule.stride(10), model.start) if model.schedule.steps % 10 == 0 else None
    chain = parse_skipdiff(start, model) if reference is None else parse(reference, model)
    search = _Search(pictures, chain, evaluations, weights, seed)
    found = _study(study, search, seed)
    _run(found, search, trials, minutes, tell)
    best, seeds = search.choose(found)
    return FoundPlan(
        best,
        _means(*(pictures.measure(best, seed) for seed in seeds)),
        _means(*(search.reference(seed) for seed in seeds)),
        len(_finished(found)),
        time.monotonic() - began,
    )


def shaped_plan(
    top: int,
    evaluations: int,
    jumps: int,
    reached: float,
    told: float,
    etas: tuple[float, float],
    powers: tuple[float, float],
) -> Plan:
    """T → ``reached`` in ``jumps`` calls, told ``told``, → 0 in the other calls.

    The levels of a part of m calls from a down to b are b + (a - b)((m - i)/m)^power, i = 0 … m, rounded to
    whole ones and moved up as far as they must to fall.

    Args:
        top: T.
        evaluations: calls in all.
        jumps: calls before the skip, fewer than ``evaluations``; 0 means that there is one part alone.
        reached: level at the skip.
        told: level that the network is told there, a share of ``reached`` in 0 … 1; 1 is no skip.
        etas: η of the two parts.
        powers: spacing of the two parts: below 1 the levels lie high, above 1 low.
    """
    after = evaluations - jumps
    low = int(np.clip(round(reached), after, top - jumps)) if jumps else top
    first = _falling(top, low, jumps, powers[0]) if jumps else [top]
    second = _falling(int(np.clip(round(told * low), after, low)) if jumps else top, 0, after, powers[1])
    calls = [
        Call(t, u, eta if u else 0.0)
        for levels, eta in ((first, etas[0]), (second, etas[1]))
        for t, u in zip(levels, levels[1:], strict=False)
    ]
    return Plan(top, tuple(calls))


def _falling(a: int, b: int, steps: int, power: float) -> list[int]:
    """``steps`` + 1 whole levels from a down to b."""
    levels = np.rint(b + (a - b) * (1 - np.arange(steps + 1) / steps) ** power).astype(int).tolist()
    for i in range(steps - 1, 0, -1):
        levels[i] = max(levels[i], levels[i + 1] + 1)
    for i in range(1, steps):
        levels[i] = min(levels[i], levels[i - 1] - 1)
    return levels


class _Pictures:
    """Pictures that chains are measured on."""

    def __init__(
        self,
        model: DiffusionModel,
        source: ImageSource,
        metrics: Mapping[str, float],
        size: int | None,
        batch: int,
    ) -> None:
        if source.low_resolution or not len(source):
            raise SkipDiffError("plans are judged by their originals: give HR pictures")
        pairs = [make_pair(source, i, scale=model.scale, image_size=size) for i in range(len(source))]
        if len({pair.lr.shape for pair in pairs}) > 1:
            raise SkipDiffError("the pictures have several sizes: give image_size= for crops of one")
        self.model, self._batch = model, batch
        self._lr, self._hr = (np.stack([getattr(pair, name) for pair in pairs]) for name in ("lr", "hr"))
        self._metrics: dict[str, Metric] = {
            name: load_metric(name, model.device) for name in dict.fromkeys([*metrics, *GUARDS])
        }

    def __len__(self) -> int:
        return len(self._lr)

    @property
    def identity(self) -> str:
        """Of model, pictures and metrics."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(self._hr.tobytes() + self._lr.tobytes())
        about = [VERSION, self.model.hash, str(self.model.dtype), [*self._metrics]]
        digest.update(json.dumps(about).encode())
        return digest.hexdigest()

    def parts(self, chain: Chain, seed: int) -> Iterator[Figures]:
        """What a chain's results are worth, a batch at a time."""
        for first in range(0, len(self), self._batch):
            rows = slice(first, first + self._batch)
            lr, hr = self._lr[rows], self._hr[rows]
            keys = [NoiseKey(image_key(image), seed) for image in lr]
            condition = self.model.condition(to_planes(lr).to(self.model.device))
            made = to_arrays(to_uint8(chain(self.model, condition, keys).x0))
            yield {name: metric(made, hr) for name, metric in self._metrics.items()}

    def measure(self, chain: Chain, seed: int) -> Figures:
        """What a chain's results are worth."""
        return _joined(list(self.parts(chain, seed)))


class _Search:
    """Plans of one length, held against a chain."""

    def __init__(
        self,
        pictures: _Pictures,
        chain: Chain,
        evaluations: int,
        weights: Mapping[str, float],
        seed: int,
    ) -> None:
        self.pictures, self.evaluations, self._seed = pictures, evaluations, seed
        self._chain, self._weights, self._known = chain, dict(weights), dict[int, Figures]()

    @property
    def name(self) -> str:
        """Of the study: another one for whatever would change its objective."""
        what = json.dumps([self._weights, str(self._chain), self._seed], sort_keys=True).encode()
        digest = hashlib.blake2b(what, digest_size=4).hexdigest()
        return f"{self.pictures.identity}-{digest}-{self.evaluations}"

    def reference(self, seed: int) -> Figures:
        """What plans are held against; measured once."""
        if seed not in self._known:
            self._known[seed] = self.pictures.measure(self._chain, seed)
        return self._known[seed]

    def plan(self, trial: optuna.trial.BaseTrial) -> Plan:
        """The plan that a trial stands for."""
        n = self.evaluations
        eta = [trial.suggest_float(f"eta_{part}", 0, 1, step=0.1) for part in (1, 2)]
        power = [trial.suggest_float(f"power_{part}", 0.5, 2.0, step=0.1) for part in (1, 2)]
        top = self.pictures.model.schedule.steps
        return shaped_plan(
            top,
            n,
            trial.suggest_int("jumps", max(0, n - 6), n - 1),
            trial.suggest_float("reached", 0.02, 0.6) * top,
            trial.suggest_float("told", 0.2, 1.0),
            (eta[0], eta[1]),
            (power[0], power[1]),
        )

    def objective(self, trial: optuna.Trial) -> float:
        """What is to be small; pictures come batch by batch, so that a bad plan need not see them all."""
        import optuna

        plan = self.plan(trial)
        trial.set_user_attr("plan", str(plan))
        seen: list[Figures] = []
        for step, part in enumerate(self.pictures.parts(plan, self._seed)):
            seen.append(part)
            loss = self.loss(_joined(seen), self._seed)
            trial.report(loss, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    def loss(self, figures: Figures, seed: int) -> float:
        """By how much worse than the reference, on the pictures that there are figures of, the first ones."""
        reference = {name: values[: len(figures[name])] for name, values in self.reference(seed).items()}
        loss = 0.0
        for name, weight in self._weights.items():
            sign = 1 if load_metric(name, self.pictures.model.device).lower_better else -1
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.log(figures[name] / reference[name])
            loss += sign * weight * _mean(ratio)
        for name, (margin, sign) in GUARDS.items():
            ours, theirs = (_mean(table[name]) for table in (figures, reference))
            behind = sign * (ours - theirs) / (theirs if name == "residue" else 1.0)
            loss += TOLL * max(0.0, behind / margin - 1)
        return loss

    def choose(self, study: optuna.Study) -> tuple[Plan, tuple[int, int]]:
        """The best of the finalists under two noise seeds, and these."""
        import optuna

        whole = optuna.trial.TrialState.COMPLETE
        done = {t.user_attrs["plan"]: t.value or 0.0 for t in study.trials if t.state == whole}
        if not done:
            raise SkipDiffError("no plan was tried to its end: allow more minutes or trials")
        seeds = (self._seed, self._seed + 1)
        losses = {}
        for text in sorted(done, key=done.__getitem__)[:FINALISTS]:
            again = self.loss(self.pictures.measure(Plan.read(text), seeds[1]), seeds[1])
            losses[text] = done[text] + again
        return Plan.read(min(losses, key=losses.__getitem__)), seeds


def _study(file: str | os.PathLike[str] | None, search: _Search, seed: int) -> optuna.Study:
    """A new study, or the one that the file holds of these settings."""
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise SkipDiffError("looking for plans needs Optuna: pip install 'skipdiff[plans]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if file is not None:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(JournalFileBackend(os.fspath(file)))
    study = optuna.create_study(
        storage=storage,
        study_name=search.name,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=12),
    )
    # What goes on must not repeat the draws of the run before
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=24, seed=seed + len(study.trials))
    if not study.trials:
        for trial in _first_guesses(search.evaluations):
            study.enqueue_trial(trial)
    return study


def _first_guesses(evaluations: int) -> list[dict[str, Any]]:
    """Plans that are worth a try with any model: plain DDIM, and a skip late in the chain."""
    usual = {"power_1": 1.0, "power_2": 1.0, "eta_2": 0.0}
    last = evaluations - 1
    return [
        {**usual, "jumps": max(0, evaluations - 6), "reached": 0.3, "told": 1.0, "eta_1": 0.0},
        {**usual, "jumps": last, "reached": 0.26, "told": 0.75, "eta_1": 0.5, "power_1": 0.8},
        {**usual, "jumps": last, "reached": 0.12, "told": 0.6, "eta_1": 0.0, "power_1": 0.8},
        {**usual, "jumps": max(1, last // 2), "reached": 0.22, "told": 0.8, "eta_1": 0.3, "eta_2": 1.0},
    ]


def _run(
    study: optuna.Study,
    search: _Search,
    trials: int,
    minutes: float | None,
    tell: Callable[[int, float], None] | None,
) -> None:
    """Try plans until there are enough of them, or the time is up."""

    import optuna

    def told(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if tell:
            done = _finished(study)
            whole = (t.value for t in done if t.state == optuna.trial.TrialState.COMPLETE)
            tell(len(done), min((value for value in whole if value is not None), default=np.inf))

    left = trials - len(_finished(study))
    if left > 0:
        timeout = None if minutes is None else 60 * minutes
        study.optimize(search.objective, n_trials=left, timeout=timeout, callbacks=[told])


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that are over, to their end or not."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]


def _joined(parts: Sequence[Figures]) -> Figures:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _mean(values: NDArray[np.float64]) -> float:
    """Of those that are numbers."""
    return float(values[np.isfinite(values)].mean())


def _means(*tables: Figures) -> dict[str, float]:
    return {name: _mean(np.concatenate([table[name] for table in tables])) for name in tables[0]}
