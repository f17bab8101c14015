"""What ships: size, cost, provenance, card, and that the demo's claim holds for the demo's picture."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure.evaluate import Evaluation
from benchmarks.measure.samplers import catalogue
from benchmarks.measure.store import Store
from skipdiff_env import load_pretrained
from skipdiff_env.diffusion import UNet, available_models
from skipdiff_env.images import demo_photograph, open_source

FEW_STEP = ("ccsr-", "addsr-")
"""Of names of models that are made for chains of few evaluations, where nothing is refined level by level."""


@pytest.mark.parametrize("name", available_models())
def test_a_model_fits_a_laptop_and_says_where_it_comes_from(name):
    folder, model = available_models()[name], load_pretrained(name, "cpu")
    assert (folder / "ddpm.safetensors").stat().st_size <= 16 * 2**20
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        UNet(model.config.unet)(torch.zeros(1, 6, 256, 256), torch.ones(1))
    assert counter.get_total_flops() / 2 <= 12e9
    training = model.config.training
    assert training["steps"] > 0 and training["hours"] > 0 and training["data"] and training["hardware"]
    if not name.startswith(FEW_STEP):
        assert 1 <= model.config.start <= 10
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Terms" in card or "terms" in card
    assert f"{training['hours']:.1f}" in card or f"{training['hours']}" in card
    assert f"{training['steps']}" in card


def test_natural_4x_beats_bicubic_on_the_demo_s_picture():
    model = load_pretrained("natural-4x", "cpu")
    samplers = catalogue(model, model.config.start)
    chosen = [samplers["bicubic"], samplers[f"skip-10-10-{model.config.start}"]]
    bicubic, ours = Evaluation(model, open_source([demo_photograph()]), chosen, Store()).run()
    assert ours.value("lpips") <= 0.65 * bicubic.value("lpips")
    assert ours.value("niqe") < bicubic.value("niqe")
    assert ours.value("consistency") > bicubic.value("consistency")
