"""Muon beside AdamW: what one step does to which weights, and exact resumption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training import TrainResult, load_recipe
from skipdiff_env.training.blocks import OptimiserRecipe
from skipdiff_env.training.run.checkpoint import checkpoint_files
from skipdiff_env.training.trainers.base import Trainer
from skipdiff_env.training.trainers.optimiser import (
    TYPES,
    Muon,
    MuonAdamW,
    build_optimiser,
    orthogonalise,
    product_dtype,
)
from tests.training.training_helpers import assert_same, start_two

LR = 1e-3


@pytest.fixture
def network() -> nn.Sequential:
    """Four convolutions, of which the middle two are not at the edge; gradients are drawn already."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 24, 3), nn.Conv2d(24, 32, 3), nn.Conv2d(32, 16, 1), nn.Conv2d(16, 3, 3)]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    for p in network.parameters():
        p.grad = torch.randn_like(p)
    return network


@pytest.mark.parametrize("layer", [1, 2])
def test_muon_steps_along_the_nearest_orthogonal_matrix(network: nn.Sequential, layer: int) -> None:
    weight = network[layer].weight
    old, gradient = weight.detach().clone(), weight.grad.double().flatten(1)
    optimiser = build_optimiser(network, OptimiserRecipe(LR, kind="muon"))
    optimiser.step()
    rows, columns = gradient.shape
    # Liu et al. 2025: 0.2·√max(rows, columns) makes a step's typical entry 0.2 of the rate, as AdamW's is.
    step = (old - weight.detach()).double().flatten(1) / (LR * 0.2 * max(rows, columns) ** 0.5)
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    inner = u.mT @ step @ vt.mT
    assert (inner.diagonal() > 0.5).all() and (inner.diagonal() < 1.4).all()  # five Newton-Schulz rounds
    assert (inner - inner.diagonal().diag()).abs().max() < 0.05  # in bfloat16


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (16, 16)])
def test_both_types_give_the_nearest_orthogonal_matrix(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    exact = u.mT @ orthogonalise(matrix, torch.float64) @ vt.mT  # diagonal: its own singular values
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
        found = orthogonalise(matrix.float(), dtype)
        assert found.dtype == dtype and found.shape == shape
        inner = u.mT @ found.double() @ vt.mT
        assert torch.allclose(inner, exact, atol=tolerance), dtype
        assert inner.diagonal().min() > 0.5 and inner.diagonal().max() < 1.4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_muon_is_torchs_but_for_the_type(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    start = torch.randn(24, 60)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    a = Muon([ours], LR, weight_decay=0.1, dtype=dtype)
    b = torch.optim.Muon([theirs], LR, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        gradient = torch.randn_like(start)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        a.step()
        b.step()
    moved = (theirs - start).abs().max()
    # A step's entries differ by what bfloat16 rounds away, where the types differ.
    bound = 1e-6 if dtype == torch.bfloat16 else 0.05
    assert (ours - theirs).abs().max() < bound * moved


def test_the_type_is_measured_once() -> None:
    chosen = product_dtype(torch.device("cpu"))
    assert chosen in (torch.bfloat16, torch.float32)
    assert product_dtype(torch.device("cpu")) is chosen and product_dtype.cache_info().hits > 0


RANK = """
import torch
from torch import nn
from skipdiff_env.training.trainers import optimiser
from skipdiff_env.training.blocks import OptimiserRecipe
from skipdiff_env.training.distributed import join

network = nn.Sequential(*(nn.Conv2d(3, 3, 3) for _ in range(3)))
with join(torch.device("cpu")) as world:
    optimiser.product_dtype = lambda device: optimiser.TYPES[world.rank]  # each finds another type faster
    muon = optimiser.build_optimiser(network, OptimiserRecipe(1e-3, kind="muon"), world).muon
    print(*(group["dtype"] for group in muon.param_groups))
"""


def test_all_processes_take_the_type_that_the_first_chose() -> None:
    for process in start_two(RANK):
        output, said = process.communicate(timeout=180)
        assert output == "torch.bfloat16\n", said


@pytest.mark.parametrize("dtype", TYPES)
def test_a_resumed_optimiser_keeps_its_type(
    network: nn.Sequential, dtype: torch.dtype, tmp_path: Path
) -> None:
    first, again = (build_optimiser(network, OptimiserRecipe(LR, kind="muon")) for _ in range(2))
    assert isinstance(again, MuonAdamW)
    for group in first.param_groups[1:]:
        group["dtype"] = dtype
    torch.save(first.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [group["dtype"] for group in again.muon.param_groups] == [dtype]


def test_a_state_without_a_type_is_continued_in_the_measured_one(network: nn.Sequential) -> None:
    optimiser = build_optimiser(network, OptimiserRecipe(LR, kind="muon"))
    assert isinstance(optimiser, MuonAdamW)
    state = optimiser.state_dict()
    for group in state["muon"]["param_groups"]:
        del group["dtype"]
    optimiser.load_state_dict(state)
    optimiser.step()
    chosen = product_dtype(torch.device("cpu"))
    assert [group["dtype"] for group in optimiser.muon.param_groups] == [chosen]


def test_edges_and_vectors_take_adams_step(network: nn.Sequential) -> None:
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    build_optimiser(network, OptimiserRecipe(LR, kind="muon")).step()
    for name, p in network.named_parameters():
        if name not in ("1.weight", "2.weight"):
            assert p.grad is not None
            assert torch.allclose(p, before[name] - LR * p.grad.sign(), atol=1e-6), name  # m̂/√v̂ = ±1


def test_rates_and_forgetting_reach_every_weight(network: nn.Sequential) -> None:
    optimiser = build_optimiser(network, OptimiserRecipe(LR, kind="muon"))
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in network.parameters()]
    optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    optimiser.zero_grad()
    assert all(p.grad is None for p in network.parameters())


def test_a_run_with_muon_resumes_bit_for_bit(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    muon = ("optimiser.kind=muon",)
    run(tmp_path / "a", 6, overrides=muon)
    run(tmp_path / "b", 3, overrides=muon)
    run(tmp_path / "b", 6, overrides=muon, resume=True)
    a, b = (torch.load(max(checkpoint_files(tmp_path / name)), weights_only=True)["trainer"] for name in "ab")
    assert_same(a["network"], b["network"])
    momenta = [state["optimiser"]["muon"]["state"] for state in (a, b)]
    assert len(momenta[0]) > 3
    for index, entry in momenta[0].items():
        assert torch.equal(entry["momentum_buffer"], momenta[1][index]["momentum_buffer"])


def test_a_state_of_adamw_is_refused() -> None:
    cpu = torch.device("cpu")
    state = Trainer(load_recipe("tiny"), cpu).state_dict()
    muon = Trainer(load_recipe("tiny", overrides=["optimiser.kind=muon"]), cpu)
    assert isinstance(muon.optimiser, MuonAdamW)
    with pytest.raises(SkipDiffError, match="another optimiser wrote it"):
        muon.load_state_dict(state)
