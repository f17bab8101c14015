"""ST-LPIPS against the same networks put together of torch's modules, on random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics import load_metric
from skipdiff_env.metrics.shift_tolerant import MIN_SIZE, ShiftTolerantLpips, blur_and_halve
from tests.shift_tolerant import CONVOLUTIONS, forge

RNG = np.random.default_rng(0)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(forge(tmp_path)))
    return tmp_path / "stlpips_pytorch" / "weights" / "vST0.0"


class Blur(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = nn.ReflectionPad2d(2)(x)
        rows = (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4
        both = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4
        return both[:, :, ::2, ::2]


def layer(trunk: str, number: int, state: dict[str, Tensor]) -> nn.Sequential:
    """Layer ``number`` of the paper's variant of a network."""
    parts: list[nn.Module] = []
    if trunk == "vgg" and number:
        parts += [nn.MaxPool2d(2, 1), Blur()]
    if trunk == "alex" and number in (1, 2):
        parts += [nn.MaxPool2d(3, 1), Blur()]
    for at, size in CONVOLUTIONS[trunk][number]:
        weight = state[f"net.slice{number + 1}.{at}.weight"]
        made = nn.Conv2d(weight.shape[1], weight.shape[0], size, padding=2 if size > 3 else 1)
        made.load_state_dict({"weight": weight, "bias": state[f"net.slice{number + 1}.{at}.bias"]})
        parts += [made, *[Blur()] * (trunk == "alex" and number == 0), nn.ReLU()]
    return nn.Sequential(*parts)


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
@torch.no_grad()
def test_it_is_what_the_paper_says(trunk, weights):
    state = torch.load(weights / f"{trunk}_shift_tolerant.pth", weights_only=True)
    a, b = (torch.from_numpy(RNG.uniform(-1, 1, (2, 3, 40, 51)).astype(np.float32)) for _ in range(2))
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    x, y, expected = (a - shift) / scale, (b - shift) / scale, torch.zeros(2)
    for number in range(5):
        made = layer(trunk, number, state)
        x, y = made(x), made(y)
        unit = [v / (v.square().sum(1, keepdim=True).sqrt() + 1e-10) for v in (x, y)]
        head = state[f"lin{number}.model.1.weight"]
        expected += ((unit[0] - unit[1]).square() * head).sum(1).mean(dim=(1, 2))
    assert ShiftTolerantLpips(trunk)(a, b).tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_the_blur_keeps_light_and_halves_sides():
    assert torch.allclose(blur_and_halve(torch.full((1, 2, 9, 12), 3.0)), torch.full((1, 2, 6, 7), 3.0))


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_equal_pictures_are_not_apart_and_the_gradient_is_finite(trunk, weights):
    network = ShiftTolerantLpips(trunk)
    image = torch.rand(1, 3, MIN_SIZE, MIN_SIZE).requires_grad_()
    distance = network(image, image.detach())
    assert distance.item() == 0
    network(image, torch.zeros_like(image)).sum().backward()
    assert torch.isfinite(image.grad).all() and image.grad.any()
    assert not any(p.requires_grad for p in network.parameters())


def test_as_a_metric(weights):
    metric = load_metric("st-lpips")
    metric.__dict__.pop("_network", None)  # names give the same object, and this one's weights are forged
    a, b = (RNG.integers(0, 256, (3, 48, 48, 3), dtype=np.uint8) for _ in range(2))
    try:
        scores = metric(a, b)
        assert scores.shape == (3,) and (scores > 0).all() and metric.lower_better
        assert metric(b, a) == pytest.approx(scores, rel=1e-5) and not metric(a, a).any()
        assert metric(a[1:2], b[1:2]) == pytest.approx(scores[1:2], rel=1e-6)
    finally:
        metric.__dict__.pop("_network", None)


def test_missing_weights_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SkipDiffError, match="pip install --no-deps stlpips_pytorch"):
        ShiftTolerantLpips("vgg")
