"""Schedules given by their betas, and long ones walked in fewer levels."""

import json
import math

import numpy as np
import pytest

from skipdiff_env.diffusion import NoiseSchedule


def test_every_twentieth_level_of_sr3():
    """√ᾱ of 2000 linear steps at t = 0, 20, … 2000, by direct summation of ln(1 - β)."""
    schedule = NoiseSchedule.linear().respaced(100)
    assert schedule.steps == 100 and schedule.alpha_bar[0] == 1
    betas = [1e-6 + (1e-2 - 1e-6) * i / 1999 for i in range(2000)]
    closed = [math.exp(math.fsum(math.log1p(-b) for b in betas[: 20 * k])) for k in range(101)]
    np.testing.assert_allclose(schedule.alpha_bar, closed, rtol=1e-11)
    np.testing.assert_allclose(schedule.alpha_bar, NoiseSchedule.linear().alpha_bar[::20], rtol=1e-15)


def test_between_levels_the_noise_level_is_interpolated():
    whole = NoiseSchedule.linear(10, 1e-3, 0.2)
    respaced = whole.respaced(4)
    signal = whole.noise_level(np.arange(11))
    wanted = [1, (signal[2] + signal[3]) / 2, signal[5], (signal[7] + signal[8]) / 2, signal[10]]
    np.testing.assert_allclose(respaced.noise_level(np.arange(5)), wanted, rtol=1e-14)


@pytest.mark.parametrize(
    "schedule",
    [
        NoiseSchedule.linear().respaced(100),
        NoiseSchedule.cosine(1000).respaced(300).respaced(7),
        NoiseSchedule.from_betas([0.1, 0.5, 0.25]),
    ],
)
def test_configs_rebuild_them_through_json(schedule):
    again = NoiseSchedule.from_config(json.loads(json.dumps(schedule.config)))
    np.testing.assert_array_equal(again.alpha_bar, schedule.alpha_bar)
    assert again.config == schedule.config


def test_as_many_levels_as_there_are_change_nothing():
    schedule = NoiseSchedule.cosine()
    assert schedule.respaced(100) is schedule


def test_betas_are_step_variances():
    np.testing.assert_allclose(NoiseSchedule.from_betas([0.1, 0.5]).alpha_bar, [1, 0.9, 0.45])
    np.testing.assert_array_equal(
        NoiseSchedule.from_betas(np.linspace(1e-6, 1e-2, 2000)).alpha_bar, NoiseSchedule.linear().alpha_bar
    )


@pytest.mark.parametrize("levels", [0, -1, 101, 2.5, "7", None])
def test_impossible_levels_are_refused(levels):
    with pytest.raises(ValueError, match=r"levels=.* from 1 to 100, the schedule's T"):
        NoiseSchedule.cosine().respaced(levels)


@pytest.mark.parametrize(
    "config, words",
    [
        ({"kind": "respaced", "levels": 5}, "bad respaced schedule"),
        ({"kind": "respaced", "levels": 5, "of": None}, "bad respaced schedule"),
        ({"kind": "respaced", "levels": 5, "of": {"kind": "cosine", "steps": 3}}, "levels=5"),
        ({"kind": "respaced", "levels": 5, "of": {"kind": "square"}}, "unknown schedule kind 'square'"),
        ({"kind": "betas"}, "bad betas schedule"),
        ({"kind": "betas", "betas": [0.1, 1.0]}, "stay above 0"),
        ({"kind": "betas", "betas": [0.1, 0.0]}, "fall strictly"),
        ({"kind": "betas", "betas": []}, "fall strictly"),
    ],
)
def test_bad_configs_are_refused(config, words):
    with pytest.raises(ValueError, match=words):
        NoiseSchedule.from_config(config)
