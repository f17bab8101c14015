"""Between the mean and a chain's picture."""

from __future__ import annotations

import pytest
import torch

from skipdiff_env.chains import CSA, Plan, Refined, parse, with_detail
from skipdiff_env.chains.detail import Detailed, mean_plan
from skipdiff_env.diffusion import FrozenModel, NoiseKey, random_model
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.sampler import SkipDiffSampler

KEYS = [NoiseKey(3, 0), NoiseKey(5, 2)]


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return random_model()


@pytest.fixture(scope="module")
def condition() -> torch.Tensor:
    return torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_it_is_linear_between_its_ends(model: FrozenModel, condition: torch.Tensor) -> None:
    chain = Refined(CSA(2), lambda x0, c: (x0 + 0.1).clamp(-1, 1), {"refiner": "mine"})
    whole = chain(model, condition, KEYS)
    mean = mean_plan(model.schedule)(model, condition, KEYS)
    assert (whole.x0 - mean.x0).abs().max() > 0.01
    for detail in (0.25, 0.8):
        made = with_detail(chain, detail, model)(model, condition, KEYS)
        expected = mean.x0.double() + detail * (whole.x0.double() - mean.x0.double())
        assert torch.allclose(made.x0.double(), expected, atol=1e-6)
        assert made.x0.abs().max() <= 1
        assert made.evaluations.tolist() == [3, 3] and made.levels == whole.levels


def test_the_mean_is_one_call_at_the_top(model: FrozenModel, condition: torch.Tensor) -> None:
    found = with_detail(CSA(10), 0, model)
    assert isinstance(found, Plan) and str(found) == "100>0"
    made = found(model, condition, KEYS)
    assert made.evaluations.tolist() == [1, 1]
    seen: list[torch.Tensor] = []
    CSA(10)(model, condition, KEYS, lambda state: seen.append(state.x0))
    assert torch.equal(made.x0, seen[0]), "the estimate that every chain begins with"


def test_all_detail_is_the_chain_itself(model: FrozenModel) -> None:
    chain = parse(3, model)
    assert with_detail(chain, 1, model) is chain
    some = with_detail(chain, 0.5, model)
    assert some.settings == {**chain.settings, "detail": 0.5}
    assert some.most_evaluations(model.schedule) == chain.most_evaluations(model.schedule) + 1
    assert str(some) == f"{chain} with 0.5 of its detail" and some.name == chain.name
    for detail in (-0.1, 1.1, float("nan"), "much", True):
        with pytest.raises(SkipDiffError, match="detail=.* must be a number from 0 to 1"):
            with_detail(chain, detail, model)  # type: ignore[arg-type]


def test_addsrs_student_has_no_mean(model: FrozenModel) -> None:
    chain = parse("addsr:2", model)
    assert with_detail(chain, 1, model) is chain
    for detail in (0, 0.5):
        with pytest.raises(SkipDiffError, match=f"detail={detail}: AddSR's student cannot .*; use detail 1"):
            with_detail(chain, detail, model)


def test_the_sampler_takes_both(model: FrozenModel) -> None:
    lr = torch.randint(0, 256, (2, 3, 8, 9), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    usual = SkipDiffSampler(model)(lr, 2)
    assert (SkipDiffSampler(model, clean=1, detail=1)(lr, 2).images == usual.images).all()
    mean = SkipDiffSampler(model, detail=0)(lr, 2)
    half = SkipDiffSampler(model, detail=0.5)(lr, 2)
    assert torch.allclose(half.x0, (mean.x0 + usual.x0) / 2, atol=1e-6)
    assert [t.evaluations for t in (usual.trace[0], half.trace[0], mean.trace[0])] == [11, 12, 1]
    assert isinstance(with_detail(CSA(10), 0.5, model), Detailed)
    with pytest.raises(SkipDiffError, match="clean=2 must be a number from 0 to 1"):
        SkipDiffSampler(model, clean=2)
