"""The optimum over network calls: every plan once, what the environment pays, no call twice."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
from torch import Tensor

from skipdiff_env import SkipDiffSampler, find_optimal_plan
from skipdiff_env.diffusion import NoiseSchedule, random_model, tiny_config
from skipdiff_env.diffusion.calls import ETAS, TOLD
from skipdiff_env.diffusion.model import FrozenModel
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import shrink
from skipdiff_env.metrics import load_metric
from skipdiff_env.plan_oracle import optimum_plan_calls

HR = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
LEVELS = [12, 7, 3, 1]


class Counting:
    """A model that counts the rows that it is asked for."""

    def __init__(self, model: FrozenModel) -> None:
        self._model, self.rows = model, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        self.rows += len(latent)
        return self._model.predict(latent, condition, noise_level)


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return random_model(
        dataclasses.replace(tiny_config(image_size=32), schedule=NoiseSchedule.cosine(20).config)
    )


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("budget", [1, 2, 3, 9])
def test_every_set_of_levels_once(budget: int, batch: int, model: FrozenModel) -> None:
    counting: Any = Counting(model)
    found = find_optimal_plan(counting, HR, 5, "psnr", budget, LEVELS, batch_size=batch)
    passed = [c for n in range(budget) for c in itertools.combinations(LEVELS, n)]
    assert {tuple(call.to for call in o.plan.calls) for o in found.outcomes} == {(*c, 0) for c in passed}
    assert len(found.outcomes) == found.calls == counting.rows == optimum_plan_calls(4, budget)
    sampler, psnr = SkipDiffSampler(model), load_metric("psnr")
    for outcome in found.outcomes:
        made = sampler(shrink(HR, 4), outcome.plan, 5)
        assert made.trace[0].evaluations == outcome.evaluations <= budget
        assert psnr(made.images, HR[None])[0] == pytest.approx(outcome.value, rel=1e-4)
        assert outcome.worth == pytest.approx(np.log(outcome.value))


def test_full_has_skips_and_noise(model: FrozenModel) -> None:
    counting: Any = Counting(model)
    found = find_optimal_plan(counting, HR, 1, {"residue": 1, "ssim": 1}, 2, [12, 3], actions="full")
    plans = {str(o.plan) for o in found.outcomes}
    assert len(plans) == len(found.outcomes) == found.calls == counting.rows
    one = {(20 * r, 0) for r in TOLD}
    two = {(20 * r, u, eta, u * s) for r in TOLD for u in (12, 3) for eta in ETAS for s in TOLD if u < 20 * r}
    assert len(plans) == len(one) + len(two) and found.calls <= optimum_plan_calls(2, 2, "full")
    sampler = SkipDiffSampler(model)
    metric = load_metric({"residue": 1, "ssim": 1})
    for outcome in found.outcomes:
        value = metric(sampler(shrink(HR, 4), outcome.plan, 1).images, HR[None])[0]
        assert value == pytest.approx(outcome.value, rel=2e-2, nan_ok=True)
        assert outcome.worth == pytest.approx(0 if np.isnan(outcome.value) else -np.log(outcome.value))


def test_no_episode_beats_it(model: FrozenModel) -> None:
    price, budget = 0.02, 3
    env = gymnasium.make(
        "SkipDiff-v1", model=model, images=[HR], metric="psnr", levels=LEVELS, budget=budget, step_cost=price
    )
    _, info = env.reset(seed=0)
    optimum = find_optimal_plan(model, HR, info["noise_seed"], "psnr", budget, LEVELS)
    regrets = []
    for actions in itertools.product(range(len(LEVELS) + 1), repeat=budget):
        env.reset(options={"noise_seed": info["noise_seed"]})
        total = 0.0
        for action in actions:
            _, reward, ended, _, _ = env.step(action)
            total += float(reward)
            if ended:
                break
        regrets.append(optimum.regret(total, price))
    assert min(regrets) == pytest.approx(0, abs=1e-5) and max(regrets) > 0.01
    assert optimum.best(1.0).evaluations == 1  # where a call is dear, one is enough


def test_long_searches_are_refused(model: FrozenModel) -> None:
    assert optimum_plan_calls(10, 11) == 1024
    with pytest.raises(SkipDiffError, match="takes up to 1048576 calls, more than max_calls=2000"):
        find_optimal_plan(model, HR, budget=30, levels=np.arange(1, 20.5, 1)[:-1].tolist() + [0.5])
    with pytest.raises(SkipDiffError, match="needs an HR image"):
        find_optimal_plan(model, HR, metric="psnr", low_resolution=True)
