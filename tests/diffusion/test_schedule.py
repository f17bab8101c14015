"""The schedule and its posterior against printed check values, closed forms and the laws of probability."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skipdiff_env.diffusion.schedule import NoiseSchedule, jump
from tests.reference.process64 import cosine_table, posterior

# Cosine, T = 100, as printed: ᾱ to 10 digits, √ᾱ, β and the posterior variance of t → t - 1 to 8.
PRINTED = [
    (1, 0.9993687184, 0.99968431, 0.0006312816, 0.0),
    (2, 0.9982524865, 0.99912586, 0.001116937, 0.00040348861),
    (7, 0.9854514317, 0.99269906, 0.0035545654, 0.0026956815),
    (10, 0.9720927371, 0.98594763, 0.0050332882, 0.004146366),
    (50, 0.4938435904, 0.70274006, 0.030593124, 0.029651134),
    (90, 0.02409172414, 0.15521509, 0.17214515, 0.17126147),
    (99, 0.0002428572279, 0.015583877, 0.74993928, 0.74939294),
    (100, 2.428572279e-07, 0.00049280547, 0.999, 0.99875763),
]


def digits(value, n):
    return float(f"{float(value):.{n}g}")


@pytest.fixture(scope="module")
def cosine():
    return NoiseSchedule.cosine()


@pytest.mark.parametrize("t, alpha_bar, signal, beta, variance", PRINTED)
def test_cosine_has_the_printed_values(cosine, t, alpha_bar, signal, beta, variance):
    step = cosine.jump(t, t - 1)
    assert digits(cosine.alpha_bar[t], 10) == alpha_bar
    assert digits(cosine.noise_level(t), 8) == signal
    assert digits(step.beta, 8) == beta
    assert digits(step.std**2, 8) == variance


@pytest.mark.parametrize(
    "t, u, beta, variance, x0_coef, xt_coef",
    [
        (20, 10, 0.075493637, 0.020799052, 0.73481859, 0.26490377),
        (100, 90, 0.99998992, 0.97589868, 0.15521356, 0.0030984942),
    ],
)
def test_jumps_of_ten_have_the_printed_values(cosine, t, u, beta, variance, x0_coef, xt_coef):
    wide = cosine.jump(t, u)
    got = (wide.beta, wide.std**2, wide.x0_coef, wide.xt_coef)
    assert tuple(digits(x, 8) for x in got) == (beta, variance, x0_coef, xt_coef)


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
def test_cosine_telescopes_to_its_closed_form(steps):
    """Where nothing is clipped the product of 1 - β is f(t)/f(0)."""
    table = NoiseSchedule.cosine(steps).alpha_bar
    assert table.dtype == np.float64 and table.shape == (steps + 1,) and table[0] == 1
    f = [math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(steps + 1)]
    np.testing.assert_allclose(table[:-1], np.array(f[:-1]) / f[0], rtol=1e-12)
    assert table[-1] == pytest.approx(0.001 * table[-2], rel=1e-12)
    np.testing.assert_allclose(table, cosine_table(steps), rtol=1e-12)


def test_only_the_topmost_step_is_clipped():
    for steps in (2, 10, 100, 1000):
        table = NoiseSchedule.cosine(steps).alpha_bar
        betas = 1 - table[1:] / table[:-1]
        assert (betas[:-1] < 0.998).all() and betas[-1] == pytest.approx(0.999, abs=1e-12)


def test_linear_2000_is_the_schedule_of_sr3():
    schedule = NoiseSchedule.linear()
    assert schedule.steps == 2000 and schedule.alpha_bar[1] == 1 - 1e-6
    logs, closed = 0.0, [1.0]
    for i in range(2000):
        logs += math.log1p(-(1e-6 + (1e-2 - 1e-6) * i / 1999))
        closed.append(math.exp(logs))
    np.testing.assert_allclose(schedule.alpha_bar, closed, rtol=1e-11)
    assert schedule.jump(2000, 1999).beta == pytest.approx(1e-2, rel=1e-12)


def test_strided_coarse_levels_are_every_nth_of_the_full_table(cosine):
    for coarse_steps in (1, 2, 4, 5, 10, 20, 25, 50, 100):
        width = 100 // coarse_steps
        assert cosine.stride(coarse_steps) == width
        expected = [cosine.alpha_bar[width * s] for s in range(coarse_steps + 1)]
        np.testing.assert_array_equal(cosine.coarse(coarse_steps), expected)


def test_rebuilt_coarse_levels_are_eq_9_with_s_steps(cosine):
    for coarse_steps in (1, 2, 4, 5, 10, 20, 25, 50, 100):
        rebuilt = cosine.coarse(coarse_steps, "rebuilt")
        np.testing.assert_allclose(rebuilt, cosine_table(coarse_steps), rtol=1e-9)
        np.testing.assert_allclose(rebuilt[:-1], cosine.coarse(coarse_steps)[:-1], rtol=1e-12)
    top = cosine.coarse(10, "rebuilt")[-1]
    assert digits(top, 4) == 2.409e-5 and top == pytest.approx(0.001 * cosine.alpha_bar[90], rel=1e-12)
    assert digits(cosine.coarse(10)[-1], 4) == 2.429e-7


@pytest.mark.parametrize("schedule", [NoiseSchedule.cosine(40), NoiseSchedule.linear(30, 1e-4, 0.02)])
def test_config_rebuilds_the_table_to_the_bit(schedule):
    np.testing.assert_array_equal(NoiseSchedule.from_config(schedule.config).alpha_bar, schedule.alpha_bar)


def test_jumps_and_levels_work_elementwise(cosine):
    t, u = np.array([[100, 7], [3, 50]]), np.array([[90, 0], [1, 49]])
    together = cosine.jump(t, u)
    for i in np.ndindex(2, 2):
        alone = cosine.jump(int(t[i]), int(u[i]))
        for name in ("beta", "x0_coef", "xt_coef", "std"):
            assert getattr(together, name)[i] == getattr(alone, name)
        assert cosine.noise_level(t)[i] == cosine.noise_level(int(t[i]))


def test_a_jump_to_level_zero_returns_x0_exactly(cosine):
    last = cosine.jump(np.arange(1, 101), 0)
    assert (last.x0_coef == 1).all() and (last.xt_coef == 0).all() and (last.std == 0).all()


LEVELS = (
    st.lists(st.floats(1e-7, 1.0), min_size=3, max_size=3, unique=True)
    .map(sorted)
    .filter(lambda x: x[1] - x[0] > 1e-6 * x[1] and x[2] - x[1] > 1e-6 * x[2])
)


@settings(max_examples=300, deadline=None)
@given(LEVELS)
def test_composing_a_jump_with_the_forward_process_gives_the_forward_process(levels):
    """∫ q(x_u | x_t, x_0) q(x_t | x_0) dx_t = q(x_u | x_0): means and variances, for any two levels."""
    at, au, _ = levels
    j = jump(at, au)
    assert j.x0_coef + j.xt_coef * math.sqrt(at) == pytest.approx(math.sqrt(au), abs=1e-8)
    assert j.xt_coef**2 * (1 - at) + j.std**2 == pytest.approx(1 - au, abs=1e-8)
    # … and the covariance of x_u and x_t is that of the forward process.
    assert j.xt_coef * (1 - at) == pytest.approx(math.sqrt(at / au) * (1 - au), abs=1e-8)


@settings(max_examples=300, deadline=None)
@given(LEVELS)
def test_two_jumps_make_one(levels):
    """With x_0 known the reverse chain is Markov: t → v → u has the moments of t → u."""
    at, av, au = levels
    first, second, whole = jump(at, av), jump(av, au), jump(at, au)
    assert second.x0_coef + second.xt_coef * first.x0_coef == pytest.approx(whole.x0_coef, abs=1e-8)
    assert second.xt_coef * first.xt_coef == pytest.approx(whole.xt_coef, abs=1e-8)
    assert (second.xt_coef * first.std) ** 2 + second.std**2 == pytest.approx(whole.std**2, abs=1e-8)


@settings(max_examples=300, deadline=None)
@given(LEVELS, st.floats(-3, 3), st.floats(-3, 3))
def test_a_jump_is_bayes_rule(levels, x0, xt):
    at, au, _ = levels
    j = jump(at, au)
    mean, variance = posterior(at, au, x0, xt)
    assert j.x0_coef * x0 + j.xt_coef * xt == pytest.approx(mean, abs=1e-7)
    assert j.std**2 == pytest.approx(variance, abs=1e-8)


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-12, 1, exclude_max=True))
def test_variance_is_zero_at_level_zero(at):
    j = jump(at, 1.0)
    assert (j.x0_coef, j.xt_coef, j.std) == (1, 0, 0)


@pytest.mark.parametrize(
    "at, au", [(0.5, 0.5), (0.6, 0.5), (0.0, 0.5), (-0.1, 0.5), (0.5, 1.1), (math.nan, 0.5), (0.5, math.nan)]
)
def test_jumps_towards_noise_are_refused(at, au):
    with pytest.raises(ValueError, match="less noise"):
        jump(at, au)


def test_a_bad_element_among_good_ones_is_refused():
    with pytest.raises(ValueError, match="less noise"):
        jump([0.1, 0.5], [0.2, 0.4])


@pytest.mark.parametrize("coarse_steps", [0, -10, 3, 7, 200])
def test_coarse_steps_must_divide_t(cosine, coarse_steps):
    for call in (cosine.stride, cosine.coarse):
        with pytest.raises(
            ValueError, match=f"coarse_steps={coarse_steps} must (divide|be a whole number from 1 to 100)"
        ):
            call(coarse_steps)


def test_bad_requests_are_refused_by_name(cosine):
    with pytest.raises(ValueError, match="unknown coarse rule 'every'"):
        cosine.coarse(10, "every")
    with pytest.raises(ValueError, match="unknown schedule kind 'sigmoid'"):
        NoiseSchedule.from_config({"kind": "sigmoid"})
    with pytest.raises(ValueError, match="unknown schedule kind None"):
        NoiseSchedule.from_config({})
    with pytest.raises(ValueError, match="bad cosine schedule.*beta_start"):
        NoiseSchedule.from_config({"kind": "cosine", "beta_start": 1e-6})
    with pytest.raises(ValueError, match="fall strictly"):
        NoiseSchedule.linear(10, 0.5, 1.5)


@pytest.mark.parametrize(
    "table",
    [[1.0], [0.9, 0.5], [1.0, 0.5, 0.5], [1.0, 0.5, 0.7], [1.0, 0.5, 0.0], [1.0, math.nan], [[1.0, 0.5]]],
)
def test_tables_that_are_no_schedule_are_refused(table):
    with pytest.raises(ValueError, match="fall strictly"):
        NoiseSchedule(np.array(table), {})


def test_the_table_cannot_be_written(cosine):
    with pytest.raises(ValueError):
        cosine.alpha_bar[3] = 0.5


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("steps", [0, -5])
@pytest.mark.parametrize("build", [NoiseSchedule.cosine, NoiseSchedule.linear])
def test_schedules_without_steps_are_refused(build, steps):
    with pytest.raises(ValueError):
        build(steps)
