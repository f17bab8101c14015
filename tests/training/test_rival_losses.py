"""CCSR's and AddSR's losses once more in float64, and what they are made of."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from skipdiff_env.diffusion import NoiseSchedule, UNet, load_pretrained, save_model
from skipdiff_env.diffusion.model import ModelConfig, random_model, tiny_config
from skipdiff_env.diffusion.refiner import RefinerNetwork
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics import load_metric
from skipdiff_env.training import load_recipe
from skipdiff_env.training.data.bank import ImageBank
from skipdiff_env.training.distributed import World
from skipdiff_env.training.trainers.addsr import AddSRTrainer, distillation_loss, mean_weight, step_weight
from skipdiff_env.training.trainers.base import BatchMaker
from skipdiff_env.training.trainers.consistency import consistency_loss
from skipdiff_env.training.trainers.critics import (
    ALIKE,
    COLLAPSE_STEPS,
    CollapseWatch,
    FeatureCritic,
    PatchCritic,
    critic_hinge,
    generator_hinge,
)
from skipdiff_env.training.trainers.features import Lpips

RNG = np.random.default_rng(0)


def arrays(count: int, *shape: int) -> list[np.ndarray]:
    return [RNG.normal(size=shape or (2, 3, 8, 8)) for _ in range(count)]


class Affine(nn.Module):
    """0.3 x_t + 0.5 c + 0.2 √ᾱ."""

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return 0.3 * x[:, 3:] + 0.5 * x[:, :3] + 0.2 * level[:, None, None, None]


def test_the_consistency_loss_in_float64() -> None:
    config = tiny_config(target="residual", residual_scale=5.0)
    target, c, noise, again = arrays(4)
    table = NoiseSchedule.cosine().alpha_bar
    root = math.sqrt(table[66]) + (math.sqrt(table[67]) - math.sqrt(table[66])) * (2 / 3)

    def network(x: np.ndarray, a: float) -> np.ndarray:
        return 0.3 * x + 0.5 * c + 0.2 * a

    top, bottom = math.sqrt(table[100]), math.sqrt(1 - table[100])
    x_top = top * target + bottom * noise
    first = top * x_top - bottom * network(x_top, top)
    sigma = math.sqrt(1 - root**2)
    x = root * first + sigma * again
    v = network(x, root)
    second, predicted = root * x - sigma * v, sigma * x + root * v
    parts = [(first - target) ** 2, (second - target) ** 2, (predicted - again) ** 2]
    expected = sum(part.mean() for part in parts)
    found = consistency_loss(Affine(), config, *map(torch.from_numpy, (target, c, noise, again)))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_a_perfect_network_has_no_consistency_loss() -> None:
    target, c, noise, again = (torch.from_numpy(a) for a in arrays(4))

    class Perfect(nn.Module):
        """v of the x_0 and ε that made x_t."""

        def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            a = level[:, None, None, None].double()
            s = (1 - a**2).sqrt()
            return a * (x[:, 3:] - a * target) / s - s * target

    loss = consistency_loss(Perfect(), tiny_config(), target, c, noise, again)
    assert loss.item() < 1e-10


def test_gradients_of_the_consistency_loss_go_through_both_evaluations() -> None:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)

    class Scaled(Affine):
        def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            return scale * super().forward(x, level)

    args = [torch.from_numpy(a) for a in arrays(4)]
    consistency_loss(Scaled(), tiny_config(), *args).backward()
    gradient = scale.grad.item()
    with torch.no_grad():
        values = []
        for delta in (1e-3, -1e-3):
            scale.fill_(1 + delta)
            values.append(consistency_loss(Scaled(), tiny_config(), *args).item())
    assert gradient == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-3)


def test_the_adaptive_weights() -> None:
    """The first evaluation may be the last."""
    assert [step_weight(s) for s in (1, 2, 3, 4)] == pytest.approx([4.6305, 1.05, 2.205, 4.6305], rel=1e-12)


def test_the_distillation_loss_in_float64() -> None:
    """In units of pixels in [0, 1], as a picture's MSE is."""
    x0, wanted = arrays(2)
    level = np.array([0.3, 0.9])
    pixels = [(image + 1) / 2 for image in (x0, wanted)]
    expected = 2.205 * (level * ((pixels[0] - pixels[1]) ** 2).mean(axis=(1, 2, 3))).mean()
    found = distillation_loss(*map(torch.from_numpy, (x0, wanted, level)), 2.205)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_hinge_losses_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.25])
    assert critic_hinge(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1.25) / 2)
    assert generator_hinge(fake).item() == pytest.approx((3 - 0.25) / 2)


def test_lpips_of_training_is_lpips_of_the_metrics() -> None:
    a, b = (RNG.integers(0, 256, (2, 40, 48, 3), dtype=np.uint8) for _ in range(2))
    signed = [torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (a, b)]
    assert Lpips()(*signed).numpy() == pytest.approx(load_metric("lpips")(a, b), rel=1e-4)
    same = signed[0].clone().requires_grad_()
    Lpips()(same, signed[0]).sum().backward()
    assert torch.isfinite(same.grad).all()


def test_discriminators_answer_patch_by_patch_and_learn_but_for_their_features() -> None:
    image = torch.zeros(2, 3, 64, 64)
    assert PatchCritic()(image).shape == (2, 1, 7, 7)
    critic = FeatureCritic()
    assert critic(image).shape == (2, 15 * 15 + 7 * 7 + 3 * (3 * 3))
    learning = {name.split(".")[0] for name, p in critic.named_parameters() if p.requires_grad}
    assert learning == {"heads"}


@pytest.mark.parametrize(
    ("loss", "spread", "words"),
    [(0.001, 0.5, "without effort"), (2.0, ALIKE / 2, "the same answer"), (0.4, 0.5, ""), (2.0, 0.01, "")],
)
def test_a_collapsed_discriminator_is_told_from_a_good_one(loss: float, spread: float, words: str) -> None:
    watch = CollapseWatch()
    found = [watch({"critic_loss": loss, "critic_spread": spread}) for _ in range(COLLAPSE_STEPS + 2)]
    assert not any(found[: COLLAPSE_STEPS - 1])
    assert all(words in said and bool(said) == bool(words) for said in found[COLLAPSE_STEPS - 1 :])


def test_the_shipped_refiner_starts_as_the_identity_within_its_limit() -> None:
    recipe = load_recipe("ccsr-refiner-4x")
    network = RefinerNetwork(recipe.refiner.unet)
    assert 1_000_000 < sum(p.numel() for p in network.parameters()) <= 2_000_000
    x0, condition = torch.randn(2, 1, 3, 24, 20)
    assert torch.equal(network(x0, condition), x0)
    with pytest.raises(SkipDiffError, match="more than 2,000,000"):
        RefinerNetwork(load_recipe("natural-4x").model.unet)


def test_levels_of_the_first_stage_end_at_t_max(pictures: list[np.ndarray]) -> None:
    recipe = load_recipe("tiny", overrides=["consistency.every=2", "batch=64", "data.crop=16"])
    levels = BatchMaker(recipe, ImageBank(pictures), torch.device("cpu"), World())(0).level
    signals = NoiseSchedule.from_config(recipe.model.schedule).noise_level(np.arange(21))
    assert signals[14] <= levels.min() < signals[12]  # t_max = 13.3 of 20


@pytest.fixture
def addsr(tmp_path, pictures: list[np.ndarray]) -> AddSRTrainer:
    config = load_recipe("tiny").model
    torch.manual_seed(0)
    folder = save_model(tmp_path / "teacher", random_model(config).network, config)
    changes = [f"model={folder}", f"init={folder}", "data.crop=32", "batch=2"]
    recipe = load_recipe("addsr-natural-4x", overrides=changes)
    trainer = AddSRTrainer(recipe, torch.device("cpu"), World(), load_pretrained(folder, "cpu"))
    trainer.network.load_state_dict(trainer.teacher.network.state_dict())
    return trainer


def test_the_teacher_sees_hr_and_the_student_s_image_noised(
    addsr: AddSRTrainer, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = BatchMaker(addsr.recipe, ImageBank(pictures), torch.device("cpu"), World())(0)
    seen: list[tuple[torch.Tensor, ...]] = []
    predict = addsr.teacher.predict

    def watched(*args: torch.Tensor) -> torch.Tensor:
        seen.append(args)
        return predict(*args)

    monkeypatch.setattr(addsr.teacher, "predict", watched)
    fake, real, losses = addsr.attempt(batch)
    ((latent, condition, level),) = seen  # the student's image, then HR
    assert torch.equal(condition, real.repeat(2, 1, 1, 1)) and torch.equal(level, batch.level.repeat(2))
    assert torch.allclose(real, batch.condition + batch.target / 5, atol=1e-6)
    level = batch.level
    a = level.double()[:, None, None, None]
    noise = addsr.normal(fake, "teacher").double()
    drawn = (1 - a**2).sqrt() * noise
    expected = torch.cat([a * 5 * (fake - real).detach().double() + drawn, drawn])
    assert torch.allclose(latent.double(), expected, atol=1e-5)
    # Gradients reach the student, and not by way of the teacher.
    of_student, of_hr = predict(*seen[0]).chunk(2)
    wanted = of_student + real - of_hr
    direct = torch.autograd.grad(losses["distillation"], fake)[0]
    weight = (losses["distillation"] / distillation_loss(fake, wanted, level, 1.0)).item()
    assert min(abs(weight - w) for w in (1.05, 2.205, 4.6305)) < 1e-4
    by_hand = 2 / 4 * (fake - wanted) * level[:, None, None, None] * weight / fake.numel()
    assert torch.allclose(direct, by_hand, rtol=1e-4, atol=1e-9)


def test_half_of_the_steps_train_the_first_evaluation(
    addsr: AddSRTrainer, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = BatchMaker(addsr.recipe, ImageBank(pictures), torch.device("cpu"), World())
    counts: list[int] = []
    monkeypatch.setattr(
        AddSRTrainer,
        "_approach",
        lambda self, batch, chain, step: (counts.append(step), (batch.noise, batch.condition))[1],
    )
    monkeypatch.setattr(AddSRTrainer, "_taught", lambda self, x0, hr, batch: hr)
    for addsr.step in range(400):
        addsr.attempt(make(addsr.step))
    found = np.bincount(counts, minlength=5)[1:] / 400
    assert found == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], abs=0.08)


def test_a_teacher_under_the_students_condition(
    tmp_path, addsr: AddSRTrainer, pictures: list[np.ndarray]
) -> None:
    """As plain distillation has it: nothing of HR is seen or taken away."""
    recipe = replace(addsr.recipe, addsr=replace(addsr.options, teacher="lr", adaptive=False))
    trainer = AddSRTrainer(recipe, torch.device("cpu"), World(), addsr.teacher)
    batch = BatchMaker(recipe, ImageBank(pictures), torch.device("cpu"), World())(0)
    fake, _, losses = trainer.attempt(batch)
    a = batch.level[:, None, None, None]
    latent = a * addsr.teacher.to_latent(fake.detach(), batch.condition)
    latent = latent + (1 - a**2).sqrt() * trainer.normal(fake, "teacher")
    wanted = addsr.teacher.predict(latent, batch.condition, batch.level)
    assert float(losses["distillation"]) == pytest.approx(
        float(distillation_loss(fake, wanted, batch.level, mean_weight())), rel=1e-4
    )


def test_a_constant_weight_is_the_mean_of_the_adaptive_ones() -> None:
    """Half of the batches are of the first step."""
    drawn = [step_weight(1)] * 3 + [step_weight(step) for step in (2, 3, 4)]
    assert mean_weight() == pytest.approx(np.mean(drawn))


def test_the_student_is_a_model_of_four_levels(addsr: AddSRTrainer, tmp_path) -> None:
    addsr.export(tmp_path / "student", {"steps": 0})
    student = load_pretrained(tmp_path / "student", "cpu")
    table = addsr.teacher.schedule.alpha_bar
    assert student.schedule.alpha_bar == pytest.approx(table[[0, 5, 10, 15, 20]])
    assert isinstance(student.config, ModelConfig) and isinstance(student.network, UNet)


@pytest.mark.parametrize(
    ("recipe", "changes", "words"),
    [
        ("tiny", ["consistency.every=2", "model.prediction=noise"], "consistency needs prediction v"),
        ("addsr-natural-4x", ["model.prediction=noise"], "addsr needs prediction v"),
        ("addsr-natural-4x", ["data.crop=16"], "data.crop = 16 must be at least 31"),
        ("addsr-natural-4x", ["consistency.every=2"], "consistency and addsr cannot be trained at once"),
        ("ccsr-refiner-4x", ["refiner.unet.chanels=2"], "unknown key 'refiner.unet.chanels'"),
        ("ccsr-natural-4x", ["model=no-such-model"], "unknown model 'no-such-model'"),
    ],
)
def test_mistakes_in_recipes_are_named(recipe: str, changes: list[str], words: str) -> None:
    with pytest.raises(SkipDiffError, match=words):
        load_recipe(recipe, overrides=changes)
