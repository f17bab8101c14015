"""Plans: equal to the chains that they describe, right against closed forms, readable, and checked."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from skipdiff_env.chains import CCSR, CSA, Chain, SkipDiff
from skipdiff_env.chains.base import State
from skipdiff_env.chains.plan import Plan, skipdiff_plan, through, uniform
from skipdiff_env.diffusion import (
    Call,
    CallProcess,
    NoiseKey,
    NoiseSchedule,
    image_key,
    random_model,
    tiny_config,
)
from skipdiff_env.diffusion.model import FrozenModel
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.policies import FixedStart
from skipdiff_env.sampler import SkipDiffSampler

KEYS = [NoiseKey(5, 0), NoiseKey(2**62, 7)]


def of_levels(levels: int) -> FrozenModel:
    return random_model(dataclasses.replace(tiny_config(), schedule=NoiseSchedule.cosine(levels).config))


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return of_levels(20)


@pytest.fixture(scope="module")
def condition() -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Acts:
    """A policy that does what it is told."""

    def __init__(self, actions: tuple[int, ...]) -> None:
        self.actions = actions

    def __call__(self, latent: Tensor, memory: Any) -> tuple[list[int], int]:
        decision = memory or 0
        return [self.actions[decision]] * len(latent), decision + 1


def same(plan: Plan, chain: Chain, model: FrozenModel, condition: Tensor) -> None:
    """Both make the same picture, to the bit."""
    made, wanted = plan(model, condition, KEYS), chain(model, condition, KEYS)
    assert torch.equal(made.x0, wanted.x0)
    assert (made.evaluations <= wanted.evaluations).all()


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20])
def test_csa_and_the_full_chain(steps: int, model: FrozenModel, condition: Tensor) -> None:
    plan = skipdiff_plan(model.schedule, steps, fine_steps=0)
    same(plan, CSA(steps), model, condition)
    if steps == 20:
        assert plan == through(range(20, -1, -1), 1.0) == uniform(20, 20, 1.0)


@pytest.mark.parametrize("coarse", [1, 2, 5])
def test_every_fixed_start(coarse: int, model: FrozenModel, condition: Tensor) -> None:
    fine = 20 // coarse
    for start in range(1, fine + 1):
        policy = FixedStart(start, fine)
        same(
            skipdiff_plan(model.schedule, coarse, policy.actions), SkipDiff(policy, coarse), model, condition
        )


@pytest.mark.parametrize("rule", ["reset", "hold"])
def test_every_schedule(rule: Any, model: FrozenModel, condition: Tensor) -> None:
    for actions in itertools.product((0, 1), repeat=3):
        chain = SkipDiff(Acts(actions), 5, skip_rule=rule)
        same(skipdiff_plan(model.schedule, 5, actions, skip_rule=rule), chain, model, condition)


def test_more_fine_levels_than_a_stride(condition: Tensor) -> None:
    """Of (1, F) and (10, F > N): what draws a second time at a level that CSA has passed draws new noise."""
    model = of_levels(12)
    actions = (1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    for rule in ("reset", "hold"):
        chain = SkipDiff(Acts(actions), 1, 12, skip_rule=rule)  # type: ignore[arg-type]
        same(skipdiff_plan(model.schedule, 1, actions, 12, rule), chain, model, condition)  # type: ignore[arg-type]
    low = FixedStart(2, 12)
    same(skipdiff_plan(model.schedule, 4, low.actions, 12), SkipDiff(low, 4, 12), model, condition)
    with pytest.raises(SkipDiffError, match="from 12 to 11 must start at 3 or below"):
        skipdiff_plan(model.schedule, 4, FixedStart(12, 12).actions, 12)


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_ccsr(steps: int, condition: Tensor) -> None:
    """Its levels lie between those of the table."""
    model = of_levels(100)
    chain, top = CCSR(steps), 100
    levels = [*chain.levels(model.schedule).tolist(), 0.0]
    calls = [
        Call(told, to, 1.0, fresh=i == 0 and to > 0, number=2 * top + i + 1)
        for i, (told, to) in enumerate(itertools.pairwise(levels))
    ]
    made = Plan(top, tuple(calls))(model, condition, KEYS)
    assert (made.x0 - chain(model, condition, KEYS).x0).abs().max() < 2 / 255
    assert (made.evaluations == steps).all()
    read = Plan.read(str(Plan(top, tuple(calls))))
    assert torch.equal(read(model, condition, KEYS).x0, made.x0)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_ddim_is_that_of_diffusers(eta: float, steps: int, condition: Tensor) -> None:
    pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    from benchmarks.measure.standard import ddim

    model = of_levels(100)
    scheduler, levels = ddim(model.schedule, steps)
    plan = uniform(100, steps, eta)
    seen: list[State] = []
    plan(model, condition, KEYS, seen.append)
    state = CallProcess(model).start(condition, KEYS)
    latent, before = state.latent, state
    for timestep, level, now in zip(scheduler.timesteps, levels, seen, strict=True):
        signal = torch.full((2,), float(model.schedule.noise_level(level)))
        image = model.predict(latent, condition, signal)
        assert torch.allclose(now.x0, image, atol=2e-4)
        if now.level[0] == 0:
            break
        x0 = model.to_latent(image, condition)
        # the noise that our step drew, read off its result
        quiet = CallProcess(model).call(before, level, now.level, 0.0).latent if eta == 0 else None
        noise = torch.zeros_like(latent)
        if quiet is None:
            kept = scheduler.step(x0, timestep, latent, eta=eta, variance_noise=noise).prev_sample
            std = plan_std(model.schedule, level, float(now.level[0]), eta)
            noise = (now.latent - kept) / std
            assert abs(float(noise.std()) - 1) < 0.05
        theirs = scheduler.step(x0, timestep, latent, eta=eta, variance_noise=noise).prev_sample
        assert torch.allclose(now.latent, theirs, atol=1e-4)
        latent, before = now.latent, now  # type: ignore[assignment]


def plan_std(schedule: NoiseSchedule, t: float, u: float, eta: float) -> float:
    """σ of DDIM's Eq. 16."""
    at, au = schedule.alpha_bar[int(t)], schedule.alpha_bar[int(u)]
    return eta * float(np.sqrt((1 - au) / (1 - at)) * np.sqrt(1 - at / au))


class Gaussian:
    """The best denoiser of x_0 ~ N(c, s²): x̂0 = E[x_0 | x_t], linear in x_t."""

    spread = 0.3

    def __init__(self, levels: int) -> None:
        self.schedule = NoiseSchedule.cosine(levels)

    def predict(self, latent: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        a = noise_level[:, None, None, None]
        gain = a * self.spread**2 / (a**2 * self.spread**2 + 1 - a**2)
        return condition + gain * (latent - a * condition)


@pytest.mark.parametrize(
    "text",
    [
        "100>50>0",
        "100>57>27>14|11>5>2>0 eta 0|1",
        "100>57>27>14>5>2>0 eta 0.5",
        "100>~60>30|12>~7|3>0 eta 1",
        "100|80>44.5>0 eta 0.3",
    ],
)
def test_mean_and_variance_of_a_gaussian_in_closed_form(text: str) -> None:
    """x_u = A x̂0 + B x_r + σ z, with x̂0 linear in x_r, of a latent whose mean and variance are known."""
    model, plan, c = Gaussian(100), Plan.read(text), 0.25
    ab, s = model.schedule.alpha_bar_at, model.spread
    mean, variance = 0.0, 1.0
    for call in plan.calls:
        a_r, a_u = ab(call.told), ab(call.to)
        gain = np.sqrt(a_r) * s**2 / (a_r * s**2 + 1 - a_r)
        of_x0 = (1 - gain * np.sqrt(a_r)) * c  # x̂0 = gain · x_r + this
        sigma2 = 1 - a_u if call.fresh else call.eta**2 * (1 - a_u) / (1 - a_r) * (1 - a_r / a_u)
        kept = (
            0.0 if call.fresh else np.sqrt((1 - a_u - sigma2) / (1 - a_r))
        )  # of ε̂ = (x_r - √ᾱ_r x̂0)/√(1-ᾱ_r)
        slope = np.sqrt(a_u) * gain + kept * (1 - np.sqrt(a_r) * gain)
        mean = slope * mean + (np.sqrt(a_u) - kept * np.sqrt(a_r)) * of_x0
        variance = slope**2 * variance + sigma2
    side = 400
    x0 = plan(model, torch.full((1, 3, side, side), c), [NoiseKey(1, 2)]).x0.double()  # type: ignore[arg-type]
    count = 3 * side**2
    assert abs(float(x0.mean()) - mean) < 5 * np.sqrt(variance / count)
    assert abs(float(x0.var()) / variance - 1) < 5 * np.sqrt(2 / count)


levels_of_20 = st.lists(st.integers(1, 19), unique=True, max_size=6).map(
    lambda n: [*sorted(n, reverse=True), 0]
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan of 20 levels."""
    calls, reached = [], 20
    for to in [*sorted(draw(st.lists(st.integers(1, 19), unique=True, max_size=6)), reverse=True), 0]:
        told = draw(st.integers(to + 1, reached))
        eta = draw(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1 / 3]))
        number = draw(st.none() | st.integers(0, 99))
        calls.append(Call(told, to, eta, draw(st.booleans()), number))
        reached = to
    return Plan(20, tuple(calls))


@settings(max_examples=200, deadline=None)
@given(plan=plans())
def test_plans_are_values_that_can_be_read(plan: Plan) -> None:
    assert Plan.read(str(plan)) == plan and hash(Plan.read(str(plan))) == hash(plan)
    assert plan.settings == {"policy": str(plan)}


@settings(max_examples=30, deadline=None)
@given(both=st.tuples(plans(), plans()))
def test_rows_have_levels_of_their_own(
    both: tuple[Plan, Plan], model: FrozenModel, condition: Tensor
) -> None:
    """Two rows under different plans, as far as both go, are what each is alone."""
    process = CallProcess(model)
    state = process.start(condition, KEYS)
    alone = [process.start(condition[i : i + 1], KEYS[i : i + 1]) for i in range(2)]
    for pair in zip(*(plan.calls for plan in both), strict=False):
        told, to, eta, fresh = (
            [getattr(call, name) for call in pair] for name in ("told", "to", "eta", "fresh")
        )
        numbers = [call.number for call in pair]
        state = process.call(state, told, to, eta, fresh, numbers)
        for i, call in enumerate(pair):
            alone[i] = process.call(alone[i], call.told, call.to, call.eta, call.fresh, [call.number])
            one = state.select([i])
            assert torch.allclose(one.latent, alone[i].latent, atol=1e-5)
            assert one.level == alone[i].level == call.to and one.drawn == alone[i].drawn
        if (state.level == 0).any():
            break


def test_a_trace_tells_every_call(model: FrozenModel) -> None:
    plan = Plan.read("20>9|7>2>0 eta 0|0.5")
    trace = SkipDiffSampler(model)(np.zeros((8, 8, 3), np.uint8), policy=plan).trace[0]
    assert trace.levels == [20, 9, 2, 0] and trace.actions == []
    assert trace.calls == [Call(20, 9), Call(7, 2, 0.5), Call(2, 0)]


def test_no_draw_comes_twice(model: FrozenModel, condition: Tensor) -> None:
    state = CallProcess(model).start(condition, KEYS)
    for told, to in ((20, 9.6), (9.6, 9.5), (9.5, 9.4)):
        state = CallProcess(model).call(state, told, to, 1.0)
    assert state.drawn == ((20, 10, 30, 9),) * 2  # 9.5 rounds to 10, which is taken


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a plan: write one like"),
        ("100", "is not a plan"),
        ("100>50", "last call must lead to 0"),
        ("100>50>60>0", "from 50 to 60 must start at 50 or below"),
        ("100>50|60>0", "from 60 to 0 must start at 50 or below"),
        ("100>50>50>0", "from 50 to 50 must"),
        ("100>50>0 eta 2", "eta must be from 0 to 1, not 2"),
        ("100>50>0 eta nan", "eta must be from 0 to 1, not nan"),
        ("100>50>0 eta 0|1", "'eta 0|1' does not fit the plan"),
        ("100>50|40>20>10>0 eta 0|1,0,1", "here 2"),
        ("100>50>0 eta half", "does not fit the plan"),
        ("100>-50>0", "is not a plan"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(SkipDiffError) as caught:
        Plan.read(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_plan_for_another_number_of_levels_is_refused(model: FrozenModel, condition: Tensor) -> None:
    with pytest.raises(SkipDiffError, match="is for models of 100 levels, but this one has 20"):
        Plan.read("100>50>0")(model, condition, KEYS)
    process = CallProcess(model)
    state = process.start(condition, KEYS)
    with pytest.raises(ValueError, match="images 1, keys 2"):
        process.start(condition[:1], KEYS)
    for told, to in ((21, 5), (10, 10), (10, -1), (0, 0)):
        with pytest.raises(ValueError, match="told level must be at most the level reached"):
            process.call(state, told, to)
    assert image_key(np.zeros((2, 2, 3), np.uint8)) >= 0
