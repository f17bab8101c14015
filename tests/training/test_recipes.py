"""Recipes: the shipped ones are what they say, and mistakes in one are named."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from skipdiff_env.diffusion import UNet, UNetConfig
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training import Recipe, available_recipes, load_recipe
from skipdiff_env.training.recipe import differences

MINIMAL = {
    "name": "mine", "model": {"scale": 4, "image_size": 32}, "batch": 2,
    "data": {"crop": 16}, "optimiser": {"lr": 1e-3},
}  # fmt: skip


def network_of(recipe: Recipe) -> UNet:
    with torch.device("meta"):
        return UNet(recipe.model.unet)


def test_the_promised_recipes_ship() -> None:
    promised = {"natural-4x", "natural-4x-real", "face-8x", "sr3-face-8x", "sr3-natural-4x", "tiny"}
    assert promised <= set(available_recipes())


@pytest.mark.parametrize("name", available_recipes())
@pytest.mark.parametrize("cuda", [False, True])
def test_every_shipped_recipe_can_be_read_and_written_back(name: str, cuda: bool) -> None:
    recipe = load_recipe(name, cuda)
    assert recipe.name == name
    assert load_recipe(recipe.to_dict()) == recipe


@pytest.mark.parametrize(("name", "size"), [("natural-4x", 256), ("natural-4x-real", 256), ("face-8x", 256)])
def test_shipped_models_fit_a_laptop(name: str, size: int) -> None:
    network = network_of(load_recipe(name))
    assert 2 * sum(p.numel() for p in network.parameters()) <= 15.9e6  # bytes in fp16, leaving room for names
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 6, size, size), torch.ones(1))
    assert counter.get_total_flops() / 2 <= 12e9


def test_natural_4x_is_what_the_shipped_weights_were_trained_by() -> None:
    recipe = load_recipe("natural-4x")
    assert recipe.model.unet == UNetConfig(
        channels=48, multipliers=(1, 2, 3, 4), res_blocks=1, patch_size=2, norm_groups=8, dropout=0.0,
        attention_sizes=(), middle_attention=False, zero_init=True, image_size=256, level_embedding="log_snr",
    )  # fmt: skip
    model = (recipe.model.prediction, recipe.model.target, recipe.model.residual_scale, recipe.model.scale)
    assert model == ("v", "residual", 5.0, 4)
    options = {
        "lr": 6e-4,
        "kind": "muon",
        "betas": (0.9, 0.99),
        "weight_decay": 0.0,
        "warmup": 300,
        "clip": 1.0,
        "ema": 0.999,
    }
    assert asdict(recipe.optimiser) == options
    assert (recipe.batch, recipe.data.crop, recipe.loss.norm, recipe.loss.min_snr) == (8, 96, "l2", None)
    assert (recipe.data.zoom, recipe.data.colour, recipe.degradation) == (1.0, 0.0, None)


@pytest.mark.parametrize(("name", "count"), [("sr3-face-8x", 97_807_491), ("sr3-natural-4x", 92_556_931)])
def test_sr3_recipes_are_the_published_networks(name: str, count: int) -> None:
    recipe = load_recipe(name)
    assert sum(p.numel() for p in network_of(recipe).parameters()) == count
    assert (recipe.model.prediction, recipe.model.target, recipe.loss.norm) == ("noise", "image", "l1")
    assert recipe.model.schedule == {"kind": "cosine", "steps": 100, "s": 0.008}
    assert (recipe.optimiser.ema, recipe.model.unet.dropout) == (0.9999, 0.2)


def test_natural_4x_real_is_natural_4x_with_faults() -> None:
    plain, real = load_recipe("natural-4x"), load_recipe("natural-4x-real")
    assert real.model == plain.model and real.init == "natural-4x"
    assert real.degradation is not None and real.degradation.jpeg.share > 0


def test_the_cuda_block_is_laid_over_the_rest_on_cuda_alone() -> None:
    source = {**MINIMAL, "cuda": {"batch": 64, "data": {"zoom": 1.5}}}
    cpu, cuda = load_recipe(source), load_recipe(source, cuda=True)
    assert (cpu.batch, cpu.data.zoom, cpu.data.crop) == (2, 1.0, 16)
    assert (cuda.batch, cuda.data.zoom, cuda.data.crop) == (64, 1.5, 16)
    assert differences(cpu.to_dict(), cuda.to_dict()) == ["batch", "data.zoom"]
    changed = load_recipe(source, cuda=True, overrides=["data.zoom=1.25", "loss.norm=l1"])
    assert (changed.batch, changed.data.zoom, changed.loss.norm) == (64, 1.25, "l1")


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nbatch: 2\nmodel: {scale: 4, image_size: 32}\ndata: {crop: 16}\noptimiser: {lr: 1e-4}\n"
    )
    assert load_recipe(file).optimiser.lr == 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.corp=3"], r"unknown key 'data.corp'"),
        (["speed=3"], r"unknown key 'speed'"),
        (["model.unet.chanels=3"], r"model: unknown field unet.'chanels'"),
        (["model.prediction=w"], r"model: unknown prediction 'w'"),
        (["batch=many"], r"batch = 'many' is not of type int"),
        (["batch=true"], r"batch = True is not of type int"),
        (["optimiser.lr=fast"], r"optimiser.lr = 'fast' is not of type float"),
        (["loss.norm=l3"], r"loss.norm = 'l3' must be one of l1, l2"),
        (["data=16"], r"data must hold keys and values"),
        (["data.crop=18"], r"data.crop = 18 must be a multiple of scale 4"),
        (["batch=0"], r"batch = 0 must be at least 1"),
        (["data.crop=0"], r"data.crop = 0 must be at least 1"),
        (["data.crop=-16"], r"data.crop = -16 must be at least 1"),
        (["data.resize_short=0"], r"data.resize_short = 0 must be at least 1"),
        (["data.zoom=0.5"], r"data.zoom = 0.5 must be at least 1"),
        (["data.zoom=.nan"], r"data.zoom = nan must be at least 1"),
        (["data.zoom=.inf"], r"data.zoom = inf must be finite and at least 1"),
        (["data.colour=2"], r"data.colour = 2.0 must be from 0 to 1"),
        (["data.weights={cat: -1}"], r"data.weights.cat = -1.0 must be at least 0"),
        (["optimiser.lr=-1"], r"optimiser.lr = -1.0 must be at least 0"),
        (["optimiser.warmup=-1"], r"optimiser.warmup = -1 must be at least 0"),
        (["optimiser.weight_decay=-1"], r"optimiser.weight_decay = -1.0 must be at least 0"),
        (["optimiser.clip=0"], r"optimiser.clip = 0.0 must be above 0"),
        (["optimiser.ema=1"], r"optimiser.ema = 1.0 must be at least 0 and below 1"),
        (["optimiser.betas=[0.9, -1]"], r"optimiser.betas = -1.0 must be at least 0 and below 1"),
        (["loss.min_snr=0"], r"loss.min_snr = 0.0 must be above 0"),
        (["validation.every=0"], r"validation.every = 0 must be at least 1"),
        (["validation.images=-1"], r"validation.images = -1 must be at least 0"),
        (["validation.grid=-1"], r"validation.grid = -1 must be at least 0"),
        (["checkpoint_minutes=.nan"], r"checkpoint_minutes = nan must be at least 0"),
        (["model.unet.channels=0"], r"model.unet does not describe a network: "),
        (["model.unet.channels=-1"], r"model.unet does not describe a network: "),
        (["model.unet.norm_groups=3"], r"model.unet does not describe a network: .*divisible"),
        (["model.unet.patch_size=0"], r"model.unet does not describe a network: "),
        (["model.unet.patch_size=-1"], r"model.unet does not describe a network: "),
        (["model.unet.dropout=2"], r"model.unet does not describe a network: dropout probability"),
        (["crop"], r"'crop' is not a change"),
    ],
)
def test_mistakes_are_named(changes: list[str], message: str) -> None:
    with pytest.raises(SkipDiffError, match=f"recipe mine: .*{message}") as error:
        load_recipe(MINIMAL, overrides=changes)
    assert "\n" not in str(error.value)


ADVERSARIAL = "adversarial={weight: 0.01}"
VALUES = [
    ("consistency={every: 0}", r"consistency.every = 0 must be at least 1"),
    (f"refiner={{steps: [], {ADVERSARIAL}}}", r"refiner.steps = \(\) must hold"),
    (f"refiner={{steps: [2, 0], {ADVERSARIAL}}}", r"refiner.steps = \(2, 0\) must hold"),
    (f"refiner={{lpips: -1, {ADVERSARIAL}}}", r"refiner.lpips = -1.0 must be at least 0"),
    (f"refiner={{reuse: 0, {ADVERSARIAL}}}", r"refiner.reuse = 0 must be at least 1"),
    (f"addsr={{self_refinement: 5, {ADVERSARIAL}}}", r"addsr.self_refinement = 5.0 must be from 0 to 1"),
    ("addsr={adversarial: {weight: -1}}", r"addsr.adversarial.weight = -1.0 must be at least 0"),
    ("addsr={adversarial: {weight: 1, lr_share: 0}}", r"addsr.adversarial.lr_share = 0.0 must be above 0"),
    ("degradation.jpeg={share: 7, low: 40, high: 95}", r"degradation.jpeg.share = 7.0 must be from 0 to 1"),
    ("degradation.jpeg={share: 1, low: 40, high: 150}", r"degradation.jpeg must be from 1 to 100"),
    ("degradation.jpeg={share: 1, low: 0, high: 95}", r"degradation.jpeg must be from 1 to 100"),
    ("degradation.noise={share: 1, low: 9, high: 8}", r"degradation.noise.low = 9.0 .* high = 8.0"),
    ("degradation.noise={share: 1, low: -1, high: 8}", r"degradation.noise.low = -1.0"),
    ("degradation.blur={share: 1, low: 0, high: 9}", r"degradation.blur must be from 0 to 2.5"),
    ("degradation.resize={share: 1, low: 0.1, high: 2}", r"degradation.resize must be from 0.25 to 4"),
    ("degradation.webp={share: 1, low: 0, high: 95}", r"degradation.webp must be from 1 to 100"),
    ("degradation.again=2", r"degradation.again = 2.0 must be from 0 to 1"),
]


@pytest.mark.parametrize(("change", "message"), VALUES)
def test_values_that_cannot_be_meant_are_refused_before_training(change: str, message: str) -> None:
    change = change.replace("adversarial=", "adversarial: ")
    if change.startswith("refiner="):
        change = change.replace("{", "{unet: {channels: 8, multipliers: [1]}, ", 1)
    source = {**MINIMAL, "model": {**MINIMAL["model"], "prediction": "v"}, "data": {"crop": 64}}
    with pytest.raises(SkipDiffError, match=f"recipe mine: {message}") as error:
        load_recipe(source, overrides=[change])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("block", ["consistency: {}", "refiner: {unet: {}, A}", "addsr: {A}"])
def test_programs_that_begin_at_the_top_need_v_prediction(block: str) -> None:
    key, _, value = block.replace("A}", "adversarial: {weight: 0.01}}").partition(": ")
    source = {**MINIMAL, "data": {"crop": 64}}
    with pytest.raises(SkipDiffError, match=f"{key} needs prediction v"):
        load_recipe(source, overrides=[f"{key}={value}"])
    load_recipe(source, overrides=[f"{key}={value}", "model.prediction=v"])


def test_a_mistake_in_the_cuda_block_is_found_without_cuda() -> None:
    with pytest.raises(SkipDiffError, match="unknown key 'data.corp'"):
        load_recipe({**MINIMAL, "cuda": {"data": {"corp": 1}}})


def test_missing_keys_unknown_names_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SkipDiffError, match="key 'batch' is missing"):
        load_recipe({key: value for key, value in MINIMAL.items() if key != "batch"})
    with pytest.raises(SkipDiffError, match="unknown recipe 'natural-5x': use one of .*natural-4x"):
        load_recipe("natural-5x")
    for text, message in (("a: [", "is not YAML"), ("- 1", "is not a recipe")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(SkipDiffError, match=message):
            load_recipe(tmp_path / "bad.yaml")
