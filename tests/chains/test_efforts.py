"""What fast, normal and best are: by a model's plans, by its kind, and by what a search found."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from skipdiff_env.chains import (
    CCSR,
    CSA,
    EFFORTS,
    AddSR,
    Chain,
    SkipDiff,
    default_for,
    efforts,
    parse,
    parse_skipdiff,
    uniform,
)
from skipdiff_env.chains.shipped import save_plans
from skipdiff_env.cli.upscale import EFFORTS as OF_THE_COMMAND
from skipdiff_env.diffusion import NoiseSchedule, load_pretrained, random_model, save_model, tiny_config
from skipdiff_env.diffusion.model import FrozenModel
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.planning import choose_efforts
from skipdiff_env.policies import FixedStart


def made(levels: int = 100, **changes: Any) -> FrozenModel:
    return random_model(
        dataclasses.replace(tiny_config(), schedule=NoiseSchedule.cosine(levels).config, **changes)
    )


def saved(folder: Path, **changes: Any) -> FrozenModel:
    model = made(**changes)
    save_model(folder, model.network, model.config)
    return load_pretrained(folder, "cpu")


USUAL = SkipDiff(FixedStart(7, 10), 10)


@pytest.mark.parametrize(
    ("model", "chains"),
    [
        (made(), [CSA(10), USUAL, CSA(100)]),
        (made(chain="ccsr:2"), [CCSR(1), CCSR(2), CCSR(4)]),
        (made(chain="ccsr:1"), [CCSR(1), CCSR(1), CCSR(2)]),
        (made(chain="addsr"), [AddSR(2), AddSR(4), AddSR(4)]),
        (made(chain="ccsr:2,t_max=0.5"), [CCSR(1, 0.5), CCSR(2, 0.5), CCSR(4, 0.5)]),
        (made(chain="100>50>0"), [uniform(100, 2)] * 3),
        (made(8), [CSA(8), SkipDiff(FixedStart(1, 1), 8), CSA(8)]),
    ],
)
def test_of_a_model_without_plans(model: FrozenModel, chains: list[Chain]) -> None:
    assert efforts(model) == dict(zip(EFFORTS, chains, strict=True))
    assert default_for(model) == chains[1] == parse(None, model) == parse("normal", model)
    counts = [chain.most_evaluations(model.schedule) for chain in chains]
    assert counts == sorted(counts)


def test_the_command_knows_the_same_words() -> None:
    assert OF_THE_COMMAND == EFFORTS


def test_of_a_model_with_plans(tmp_path: Path) -> None:
    model = saved(tmp_path)
    four, six = uniform(100, 4), uniform(100, 6, 1.0)
    save_plans(
        tmp_path / "plans.json", model.hash, {four: {}, six: {}}, {"fast": "plan:4", "normal": "plan:6"}
    )
    assert efforts(model) == {"fast": four, "normal": six, "best": CSA(100)}
    assert default_for(model) == six
    # Where decisions are wanted, or steps are given, it is SkipDiff all the same
    assert parse_skipdiff(None, model) == USUAL == parse(None, model, 10)
    with pytest.raises(SkipDiffError, match="is not a policy, since nothing is decided in it"):
        parse_skipdiff("normal", model)
    with pytest.raises(SkipDiffError, match="has its own levels: leave out the coarse steps"):
        parse("fast", model, 20)
    save_plans(tmp_path / "plans.json", "other weights", {four: {}}, {"normal": "plan:4"})
    assert default_for(model) == USUAL


def test_a_refiner_s_model_may_have_efforts_of_its_own(tmp_path: Path) -> None:
    model = saved(tmp_path, chain="ccsr:2")
    save_plans(tmp_path / "plans.json", model.hash, {}, {"best": "ccsr:8"})
    assert efforts(model) == {"fast": CCSR(1), "normal": CCSR(2), "best": CCSR(8)}
    save_plans(tmp_path / "plans.json", model.hash, {}, {"fast": "ccsr:2", "best": "ccsr:2"})
    assert efforts(model) == dict.fromkeys(EFFORTS, CCSR(2)), "those of the file are as they stand there"
    save_plans(tmp_path / "plans.json", model.hash, {}, {"normal": "quickly"})
    with pytest.raises(
        SkipDiffError, match="asks for the chain 'quickly', which does not exist: name one of ccsr"
    ):
        default_for(model)


def test_chosen_among_plans() -> None:
    reference = {"lpips": 0.2, "niqe-full": 6.0, "psnr": 26.0, "ssim": 0.68, "residue": 0.8}
    behind = {
        2: {"lpips": 0.25, "psnr": 26.1},
        3: {"lpips": 0.218, "psnr": 25.85, "residue": 0.95},
        4: {"lpips": 0.2, "psnr": 25.99, "residue": 0.9},  # too grainy for normal
        5: {"lpips": 0.202, "ssim": 0.677, "niqe-full": 6.1},
        6: {"lpips": 0.19},
        7: {"lpips": 0.195, "psnr": 25.8},  # too far from the original for normal
    }
    plans = {uniform(100, n): {**reference, **figures} for n, figures in behind.items()}
    objective = {"lpips": 1.0, "niqe-full": 0.5}
    found = choose_efforts(plans, reference, objective)
    assert found == {"fast": uniform(100, 3), "normal": uniform(100, 5), "best": uniform(100, 6)}
    worse = {plan: figures for plan, figures in plans.items() if len(plan.calls) == 2}
    assert choose_efforts(worse, reference, objective) == {}
    nearly = {uniform(100, 7): {**reference, "psnr": 25.9}}
    assert choose_efforts(nearly, reference, {"psnr": 1.0}) == {"fast": uniform(100, 7)}
