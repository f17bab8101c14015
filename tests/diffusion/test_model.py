"""From the network's output to x̂0: algebra, targets, clamping, and what "frozen" means."""

import copy
import json
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from skipdiff_env.diffusion import (
    FrozenModel,
    ModelConfig,
    NoiseKey,
    NoiseSchedule,
    SkipProcess,
    UNetConfig,
    degrade,
    random_model,
    tiny_config,
    to_signed,
)
from skipdiff_env.diffusion.model import x0_from_output
from skipdiff_env.training.trainers.loss import make_pairs


class Oracle(nn.Module):
    """A "network" that knows the true x_0 of the chain and answers with the exact ε or v."""

    def __init__(self, target, prediction):
        super().__init__()
        self.target, self.prediction = target, prediction

    def forward(self, x, level):
        signal = level.double()[:, None, None, None]
        sigma = (1 - signal**2).sqrt()
        noise = (x[:, 3:].double() - signal * self.target) / sigma
        return (noise if self.prediction == "noise" else signal * noise - sigma * self.target).float()


def batch(size=(4, 3, 8, 8), low=-1.0, high=1.0, seed=0):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


@pytest.mark.parametrize("prediction, tolerance", [("v", 1e-6), ("noise", 1e-9)])
def test_the_true_output_recovers_x0_at_every_level(prediction, tolerance):
    level = torch.from_numpy(NoiseSchedule.cosine().noise_level(range(1, 101)))[:, None]
    x0 = batch((1, 50)).double()
    noise = torch.randn(100, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sigma = (1 - level**2).sqrt()
    latent = level * x0 + sigma * noise
    output = noise if prediction == "noise" else level * noise - sigma * x0
    got = x0_from_output(output, latent, level, prediction)
    torch.testing.assert_close(got, x0.expand(100, 50), atol=tolerance, rtol=0)


def test_the_two_predictions_are_one_linear_map_apart():
    """v = (√ᾱ x_t - x̂0)/σ and ε = (x_t - √ᾱ x̂0)/σ give the same x̂0."""
    level = torch.tensor([[0.9], [0.3], [0.05]], dtype=torch.float64)
    latent, noise = batch((3, 20)).double(), batch((3, 20), seed=2).double()
    sigma = (1 - level**2).sqrt()
    from_noise = x0_from_output(noise, latent, level, "noise")
    v = (level * latent - from_noise) / sigma
    torch.testing.assert_close(x0_from_output(v, latent, level, "v"), from_noise, atol=1e-12, rtol=0)


@pytest.mark.parametrize("prediction, tolerance", [("v", 1e-5), ("noise", 2e-3)])
@pytest.mark.parametrize("target, k", [("image", 1.0), ("residual", 5.0)])
def test_predict_recovers_the_image_whatever_the_target(prediction, target, k, tolerance):
    config = tiny_config(prediction=prediction, target=target, residual_scale=k)
    image, condition = batch(low=-0.9, high=0.9), batch(seed=1)
    chain = image if target == "image" else k * (image - condition)
    model = FrozenModel(Oracle(chain.double(), prediction), config)
    torch.testing.assert_close(model.to_latent(image, condition), chain)
    level = torch.tensor([0.99968431, 0.7, 0.1, 0.00049280547])
    signal = level[:, None, None, None]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    latent = signal * chain + (1 - signal.double() ** 2).sqrt().float() * noise
    got = model.predict(latent, condition, level)
    torch.testing.assert_close(got, image, atol=tolerance, rtol=0)


@pytest.mark.parametrize("target, k", [("image", 1.0), ("residual", 5.0)])
def test_a_chain_driven_by_the_truth_ends_in_the_truth(target, k):
    """With a perfect network every schedule gives HR, whatever the noise."""
    image, condition = batch((2, 3, 8, 8), -0.9, 0.9), batch((2, 3, 8, 8), seed=1)
    chain = image if target == "image" else k * (image - condition)
    config = tiny_config(target=target, residual_scale=k)
    for actions in ([0] * 9, [1] * 9, [1, 0, 1, 0, 1, 0, 1, 0, 1]):
        process = SkipProcess(FrozenModel(Oracle(chain.double(), "v"), config), skip_rule="hold")
        state = process.start(condition, [NoiseKey(1, 1), NoiseKey(1, 2)])
        for action in actions:
            state = process.step(state, [action] * 2)
        torch.testing.assert_close(process.finish(state).x0, image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("target, k", [("image", 1.0), ("residual", 4.0)])
def test_x0_is_clamped_in_image_space_and_nowhere_else(target, k):
    """A residual may be large as long as the image it makes lies in [-1, 1]."""
    condition = torch.full((1, 3, 4, 4), 0.75)
    wanted = torch.linspace(-3, 3, 48).reshape(1, 3, 4, 4)
    chain = wanted if target == "image" else k * (wanted - condition)  # down to -15
    model = FrozenModel(Oracle(chain.double(), "v"), tiny_config(target=target, residual_scale=k))
    latent = 0.5 * chain
    got = model.predict(latent, condition, torch.tensor([0.5]))
    torch.testing.assert_close(got, wanted.clamp(-1, 1), atol=1e-5, rtol=0)
    assert got.min() == -1 and got.max() == 1


def test_condition_is_what_training_saw():
    hr = torch.randint(0, 256, (2, 3, 24, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for config in (tiny_config(), tiny_config(target="residual", residual_scale=5.0)):
        model = random_model(config)
        target, condition = make_pairs(hr, degrade(hr, config.scale), config)
        assert torch.equal(model.condition(degrade(hr, 4)), condition)
        assert torch.equal(model.to_latent(to_signed(hr), condition), target)
        assert condition.shape == hr.shape and condition.min() >= -1 and condition.max() <= 1


def test_condition_leaves_its_input_alone():
    lr = torch.randint(0, 256, (1, 3, 5, 6)).to(torch.uint8)
    before = lr.clone()
    for scale in (1, 4):
        condition = random_model(tiny_config(scale=scale)).condition(lr)
        assert condition.shape == (1, 3, 5 * scale, 6 * scale) and condition.dtype == torch.float32
    assert torch.equal(lr, before)
    torch.testing.assert_close(random_model(tiny_config(scale=1)).condition(lr), to_signed(lr))


def test_levels_of_a_batch_are_its_rows_own():
    model = random_model()
    latent, condition = batch(seed=1) * 2, batch(seed=2)
    levels = torch.tensor([0.9, 0.5, 0.1, 0.01])
    together = model.predict(latent, condition, levels)
    for row in range(4):
        alone = model.predict(latent[row : row + 1], condition[row : row + 1], levels[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


def test_frozen_means_no_gradients_but_usable_tensors():
    """Results are ordinary tensors (not of inference mode): a user's policy may learn through them."""
    model = random_model()
    assert all(not p.requires_grad for p in model.network.parameters())
    latent = batch().requires_grad_()
    condition = batch(seed=1)
    x0 = model.predict(latent, condition, torch.full((4,), 0.5))
    assert not x0.requires_grad and not x0.is_inference()
    policy = nn.Conv2d(3, 1, 3)
    policy(x0).square().mean().backward()
    assert policy.weight.grad is not None and policy.weight.grad.abs().sum() > 0
    assert latent.grad is None
    assert all(p.grad is None for p in model.network.parameters())


def test_frozen_means_eval_mode():
    config = tiny_config()
    config = replace(config, unet=replace(config.unet, dropout=0.5))
    model = random_model(config)
    assert not any(module.training for module in model.network.modules())
    arguments = batch(), batch(seed=1), torch.full((4,), 0.5)
    assert torch.equal(model.predict(*arguments), model.predict(*arguments))


def test_predict_changes_none_of_its_arguments():
    model = random_model(tiny_config(target="residual", residual_scale=3.0))
    arguments = batch(), batch(seed=1), torch.full((4,), 0.5)
    before = [x.clone() for x in arguments]
    model.predict(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(arguments, before, strict=True))


def test_the_network_runs_channels_last():
    seen = []
    model = random_model()
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.predict(batch(), batch(seed=1), torch.full((4,), 0.5))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert model.network.downs[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_condition_comes_first():
    seen = []
    model = random_model()
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    latent, condition, level = batch(), batch(seed=1), torch.full((4,), 0.5)
    model.predict(latent, condition, level)
    assert torch.equal(seen[0][0], torch.cat([condition, latent], 1)) and torch.equal(seen[0][1], level)


def test_random_models_are_seeded_and_touch_no_global_state():
    state = torch.get_rng_state()
    first, again, other = (random_model(seed=s).network.downs[0].weight for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_says_what_it_is():
    model = random_model(tiny_config(target="residual"), seed=5)
    assert "random-5" in repr(model) and "residual" in repr(model) and "4x" in repr(model)
    assert (model.scale, model.image_size, model.schedule.steps) == (4, 32, 100)


FULL = ModelConfig(
    scale=8,
    image_size=128,
    unet=UNetConfig(channels=16, multipliers=(1, 2, 4), attention_sizes=(16, 32), norm_groups=8),
    schedule={"kind": "linear", "steps": 50, "beta_start": 1e-4, "beta_end": 0.05},
    prediction="v",
    target="residual",
    residual_scale=3.5,
    coarse_levels="rebuilt",
    start=7,
    training={"hours": 1.5},
    quality={"val": {"psnr": 26.1}},
)


def test_copies_are_the_model_itself_and_pickles_are_not():
    model = random_model()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    assert copy.deepcopy(model) is model and copy.deepcopy([model])[0] is model
    other = pickle.loads(pickle.dumps(model))
    assert other.network is not model.network
    latent = torch.zeros(1, 3, 32, 32)
    arguments = latent, latent, torch.tensor([0.5])
    torch.testing.assert_close(other.predict(*arguments), model.predict(*arguments), rtol=0, atol=0)
    after = model.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_configurations_survive_json():
    assert ModelConfig.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL
    needed = {k: v for k, v in FULL.to_dict().items() if k not in ("start", "training", "quality")}
    assert ModelConfig.from_dict(needed) == replace(FULL, start=None, training={}, quality={})


def test_reading_a_configuration_leaves_the_dictionary_alone():
    data = FULL.to_dict()
    ModelConfig.from_dict(data)
    assert data == FULL.to_dict()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prediction": "x0"}, "unknown prediction 'x0'"),
        ({"target": "detail"}, "unknown target 'detail'"),
        ({"scale": 0}, r"scale must be .*at least 1"),
        ({"residual_scale": 0.0}, r"residual_scale .*above 0"),
        ({"coarse_levels": "clipped"}, "coarse_levels"),
        ({"start": "7"}, "start must be a level"),
        ({"residual_scale": "5"}, "residual_scale must be a number"),
        ({"flavour": "plain"}, "unknown field 'flavour'"),
        ({"unet": {"wings": 2}}, r"unknown field unet\.'wings'|unknown field 'unet\.wings'"),
        ({"schedule": {"kind": "sigmoid"}}, "unknown schedule kind 'sigmoid'"),
        ({"schedule": {"kind": "cosine", "offset": 1}}, "offset"),
    ],
)
def test_bad_configurations_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        data = FULL.to_dict()
        unet = data["unet"] | change.pop("unet", {})
        ModelConfig.from_dict({**data, "unet": unet, **change})


@pytest.mark.parametrize("missing", ["scale", "prediction", "target", "schedule", "unet", "coarse_levels"])
def test_what_decides_a_result_must_be_there(missing):
    data = FULL.to_dict()
    del data[missing]
    with pytest.raises(ValueError, match=f"field '{missing}' is missing"):
        ModelConfig.from_dict(data)
    data = FULL.to_dict()
    del data["unet"]["level_embedding"]
    with pytest.raises(ValueError, match="field unet.'level_embedding' is missing"):
        ModelConfig.from_dict(data)
