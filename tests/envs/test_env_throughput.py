"""The benchmark's figures, by a clock that moves only where we say."""

import importlib

import numpy as np
import pytest

from skipdiff_env.diffusion import random_model, tiny_config

CALL, SCORE, OUTSIDE = 1.0, 0.5, 2.0
"""Seconds of a network call, of a call of the metric, and of making a condition, which is neither."""


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def slow(self, function, seconds):
        def slowed(*arguments):
            self.now += seconds
            return function(*arguments)

        return slowed


class Brightness:
    name, lower_better, reference, min_size = "brightness", False, False, 1

    def __call__(self, images, references):
        return images.mean((1, 2, 3)) + 1.0


def test_figures_are_those_of_the_clock(monkeypatch):
    throughput = importlib.import_module("benchmarks.speed.environment")
    clock, model = Clock(), random_model(tiny_config())
    monkeypatch.setattr(throughput, "time", clock)
    monkeypatch.setattr(model.network, "forward", clock.slow(model.network.forward, CALL))
    monkeypatch.setattr(model, "condition", clock.slow(model.condition, OUTSIDE))
    monkeypatch.setattr(Brightness, "__call__", clock.slow(Brightness.__call__, SCORE))
    monkeypatch.setattr(throughput, "load_metric", lambda *_: Brightness())
    line = throughput.measure(model, batch=2, episodes=1)
    denoised = np.random.default_rng(1).integers(0, 2, (9, 2)) == 0  # the measured episode's actions
    assert denoised.any(axis=1).sum() < denoised.sum()
    # nine calls of CSA, one for each step in which any row denoises, and the last one
    batched = CALL * (9 + denoised.any(axis=1).sum() + 1) + SCORE + OUTSIDE
    single = CALL * (2 * (9 + 1) + denoised.sum()) + 2 * SCORE + 2 * OUTSIDE
    assert line.batch == 2 and line.call_ms == pytest.approx(1000 * CALL)
    assert line.outside == pytest.approx(OUTSIDE / batched)
    assert (line.batched, line.single) == pytest.approx((18 / batched, 18 / single))
    assert line.gain == pytest.approx(single / batched)
    assert not model.network._forward_hooks and not model.network._forward_pre_hooks


def test_the_table_is_printed(capsys, monkeypatch):
    throughput = importlib.import_module("benchmarks.speed.environment")
    line = throughput.Throughput(2, 1.5, 0.25, 30.0, 20.0, 1.5)
    monkeypatch.setattr(throughput, "load_pretrained", lambda name, device: "a model")
    monkeypatch.setattr(throughput, "measure", lambda model, batch, episodes: line)
    assert throughput.main(["--batches", "2", "--episodes", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "192x192 images" in printed[0] and printed[1:] == [throughput.HEADER, str(line)]
