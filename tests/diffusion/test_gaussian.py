"""A model whose optimal denoiser is known: x_0 ~ N(c, s²) pixel by pixel, so that the chain is affine.

The best x̂0 is the posterior mean, which is affine in x_t; every latent is then a known mean plus known
weights on the keyed draws, and mean and variance of the output follow exactly, after CSA and after FSR.
"""

import itertools
import math

import numpy as np
import pytest
import torch

from skipdiff_env.diffusion import NoiseKey, NoiseSchedule, SkipProcess, keyed_normal, start_actions
from tests.reference.process64 import cosine_table

SPREAD = 0.4
"""s, the standard deviation of a pixel around c."""


class GaussianModel:
    """E[x_0 | x_t] under x_0 ~ N(c, s²), x_t = √ᾱ x_0 + √(1-ᾱ) ε; nothing is clamped."""

    scale = 4

    def __init__(self, steps=100, scale=1.0):
        self.schedule, self.latent_scale = NoiseSchedule.cosine(steps), scale

    def predict(self, latent, condition, noise_level):
        level = noise_level.double()[:, None, None, None]
        mean, spread = self.to_latent(condition, condition).double(), SPREAD * self.latent_scale
        gain = level * spread**2 / (level**2 * spread**2 + 1 - level**2)
        x0 = (mean + gain * (latent.double() - level * mean)).float()
        return x0 if self.latent_scale == 1 else condition + x0 / self.latent_scale

    def to_latent(self, image, condition):
        return image if self.latent_scale == 1 else self.latent_scale * (image - condition)


class Affine:
    """pull·mean + Σ weights[level]·noise(level): a latent of the chain, or its x̂0, exactly."""

    def __init__(self, pull, weights):
        self.pull, self.weights = pull, weights

    def __add__(self, other):
        levels = self.weights.keys() | other.weights.keys()
        weights = {k: self.weights.get(k, 0.0) + other.weights.get(k, 0.0) for k in levels}
        return Affine(self.pull + other.pull, weights)

    def __rmul__(self, factor):
        return Affine(factor * self.pull, {k: factor * w for k, w in self.weights.items()})

    @property
    def variance(self):
        return sum(w * w for w in self.weights.values())

    def value(self, mean, key, shape):
        noise = {t: keyed_normal([key], [t], shape)[0].double() for t in self.weights}
        return self.pull * mean + sum(w * noise[t] for t, w in self.weights.items())


MEAN = Affine(1.0, {})


def denoise(x, a_t, a_u, reached, spread):
    """(x_u, x̂0) as affine forms; the posterior by regression of x_u on (x_0, x_t)."""
    gain = math.sqrt(a_t) * spread**2 / (a_t * spread**2 + 1 - a_t)
    x0 = MEAN + gain * (x + (-math.sqrt(a_t)) * MEAN)
    if a_u == 1:
        return x0, x0
    # x_t = √ᾱ_t x_0 + n_t, x_u = √ᾱ_u x_0 + n_u: E[n_u | n_t] = cov/var · n_t, the rest is fresh noise.
    slope = math.sqrt(a_t / a_u) * (1 - a_u) / (1 - a_t)
    fresh = (1 - a_u) - slope**2 * (1 - a_t)
    mean = math.sqrt(a_u) * x0 + slope * (x + (-math.sqrt(a_t)) * x0)
    return mean + Affine(0.0, {reached: math.sqrt(fresh)}), x0


def exact(coarse_steps, fine_steps, actions, skip_rule, spread=SPREAD, steps=100):
    """(x_S1, final x̂0) as affine forms of the keyed noise."""
    table, width = cosine_table(steps), steps // coarse_steps
    x = Affine(0.0, {steps: 1.0})
    for s in range(coarse_steps, 1, -1):
        reached = (s - 1) * width
        x, _ = denoise(x, table[s * width], table[reached], reached, spread)
    if fine_steps == 0:
        return x, denoise(x, table[width], 1, 0, spread)[1]
    u = x
    for t, action in zip(range(fine_steps, 1, -1), actions, strict=True):
        if action == 0:
            u, _ = denoise(u, table[t], table[t - 1], t - 1, spread)
        elif skip_rule == "reset":
            u = x
    return x, denoise(u, table[1], 1, 0, spread)[1]


def drive(process, condition, keys, actions):
    state = process.start(condition, keys)
    coarse = state.coarse
    for action in actions:
        state = process.step(state, [action] * len(keys))
    return coarse, process.finish(state).x0


CASES = [
    (10, 10, start_actions(7, 10)),
    (10, 10, [0, 1, 0, 0, 1, 1, 0, 0, 0]),
    (5, 20, start_actions(12, 20)),
    (20, 5, [0, 1, 0, 0]),
    (1, 100, [0] * 99),
    (10, 0, []),
]


@pytest.mark.parametrize("skip_rule", ["reset", "hold"])
@pytest.mark.parametrize("coarse_steps, fine_steps, actions", CASES)
def test_every_draw_is_the_exact_affine_form(coarse_steps, fine_steps, actions, skip_rule):
    rng = np.random.default_rng(0)
    condition = torch.from_numpy(rng.uniform(-1, 1, (2, 3, 6, 5))).float()
    keys = [NoiseKey(3, 1), NoiseKey(4, 2)]
    process = SkipProcess(GaussianModel(), coarse_steps, fine_steps, skip_rule)
    coarse, final = drive(process, condition, keys, actions)
    for form, got in zip(exact(coarse_steps, fine_steps, actions, skip_rule), (coarse, final), strict=True):
        for row in range(2):
            wanted = form.value(condition[row].double(), keys[row], condition.shape[1:])
            torch.testing.assert_close(got[row].double(), wanted, atol=2e-5, rtol=0)


def test_residual_chains_are_affine_too():
    """Latents k·(image - c) have mean 0; the image is c + r/k."""
    condition, keys = torch.rand(2, 3, 6, 5) - 0.5, [NoiseKey(3, 1), NoiseKey(4, 2)]
    actions = start_actions(7, 10)
    process = SkipProcess(GaussianModel(scale=5.0))
    coarse, final = drive(process, condition, keys, actions)
    x_s1, x0 = exact(10, 10, actions, "reset", spread=5 * SPREAD)
    for row in range(2):
        zero = torch.zeros(3, 6, 5, dtype=torch.float64)
        torch.testing.assert_close(
            coarse[row].double(), x_s1.value(zero, keys[row], (3, 6, 5)), atol=5e-5, rtol=0
        )
        wanted = condition[row].double() + x0.value(zero, keys[row], (3, 6, 5)) / 5
        torch.testing.assert_close(final[row].double(), wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("coarse_steps, fine_steps, actions", CASES)
def test_moments_over_many_draws(coarse_steps, fine_steps, actions):
    """Empirical mean and variance over 96 000 pixels of 20 seeds, to five standard errors."""
    condition = torch.full((20, 3, 40, 40), 0.3)
    keys = [NoiseKey(1, seed) for seed in range(20)]
    process = SkipProcess(GaussianModel(), coarse_steps, fine_steps)
    for form, got in zip(
        exact(coarse_steps, fine_steps, actions, "reset"),
        drive(process, condition, keys, actions),
        strict=True,
    ):
        n, values = got.numel(), got.double()
        assert abs(values.mean() - 0.3 * form.pull) < 5 * math.sqrt(form.variance / n)
        assert values.var() == pytest.approx(form.variance, rel=5 * math.sqrt(2 / n))


def test_fine_noise_is_independent_of_coarse_noise_where_the_levels_meet():
    """(10, 100): FSR passes levels 90 … 10 a second time; its noise there must be new.

    In the paper every jump draws its own z. Were the draws of CSA used again, x_S1 would be correlated
    with the noise that is added to it: at start 50 the variance came out 10 % too high.
    """
    condition, keys = torch.full((20, 3, 40, 40), 0.3), [NoiseKey(1, seed) for seed in range(20)]
    _, got = drive(SkipProcess(GaussianModel(), 10, 100), condition, keys, start_actions(50, 100))
    table = cosine_table(100)
    u, _ = exact(10, 10, [1] * 9, "reset")
    for t in range(50, 0, -1):
        u = Affine(u.pull, {"all so far": math.sqrt(u.variance)})  # independent of what comes
        u, x0 = denoise(u, table[t], table[t - 1], "new", SPREAD)
    assert got.double().var() == pytest.approx(x0.variance, rel=5 * math.sqrt(2 / got.numel()))


@pytest.mark.parametrize("steps", [50, 100, 400])
def test_the_full_chain_converges_to_the_true_distribution(steps):
    """N(c, s²): the mean is right at once, the variance in inverse proportion to T."""
    condition = torch.full((8, 3, 20, 20), 0.3)
    process = SkipProcess(GaussianModel(steps), steps, 0)
    _, got = drive(process, condition, [NoiseKey(1, seed) for seed in range(8)], [])
    error = math.sqrt(2 / got.numel())
    assert abs(got.double().mean() - 0.3) < 0.003 + 5 * SPREAD / math.sqrt(got.numel())
    assert got.double().var() == pytest.approx(SPREAD**2, rel=10 / steps + 5 * error)
    assert exact(steps, 0, [], "reset", steps=steps)[1].variance == pytest.approx(SPREAD**2, rel=10 / steps)


def test_schedules_have_f_or_two_to_the_f_minus_one_distributions():
    """``reset``: the last skip alone counts. ``hold``: no two schedules share a variance."""
    for skip_rule, count in (("reset", 5), ("hold", 16)):
        variances = [
            exact(20, 5, actions, skip_rule)[1].variance for actions in itertools.product([0, 1], repeat=4)
        ]
        assert len({round(v, 12) for v in variances}) == count
