"""The training objective in float64, the levels it draws, and that descending it teaches something."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from skipdiff_env.diffusion import NoiseSchedule, UNet, bicubic, degrade, tiny_config
from skipdiff_env.training.data.bank import ImageBank
from skipdiff_env.training.trainers.loss import diffusion_loss, draw_levels, make_pairs


class Recorder(nn.Module):
    """Answers with fixed numbers and remembers what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, level):
        self.x, self.level = x, level
        return self.answer


def normal(seed, size=(3, 3, 8, 8)):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


LEVELS = torch.tensor([0.999, 0.6, 0.01])


@pytest.mark.parametrize(
    "prediction, target, norm, gamma",
    [*itertools.product(["noise", "v"], ["image", "residual"], ["l1", "l2"], [None, 5.0])],
)
def test_loss_in_float64(prediction, target, norm, gamma):
    config = tiny_config(
        prediction=prediction, target=target, residual_scale=4.0 if target == "residual" else 1.0
    )
    hr = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    x0, condition = make_pairs(hr, degrade(hr, config.scale), config)
    noise, answer = normal(1), normal(2)
    network = Recorder(answer)
    got = diffusion_loss(network, config, x0, condition, LEVELS, noise, norm=norm, min_snr=gamma)

    image = hr.double().numpy() / 127.5 - 1
    lr = degrade(hr, 4).float() / 127.5 - 1
    c = bicubic(lr, 8, 8).clamp(-1, 1).double().numpy()
    clean = image if target == "image" else 4 * (image - c)
    np.testing.assert_allclose(x0.numpy(), clean, atol=1e-5)
    np.testing.assert_allclose(condition.numpy(), c, atol=1e-6)
    losses = []
    for row, a in enumerate(LEVELS.double().numpy()):
        s, eps = math.sqrt(1 - a * a), noise[row].double().numpy()
        np.testing.assert_allclose(network.x[row, 3:].numpy(), a * clean[row] + s * eps, atol=1e-5)
        np.testing.assert_allclose(network.x[row, :3].numpy(), c[row], atol=1e-6)
        wanted = eps if prediction == "noise" else a * eps - s * clean[row]
        difference = answer[row].double().numpy() - wanted
        loss = (abs(difference) if norm == "l1" else difference**2).mean()
        if gamma is not None:  # Hang et al. 2023, Eq. 5 and Sec. 3.4
            snr = a * a / (s * s)
            loss *= min(snr, gamma) / (snr if prediction == "noise" else snr + 1)
        losses.append(loss)
    assert got.item() == pytest.approx(np.mean(losses), rel=2e-5)
    assert got.shape == () and torch.equal(network.level, LEVELS)


@pytest.mark.parametrize("prediction", ["noise", "v"])
def test_the_truth_has_no_loss(prediction):
    config = tiny_config(prediction=prediction)
    x0, condition, noise = normal(0), normal(1), normal(2)
    a = LEVELS[:, None, None, None].double()
    truth = noise if prediction == "noise" else (a * noise - (1 - a**2).sqrt() * x0).float()
    for norm, gamma in itertools.product(("l1", "l2"), (None, 5.0)):
        loss = diffusion_loss(Recorder(truth), config, x0, condition, LEVELS, noise, norm, gamma)
        assert loss < 1e-6


def test_min_snr_makes_both_predictions_weigh_x0_errors_alike():
    """min(SNR, γ) times the squared error of x̂0, however it was predicted."""
    x0, condition, noise = normal(0), normal(1), normal(2)
    a = LEVELS[:, None, None, None].double()
    s = (1 - a**2).sqrt()
    wrong = x0.double() + 0.1 * normal(3)
    latent = a * x0 + s * noise
    v = ((a * latent - wrong) / s).float()
    eps = ((latent - a * wrong) / s).float()
    weights = (a**2 / s**2).clamp(max=5).flatten()
    expected = (weights * (wrong - x0).square().mean((1, 2, 3))).mean().item()
    for prediction, answer in (("v", v), ("noise", eps)):
        config = tiny_config(prediction=prediction)
        loss = diffusion_loss(Recorder(answer), config, x0, condition, LEVELS, noise, "l2", 5.0)
        assert loss.item() == pytest.approx(expected, rel=1e-3)


def test_a_level_without_noise_does_no_harm():
    """√ᾱ can round to exactly 1 in float32."""
    level = torch.ones(3)
    for prediction, gamma in itertools.product(("noise", "v"), (None, 5.0)):
        config = tiny_config(prediction=prediction)
        assert diffusion_loss(
            Recorder(normal(3)), config, normal(0), normal(1), level, normal(2), "l2", gamma
        ).isfinite()


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="huber"):
        diffusion_loss(
            Recorder(normal(3)), tiny_config(), normal(0), normal(1), LEVELS, normal(2), norm="huber"
        )


@pytest.mark.parametrize("schedule", [NoiseSchedule.cosine(10), NoiseSchedule.linear(20, 1e-4, 0.3)])
def test_levels_are_uniform_between_neighbours_of_a_uniform_interval(schedule):
    """SR3: an interval, then √ᾱ evenly within it; no level is left out (Kolmogorov and chi-square bounds)."""
    count = 20_000
    levels = draw_levels(schedule, count, torch.Generator().manual_seed(0))
    assert levels.dtype == torch.float32 and levels.shape == (count,)
    table = np.sqrt(schedule.alpha_bar)
    drawn = levels.double().numpy()
    assert table[-1] <= drawn.min() + 1e-7 and drawn.max() <= 1
    interval = np.clip(np.searchsorted(-table, -drawn, side="left"), 1, schedule.steps)
    counts = np.bincount(interval, minlength=schedule.steps + 1)[1:]
    expected = count / schedule.steps
    freedom = schedule.steps - 1
    assert ((counts - expected) ** 2 / expected).sum() < freedom + 4 * math.sqrt(2 * freedom) + 10
    place = np.sort((drawn - table[interval]) / (table[interval - 1] - table[interval]))
    assert place.min() >= -1e-3 and place.max() <= 1 + 1e-3
    assert abs(place - (np.arange(count) + 0.5) / count).max() < 1.95 / math.sqrt(count)


def test_levels_come_from_the_generator_alone():
    schedule = NoiseSchedule.cosine()
    first, again, other = (draw_levels(schedule, 64, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_pairs_are_made_of_what_the_model_sees_of_the_images():
    config = tiny_config(target="residual", residual_scale=2.0)
    hr = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    lr = degrade(hr, 4)
    target, condition = make_pairs(hr, 255 - lr, config)
    plain, clean = make_pairs(hr, lr, config)
    torch.testing.assert_close(condition, -clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(target + 2 * condition, plain + 2 * clean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["noise", "v"])
def test_sixty_steps_lower_the_loss(prediction):
    """A tiny network on two pictures, judged on draws it has not seen."""
    config = tiny_config(prediction=prediction, target="residual", residual_scale=4.0)
    y, x = np.mgrid[:40, :40]
    stripes = [np.stack([((x + k * y) // 3 % 2) * 200 + 20] * 3, -1).astype(np.uint8) for k in (0, 1)]
    bank, source = ImageBank(stripes), torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(config.unet)
    schedule = NoiseSchedule.from_config(config.schedule)

    def loss(batch, generator):
        hr = bank.crops(16, batch, generator)
        target, condition = make_pairs(hr, degrade(hr, config.scale), config)
        level = draw_levels(schedule, batch, generator)
        noise = torch.randn(target.shape, generator=generator)
        return diffusion_loss(network, config, target, condition, level, noise)

    def judge():
        with torch.no_grad():
            return loss(64, torch.Generator().manual_seed(99)).item()

    before = judge()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(8, source).backward()
        optimizer.step()
    assert judge() < 0.8 * before
