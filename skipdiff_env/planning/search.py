"""The search for the best fixed plan with a given number of network calls: the baseline for every agent."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..chains import Chain, ChainSpec, parse, parse_skipdiff
from ..chains.parse import usual_coarse_steps
from ..chains.plan import Plan
from ..diffusion import as_model
from ..diffusion.protocol import DiffusionModel, identity_of
from ..errors import SkipDiffError, whole_number
from ..images import open_source
from ..policies.base import usual_start
from .pictures import Figures, Pictures, joined, mean, means
from .shapes import shaped_plan

if TYPE_CHECKING:
    import optuna

GUARDS = {"psnr": (0.05, -1), "ssim": (0.003, -1), "residue": (0.05, 1)}
"""For each guard, how far a plan may fall behind the reference without a penalty, and the sign of a loss:
PSNR in dB, SSIM as a difference, and the residue (grain in flat areas, which LPIPS and NIQE mistake for
detail) as a fraction of the reference's."""
TOLL = 0.05
"""The penalty for each further loss of the same size, as a fraction of M."""
FINALISTS = 8
"""Number of plans that are measured again under another noise seed before one is chosen, since the best of
many plans is best partly by chance."""
VERSION = 1
"""Version of the family of plans and of the objective; a new version starts new studies."""

Tell = Callable[[int, float], None]
"""A function that is called after each trial with the number of trials and the best objective so far."""


@dataclass(frozen=True)
class FoundPlan:
    """The result of a search."""

    plan: Plan
    figures: dict[str, float]
    """Means over the pictures and two noise seeds, by metric."""
    trials: int
    """Number of plans tried in all runs of the study."""
    seconds: float
    """Time that the trials took in all runs of the study, in seconds."""


class PlanSearch:
    """Searches for the best fixed plans of a model with Optuna's tree-structured Parzen estimator.

    The plans are those of :func:`.shapes.shaped_plan`: jumps of DDIM down to a level, at most one skip, and
    jumps down to 0. The search minimises the mean over pictures of Σ w ln(M / M of the reference), plus a
    penalty for falling behind in PSNR, SSIM or flat areas; see :data:`GUARDS`.

    Args:
        model: the frozen model.
        images: HR pictures, as :func:`skipdiff_env.images.open_source` takes them. They should be neither
            training pictures of the model nor test pictures.
        metric: the metric M to optimise: a name, or names with their weights w.
        image_size: side in pixels of the crops from the pictures' centres; None: whole pictures, all of the
            same size.
        study: file that keeps every trial, from which a later search continues; None: memory only.
        reference: the chain that plans are compared with; None: SkipDiff from the model's usual
            fixed start.
        batch: number of pictures per network call.
        seed: seed of the search and of the noise; trials run one after another.

    Raises:
        SkipDiffError: if there are no HR pictures, they differ in size, or a metric or the reference is
            invalid; with ``study``, also if the model has no hash.
    """

    def __init__(
        self,
        model: DiffusionModel,
        images: Any,
        metric: str | Mapping[str, float] = "lpips",
        *,
        image_size: int | None = 128,
        study: str | os.PathLike[str] | None = None,
        reference: ChainSpec = None,
        batch: int = 8,
        seed: int = 0,
    ) -> None:
        model = as_model(model)
        if study is not None:
            identity_of(model, "a study")
        self.weights = {metric: 1.0} if isinstance(metric, str) else dict(metric)
        names = dict.fromkeys([*self.weights, *GUARDS])
        self._pictures = Pictures(model, open_source(images), names, image_size, batch)
        if reference is None:
            steps = usual_coarse_steps(model.schedule.steps)
            reference = parse_skipdiff(usual_start(model.schedule, steps, own=model.start), model, steps)
        self._chain = parse(reference, model)
        self._file, self._seeds, self._known = study, (seed, seed + 1), dict[int, Figures]()

    @property
    def compared_with(self) -> Chain:
        """The chain that plans are compared with."""
        return self._chain

    @property
    def reference(self) -> dict[str, float]:
        """The reference's mean of each metric over the pictures and two noise seeds."""
        return means(*(self._reference(seed) for seed in self._seeds))

    def find(
        self, evaluations: int, trials: int = 150, minutes: float | None = None, tell: Tell | None = None
    ) -> FoundPlan:
        """Find the best plan with ``evaluations`` network calls; see :func:`find_plan`.

        Raises:
            SkipDiffError: if Optuna is not installed, ``evaluations`` is not from 2 to T, or no trial was
                finished.
        """
        top = self._pictures.model.schedule.steps
        whole_number("evaluations", evaluations, 2, top)
        study = self._study(evaluations)

        def objective(trial: optuna.Trial) -> float:
            return self._objective(trial, _plan(trial, evaluations, top))

        _run(study, objective, trials, minutes, tell)
        plan = self._choose(study)
        figures = means(*(self._pictures.measure(plan, seed) for seed in self._seeds))
        tried = _finished(study)
        return FoundPlan(plan, figures, len(tried), sum(map(_seconds, tried)))

    def _reference(self, seed: int) -> Figures:
        """Return the figures of the reference, which are measured only once."""
        if seed not in self._known:
            self._known[seed] = self._pictures.measure(self._chain, seed)
        return self._known[seed]

    def _objective(self, trial: optuna.Trial, plan: Plan) -> float:
        """Compute the value to minimise, batch by batch, so that the trial of a bad plan can end early."""
        import optuna

        trial.set_user_attr("plan", str(plan))
        seen: list[Figures] = []
        for step, part in enumerate(self._pictures.parts(plan, self._seeds[0])):
            seen.append(part)
            loss = self._loss(joined(seen), self._seeds[0])
            trial.report(loss, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    def _loss(self, figures: Figures, seed: int) -> float:
        """Compute how much worse than the reference the figures are; they may cover only the first
        pictures."""
        reference = {name: values[: len(figures[name])] for name, values in self._reference(seed).items()}
        loss = 0.0
        for name, weight in self.weights.items():
            sign = 1 if self._pictures.metrics[name].lower_better else -1
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.log(figures[name] / reference[name])
            loss += sign * weight * mean(ratio)
        for name, (margin, sign) in GUARDS.items():
            ours, theirs = (mean(table[name]) for table in (figures, reference))
            behind = sign * (ours - theirs) / (theirs if name == "residue" else 1.0)
            loss += TOLL * max(0.0, behind / margin - 1)
        return loss

    def _choose(self, study: optuna.Study) -> Plan:
        """Choose the best of the finalists under two noise seeds."""
        import optuna

        whole = optuna.trial.TrialState.COMPLETE
        done = {t.user_attrs["plan"]: t.value or 0.0 for t in study.trials if t.state == whole}
        if not done:
            raise SkipDiffError("no trial was finished: allow more minutes or trials")
        other = self._seeds[1]
        losses = {
            text: done[text] + self._loss(self._pictures.measure(Plan.read(text), other), other)
            for text in sorted(done, key=done.__getitem__)[:FINALISTS]
        }
        return Plan.read(min(losses, key=losses.__getitem__))

    def _study(self, evaluations: int) -> optuna.Study:
        """Create a study, or load the one with the same settings from the file."""
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend
        except ImportError:
            raise SkipDiffError("the search for plans needs Optuna: pip install 'skipdiff[plans]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = None
        if self._file is not None:
            Path(self._file).parent.mkdir(parents=True, exist_ok=True)
            storage = optuna.storages.JournalStorage(JournalFileBackend(os.fspath(self._file)))
        study = optuna.create_study(
            storage=storage,
            study_name=self._name(evaluations),
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=12),
        )
        # A continued study must not repeat the draws of the previous run
        seed = self._seeds[0] + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=24, seed=seed)
        if not study.trials:
            for trial in _first_guesses(evaluations):
                study.enqueue_trial(trial)
        return study

    def _name(self, evaluations: int) -> str:
        """Return the name of the study, which depends on everything that affects its objective."""
        what = json.dumps([self.weights, str(self._chain), self._seeds[0]], sort_keys=True).encode()
        digest = hashlib.blake2b(what, digest_size=4).hexdigest()
        return f"{self._pictures.identity(VERSION)}-{digest}-{evaluations}"


def find_plan(
    model: DiffusionModel,
    images: Any,
    evaluations: int,
    metric: str | Mapping[str, float] = "lpips",
    *,
    trials: int = 150,
    minutes: float | None = None,
    tell: Tell | None = None,
    **settings: Any,
) -> FoundPlan:
    """Find the best fixed plan with a given number of network calls.

    Args:
        model, images, metric: see :class:`PlanSearch`.
        evaluations: number of network calls, 2 … T.
        trials: number of plans to try, including those of earlier runs of the study. Hopeless trials end
            early.
        minutes: time limit of the search in minutes; None: no limit.
        tell: function that is called after each trial; see :data:`Tell`.
        settings: further arguments of :class:`PlanSearch`: ``image_size``, ``study``, ``reference``,
            ``batch`` and ``seed``.

    Raises:
        SkipDiffError: in the same cases as :class:`PlanSearch` and :meth:`PlanSearch.find`.
    """
    search = PlanSearch(model, images, metric, **settings)
    return search.find(evaluations, trials, minutes, tell)


def _plan(trial: optuna.trial.BaseTrial, evaluations: int, top: int) -> Plan:
    """Return the plan that a trial's parameters describe."""
    eta = [round(trial.suggest_float(f"eta_{part}", 0, 1, step=0.1), 1) for part in (1, 2)]
    power = [trial.suggest_float(f"power_{part}", 0.5, 2.0, step=0.1) for part in (1, 2)]
    return shaped_plan(
        top,
        evaluations,
        trial.suggest_int("jumps", *_jumps(evaluations)),
        trial.suggest_float("reached", 0.02, 0.6) * top,
        trial.suggest_float("told", 0.2, 1.0),
        (eta[0], eta[1]),
        (power[0], power[1]),
    )


def _jumps(evaluations: int) -> tuple[int, int]:
    """Return the minimum and maximum number of jumps before the skip."""
    return max(0, evaluations - 6), evaluations - 1


def _first_guesses(evaluations: int) -> list[dict[str, Any]]:
    """Return the parameters of plans that are worth trying with any model: plain DDIM, and late skips."""
    usual = {"power_1": 1.0, "power_2": 1.0, "eta_2": 0.0}
    first, last = _jumps(evaluations)
    return [
        {**usual, "jumps": first, "reached": 0.3, "told": 1.0, "eta_1": 0.0},
        {**usual, "jumps": last, "reached": 0.26, "told": 0.75, "eta_1": 0.5, "power_1": 0.8},
        {**usual, "jumps": last, "reached": 0.12, "told": 0.6, "eta_1": 0.0, "power_1": 0.8},
        {
            **usual,
            "jumps": max(first, 1, last // 2),
            "reached": 0.22,
            "told": 0.8,
            "eta_1": 0.3,
            "eta_2": 1.0,
        },
    ]


def _run(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float],
    trials: int,
    minutes: float | None,
    tell: Tell | None,
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
        study.optimize(objective, n_trials=left, timeout=timeout, callbacks=[told])


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that have ended, whether completed or stopped early."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]


def _seconds(trial: optuna.trial.FrozenTrial) -> float:
    """Return the wall time of a trial in seconds, which other work on the computer may have lengthened."""
    return trial.duration.total_seconds() if trial.duration else 0.0
