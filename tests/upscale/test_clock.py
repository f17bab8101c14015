"""Forecasts of time, by a clock that the test moves."""

from __future__ import annotations

import pytest
import torch

from skipdiff_env.chains import CCSR, Refined, with_detail
from skipdiff_env.diffusion import random_model
from skipdiff_env.upscale import Clock, Enlarger, clock
from skipdiff_env.web.study import Metered


class Slow:
    """A function whose calls take a while of a time that is not real."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.sides = list(seconds), set[int]()

    def __call__(self, x: torch.Tensor, *further: torch.Tensor) -> torch.Tensor:
        Slow.now += self.seconds.pop(0)
        self.sides.add(x.shape[-1])
        return x

    now = 0.0


@pytest.fixture(autouse=True)
def unreal_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock.time, "perf_counter", lambda: Slow.now)


def test_the_second_call_counts_and_every_call_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, network, refine = random_model(), Slow(50, 2), Slow(30, 1)
    monkeypatch.setattr(model, "predict", network)
    chain = with_detail(Refined(CCSR(4), refine), 0.5, model)
    found = Clock(model, 64)
    assert found.call == found.call == 2 / 64**2
    assert found.once(chain) == found.once(chain) == 1 / 64**2
    assert found.once(CCSR(4)) == 0
    assert network.sides == refine.sides == {64}
    enlarger = Enlarger(model, chain, 0, 128, clock=found)
    work = enlarger.work((16, 16), (64, 64))
    assert (work.calls, work.pixels) == (5, 5 * 64**2)
    assert enlarger.seconds(work) == pytest.approx(5 * 2 + 1)
    found.learn(1000, 3)
    assert enlarger.seconds(work) == pytest.approx(5 * 64**2 * 0.003 + 1)


def test_a_restorer_counts_once_for_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    model, restore = random_model(), Slow(7, 3)
    monkeypatch.setattr(model, "predict", Slow(5, 2))
    monkeypatch.setattr(model, "restorer", restore)
    assert Clock(Metered(model), 64).once(CCSR(4)) == 3 / 64**2  # as on the web page
    restore.seconds += [7, 3]
    found = Clock(model, 64)
    assert found.once(CCSR(4)) == found.once(CCSR(4)) == 3 / 64**2 and restore.sides == {16}
    enlarger = Enlarger(model, CCSR(4), 0, 128, clock=found)
    assert enlarger.seconds(enlarger.work((16, 16), (64, 64))) == pytest.approx(4 * 2 + 3)


def test_large_tiles_are_timed_by_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model, network = random_model(), Slow(1, 1)
    monkeypatch.setattr(model, "predict", network)
    enlarger = Enlarger(model, CCSR(1), 0, 512)
    assert enlarger.seconds(enlarger.work((128, 128), (512, 512))) == pytest.approx(4)
    assert network.sides == {clock.CALIBRATION}
