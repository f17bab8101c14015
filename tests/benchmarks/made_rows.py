"""Rows and subjects that were made up."""

from __future__ import annotations

import numpy as np

from benchmarks.measure.metrics import METRICS
from benchmarks.measure.results import Results
from benchmarks.measure.sampler import Sampler
from benchmarks.measure.samplers import catalogue
from benchmarks.measure.store import Row
from benchmarks.paper.parts import Subject
from skipdiff_env.diffusion import random_model, tiny_config


def subject(scale=4, start=7, reward="", budgets=(), paper="", **others):
    """What can be measured on a model of T = 100; with a reward there is an agent, too.

    Args:
        paper: which of the paper's sets the images are of.
        others: families of further samplers, by their keys.
    """
    samplers = catalogue(random_model(tiny_config()), start, budgets=budgets)
    made = {key: Sampler(key, key, lambda *_: None, frozenset(), family) for key, family in others.items()}
    if reward:
        key = "agent-10-10-0123"
        made[key] = Sampler(key, key, lambda *_: None, frozenset(), "agent", agent=reward)
    return Subject(scale, 100, start, samplers | made, reward, paper=paper)


SUBJECT = subject(reward="NIQE")


def rows(sampler, evaluations=16, images=8, seeds=2, start=0, seed=0, **means):
    """Rows around given means, with the same scatter for every sampler: differences are exact."""
    scatter = np.random.default_rng(seed).normal(0, 1, (images, seeds))
    values = {metric.name: 5.0 for metric in METRICS} | means
    return [
        Row("m", "float32 cpu", f"i{i}", s, sampler, scores, evaluations, start)
        for i in range(images)
        for s in range(seeds)
        for scores in [{name: value + scatter[i, s] for name, value in values.items()}]
    ]


def made_up():
    """SkipDiff: better PSNR and LPIPS than the full chain, worse NIQE; best starts 7 (NIQE), 10 (LPIPS)."""
    found = rows("csa-100", 100, psnr=24.0, niqe=3.5, lpips=0.20) + rows(
        "agent-10-10-0123", psnr=25, niqe=4.0, lpips=0.19, start=7
    )
    for k in range(1, 11):
        found += rows(
            f"skip-10-10-{k}", 9 + k, psnr=24 + k / 10, niqe=4.0 + abs(k - 7), lpips=0.3 - k / 100, start=k
        )
    found += (
        rows("ddim-16", 16, psnr=26.0, niqe=6.0, lpips=0.19)
        + rows("ddim-50", 50)
        + rows("ccsr-16", 16, psnr=25, niqe=4, lpips=0.19, seed=9)
    )
    return Results(found)
