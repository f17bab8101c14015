"""diffusers' samplers on our models, against our own chain and against their formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.measure import standard
from skipdiff_env.chains.plan import uniform_levels
from skipdiff_env.diffusion import NoiseSchedule, SkipProcess
from skipdiff_env.diffusion.noise import keyed_normal
from tests.reference.process64 import cosine_table, posterior, run
from tests.reference.toy import SIZE, Toy, make_batch

TABLE = cosine_table(100)


@pytest.fixture
def case():
    condition, keys = make_batch(1)
    return Toy(residual=5.0), condition.double(), keys[0]


def noise64(key, level):
    return keyed_normal([key], [level], SIZE)[0].double().numpy()


def same_noise(monkeypatch, key, levels):
    """DDPM's step draws what our chain draws for the level it reaches."""
    reached = iter(levels[1:])

    def drawn(shape, generator=None, device=None, dtype=None):
        return torch.from_numpy(noise64(key, next(reached)))[None].to(dtype)

    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", drawn)


@pytest.mark.parametrize("steps", [100, 20, 10])
def test_the_ancestral_chain_is_ours(case, monkeypatch, steps):
    """In float64 to rounding; with S = T it is the full chain."""
    toy, condition, key = case
    scheduler, levels = standard.ancestral(toy.schedule, steps)
    same_noise(monkeypatch, key, levels)
    image = standard.sample(toy, scheduler, levels, condition, [key])
    expected = run(
        toy.predict64,
        condition[0].numpy(),
        lambda level, again: noise64(key, level),
        coarse_steps=steps,
        fine_steps=0,
        actions=[],
        to_latent=toy.to_latent64,
    )
    assert len(toy.calls) == steps == expected.evaluations
    np.testing.assert_allclose(image[0].numpy(), expected.image, atol=1e-10)
    process = SkipProcess(toy, steps, fine_steps=0)
    ours = process.finish(process.start(condition.float(), [key]))
    np.testing.assert_allclose(ours.x0[0].numpy(), expected.image, atol=1e-4)


def walk64(toy, condition, key, levels, step):
    """A sampler of x̂0 in float64: ``step`` (x, x̂0, ᾱ_t, ᾱ_u, u) → x_u."""
    x, image = noise64(key, 100), condition
    for t, u in zip(levels, [*levels[1:], 0], strict=True):
        image = toy.predict64(x, condition, math.sqrt(TABLE[t]))
        x = step(x, toy.to_latent64(image, condition), TABLE[t], TABLE[u], u)
    return image


def test_sixteen_uneven_strides(case, monkeypatch):
    toy, condition, key = case
    scheduler, levels = standard.ancestral(toy.schedule, 16)
    same_noise(monkeypatch, key, levels)
    image = standard.sample(toy, scheduler, levels, condition, [key])

    def step(x, x0, a_t, a_u, level):
        mean, variance = posterior(a_t, a_u, x0, x)
        return mean + math.sqrt(variance) * noise64(key, level) if variance else mean

    expected = walk64(toy, condition[0].numpy(), key, levels, step)
    np.testing.assert_allclose(image[0].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("steps", [10, 16, 50])
def test_ddim(case, steps):
    toy, condition, key = case
    scheduler, levels = standard.ddim(toy.schedule, steps)
    image = standard.sample(toy, scheduler, levels, condition, [key])

    def step(x, x0, a_t, a_u, level):
        noise = (x - math.sqrt(a_t) * x0) / math.sqrt(1 - a_t)
        return math.sqrt(a_u) * x0 + math.sqrt(1 - a_u) * noise

    expected = walk64(toy, condition[0].numpy(), key, levels, step)
    np.testing.assert_allclose(image[0].numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("steps", [10, 16, 20])
def test_dpm_solver_2m(case, steps):
    """Lu et al. 2022, algorithm 2; diffusers computes its steps in float32."""
    toy, condition, key = case
    scheduler, levels = standard.dpm_solver(toy.schedule, steps)
    assert len(levels) == steps and levels[0] == 99
    image = standard.sample(toy, scheduler, levels, condition, [key])
    history: list[tuple[float, np.ndarray]] = []

    def half_log_snr(a):
        return 0.5 * math.log(a / (1 - a))

    def step(x, x0, a_t, a_u, level):
        here = half_log_snr(a_t)
        history.append((here, x0))
        if level == 0:
            return x0
        h = half_log_snr(a_u) - here
        data = x0
        if len(history) > 1:
            before, older = history[-2]
            data = x0 + h / (2 * (here - before)) * (x0 - older)
        return math.sqrt((1 - a_u) / (1 - a_t)) * x - math.sqrt(a_u) * math.expm1(-h) * data

    expected = walk64(toy, condition[0].numpy(), key, levels, step)
    np.testing.assert_allclose(image[0].numpy(), expected, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 7, 16, 20, 50, 100])
def test_levels_start_at_the_top_and_are_even(steps):
    levels = uniform_levels(100, steps)
    assert levels[0] == 100 and levels[-1] == 0 and len(levels) == steps + 1
    strides = -np.diff(levels)
    assert strides.max() - strides.min() <= 1
    for make in (standard.ddim, standard.ancestral):
        scheduler, visited = make(NoiseSchedule.cosine(), steps)
        assert visited == levels[:-1] and len(scheduler.timesteps) == steps


def test_noise_depends_on_image_and_seed_alone(case):
    toy, condition, key = case

    def image(seed):
        scheduler, levels = standard.ancestral(toy.schedule, 10)
        return standard.sample(toy, scheduler, levels, condition, [key._replace(seed=seed)])

    assert torch.equal(image(1), image(1)) and not torch.equal(image(1), image(2))
    scheduler, levels = standard.ancestral(toy.schedule, 10)
    both = standard.sample(
        toy, scheduler, levels, condition.repeat(2, 1, 1, 1), [key._replace(seed=n) for n in (1, 2)]
    )
    assert torch.allclose(both, torch.cat([image(1), image(2)]), atol=1e-5)
