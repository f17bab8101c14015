"""One grammar and one default: what users may write for a chain, and what is refused in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skipdiff_env.chains import (
    CCSR,
    CSA,
    AddSR,
    Plan,
    Refined,
    SkipDiff,
    default_for,
    parse,
    parse_skipdiff,
    shipped_plans,
    uniform,
)
from skipdiff_env.chains.parse import CHAINS
from skipdiff_env.chains.shipped import save_plans
from skipdiff_env.diffusion import (
    NoiseKey,
    NoiseSchedule,
    UNetConfig,
    load_pretrained,
    random_model,
    save_model,
    tiny_config,
)
from skipdiff_env.diffusion.model import FrozenModel
from skipdiff_env.diffusion.refiner import Refiner, RefinerNetwork
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.policies import CoinFlip, FixedStart
from skipdiff_env.policies.base import decided, first_memory
from skipdiff_env.sampler import SkipDiffSampler


def of_levels(levels: int, **changes: Any) -> FrozenModel:
    """A random model with so many levels."""
    return random_model(
        dataclasses.replace(tiny_config(), schedule=NoiseSchedule.cosine(levels).config, **changes)
    )


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    return of_levels(100)


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        (3, FixedStart(3, 10)),
        (np.int64(3), FixedStart(3, 10)),
        ("3", FixedStart(3, 10)),
        ("denoise", FixedStart(10, 10)),
        ("skip", FixedStart(1, 10)),
        ("random", CoinFlip()),
        (None, FixedStart(7, 10)),
    ],
)
def test_words_for_policies(spec: Any, policy: Any, model: FrozenModel) -> None:
    chain = parse(spec, model)
    assert chain == SkipDiff(policy, 10) and hash(chain) == hash(SkipDiff(policy, 10))
    assert parse_skipdiff(spec, model) == chain
    assert parse(chain, model) is chain


def test_words_for_chains(model: FrozenModel) -> None:
    assert parse("ccsr", model) == CCSR(2) and parse("ccsr:5", model) == CCSR(5)
    assert parse("addsr:1", model) == AddSR(1) == parse("addsr:1", model, 10, 10)  # the paper's steps
    assert parse(None, model, fine_steps=0) == CSA(10)
    assert parse("ccsr:3", of_levels(96), 8, 12) == CCSR(3)  # the usual steps of 96 levels
    assert parse(Refined(CSA(5), torch.add), model, refiner="none") == CSA(5)
    assert parse(None, of_levels(100, chain="addsr:3")) == AddSR(3)
    assert parse("ccsr:4,t_max=0.5,t_min=0.25", model) == CCSR(4, 0.5, 0.25)
    assert parse("addsr:4, self_refinement=0", model) == AddSR(4, 0.0)
    assert parse(None, of_levels(100, chain="addsr:3"), 5) == SkipDiff(FixedStart(14, 20), 5)


@pytest.mark.parametrize(("levels", "coarse"), [(100, 10), (36, 9), (8, 8), (1, 1)])
def test_the_usual_steps(levels: int, coarse: int) -> None:
    chain = default_for(of_levels(levels))
    assert isinstance(chain, SkipDiff) and chain.coarse_steps == coarse
    assert chain.most_evaluations(NoiseSchedule.cosine(levels)) <= levels


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"spec": "denoize"},
            "unknown policy 'denoize': .* agent, ccsr:N, addsr:N, plan:N, a policy file",
        ),
        ({"spec": ""}, "unknown policy ''"),
        ({"spec": True}, "unknown policy True"),
        ({"spec": 2.5}, "unknown policy 2.5"),
        ({"spec": FixedStart}, "unknown policy"),
        ({"spec": 0}, "start=0 must be a whole number from 1 to 10"),
        ({"spec": "11"}, "start=11 must be a whole number from 1 to 10"),
        ({"spec": "agent"}, "has no agent for coarse steps 10, fine steps 10 and rule"),
        ({"spec": "nowhere.onnx"}, "nowhere.onnx is missing"),
        ({"spec": "ccsr:"}, "must give a number of evaluations"),
        (
            {"spec": "plan:6"},
            "has no plans: name another model, or write a plan like '100>26|20>0'",
        ),
        ({"spec": "100>50"}, "last call must lead to 0"),
        ({"spec": "ccsr:-1"}, "must give a number of evaluations"),
        ({"spec": "ccsr:2,w=0.5"}, "'w=0.5' is not an argument of ccsr: give t_max=NUMBER or t_min=NUMBER"),
        ({"spec": "ccsr:2,t_max"}, "'t_max' is not an argument of ccsr: give t_max=NUMBER or"),
        ({"spec": "ccsr:2,t_max=0.3"}, "CCSR: t_max=0.3 must be above t_min=0.33"),
        ({"spec": "ccsr:2,t_min=-1"}, "CCSR: t_min=-1.0 must be a number from 0 to 1"),
        ({"spec": "addsr:2,self_refinement=2"}, "self_refinement=2.0 must be a number from 0 to 1"),
        ({"refiner": "own:1.5", "spec": "ccsr:2"}, "the refiner's strength=1.5 must be a number from 0 to 1"),
        ({"spec": "addsr:5"}, "AddSR: steps=5 must be a whole number from 1 to 4"),
        ({"coarse_steps": True}, "coarse_steps=True must be a whole number from 1 to 100"),
        ({"coarse_steps": "10"}, "coarse_steps='10' must be a whole number"),
        ({"coarse_steps": 10.0}, "coarse_steps=10.0 must be a whole number"),
        ({"coarse_steps": 0}, "coarse_steps=0 must be a whole number"),
        ({"coarse_steps": 7}, "coarse_steps=7 must divide"),
        ({"fine_steps": -1}, "fine_steps=-1 must be a whole number from 0 to 100"),
        ({"fine_steps": 101}, "fine_steps=101 must be a whole number"),
        ({"fine_steps": 0, "spec": 7}, "nothing is decided: leave out the policy"),
        ({"skip_rule": "keep"}, "unknown skip_rule 'keep': use 'reset' or 'hold'"),
        ({"step_cost": -0.1}, "step_cost=-0.1 must be a finite number, 0 or more"),
        ({"step_cost": float("nan")}, "step_cost=nan must be"),
        ({"step_cost": 0.1, "spec": 7}, "needs an agent that was trained with prices"),
        ({"spec": "ccsr:2", "coarse_steps": 20}, "ccsr:2 has its own levels: leave out the coarse steps"),
        (
            {"spec": CSA(5), "fine_steps": 20, "skip_rule": "hold"},
            "has its own levels: leave out the fine steps and the skip rule",
        ),
        ({"refiner": 7}, "refiner=7 must be 'own', 'none', the name or folder of a model, or a function"),
        ({"spec": Refined(CSA(5), torch.add), "refiner": "natural-4x"}, "the chain has a refiner already"),
        ({"spec": FixedStart(3, 20)}, "is for 20 fine steps, not 10: give a start level"),
        (
            {"spec": "50>0"},
            "is a plan for models of 50 levels, but 'random-0' has 100: give a plan that begins with 100",
        ),
    ],
)
def test_what_cannot_be_had_is_named_before_the_network_runs(
    arguments: dict[str, Any], words: str, model: FrozenModel
) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse(**{"spec": None, "model": model} | arguments)
    assert "\n" not in str(caught.value)


def test_a_configuration_with_an_unknown_chain_is_named() -> None:
    with pytest.raises(
        SkipDiffError, match="asks for the chain 'ddim:4', which does not exist: name one of ccsr"
    ):
        parse(None, of_levels(100, chain="ddim:4"))


def test_the_sampler_does_not_ignore_its_steps(model: FrozenModel) -> None:
    lr = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(SkipDiffError, match="addsr:2 has its own levels: leave out the coarse steps"):
        SkipDiffSampler(model, 20)(lr, "addsr:2")
    with pytest.raises(SkipDiffError, match="there is no image in the batch"):
        SkipDiffSampler(model)([])


def test_plans_in_a_model_s_folder(tmp_path: Path) -> None:
    source = of_levels(100)
    save_model(tmp_path, source.network, source.config)
    model = load_pretrained(tmp_path, "cpu")
    four, two = Plan.read("100>57>14|11>5>0 eta 0|1"), uniform(100, 2)
    assert parse("100>50>0", model) == two
    file = tmp_path / "plans.json"
    save_plans(file, model.hash, {four: {"psnr": 26.2}, two: {}}, {"normal": "plan:4"}, pictures=24)
    assert parse("plan:4", model) == four and shipped_plans(model) == {2: two, 4: four}
    assert list(shipped_plans(model)) == [2, 4]
    with pytest.raises(SkipDiffError, match="has no plan:3: use one of plan:2, plan:4, or"):
        parse("plan:3", model)
    with pytest.raises(SkipDiffError, match="has no plan without a number of evaluations: use"):
        parse("plan:", model)
    save_plans(tmp_path / "plans.json", "other weights", {four: {}}, {"normal": "plan:4"})
    assert shipped_plans(model) == {}
    bad = json.dumps({"model": model.hash, "plans": {"4": {"plan": "100>"}}})
    for damaged in ("[]", bad, "{"):
        (tmp_path / "plans.json").write_text(damaged)
        with pytest.raises(SkipDiffError, match="plans.json is damaged"):
            parse("plan:4", model)


def test_a_plan_in_a_file(tmp_path: Path, model: FrozenModel) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"plan": "100>50|40>0", "note": "found on a Sunday"}')
    for spec in (file, str(file)):
        assert parse(spec, model) == Plan.read("100>50|40>0")
    for content, words in (
        ("{", 'mine.json holds no plan: write {"plan"'),
        ("[]", "holds no plan"),
        ('{"plan": 7}', "holds no plan"),
        ('{"plan": "100>50"}', r"holds no plan \(a plan's last call must lead to 0\)"),
    ):
        file.write_text(content)
        with pytest.raises(SkipDiffError, match=words):
            parse(file, model)
    with pytest.raises(SkipDiffError, match="nowhere.json cannot be read"):
        parse("nowhere.json", model)


def test_only_skipdiff_has_a_policy(model: FrozenModel) -> None:
    five = SkipDiff(FixedStart(15, 20), 5)
    assert parse_skipdiff(five, model) is five and parse_skipdiff(five, model, 5, 20) is five
    for steps in ((10, None, "reset"), (5, 10, "reset"), (5, 20, "hold")):
        with pytest.raises(SkipDiffError, match="is for other steps than"):
            parse_skipdiff(five, model, *steps)
    for spec in ("ccsr:4", CSA(10)):
        with pytest.raises(SkipDiffError, match="is not a policy, since nothing is decided in it: give"):
            parse_skipdiff(spec, model)


def test_settings_name_what_users_bring_by_its_code(model: FrozenModel) -> None:
    """An address in memory would make every run another one."""

    def brighter(x0: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return x0

    class Mine:
        def __call__(self, latent: torch.Tensor, memory: Any) -> tuple[list[int], Any]:
            return [0] * len(latent), memory

    settings = parse(Mine(), model, refiner=brighter).settings
    assert settings["policy"].endswith(
        "test_parse.test_settings_name_what_users_bring_by_its_code.<locals>.Mine"
    )
    assert settings["refiner"].endswith(".<locals>.brighter")
    network = RefinerNetwork(UNetConfig(8, (1, 2), 1, 4))
    assert parse(7, model, refiner=Refiner(network, name="x", hash="y")).settings["refiner_hash"] == "y"


def test_chance_depends_on_the_picture_and_the_seed_alone() -> None:
    keys = [NoiseKey(image, seed) for image in (1, 2**62) for seed in (0, 1)]
    latent = torch.zeros(4, 3, 2, 2)

    def decisions(policy: CoinFlip, rows: list[int]) -> np.ndarray:
        memory, found = first_memory(policy, [keys[row] for row in rows]), []
        for _ in range(40):
            actions, memory = decided(policy, latent[rows], memory)
            found.append(actions)
        return np.stack(found, axis=1)

    together = decisions(CoinFlip(), [0, 1, 2, 3])
    assert (decisions(CoinFlip(), [2, 0]) == together[[2, 0]]).all()
    assert len({row.tobytes() for row in [*together, *decisions(CoinFlip(1), [0, 1, 2, 3])]}) == 8
    assert set(CHAINS).isdisjoint({"denoise", "skip", "random", "agent"})
    assert 0.3 < together.mean() < 0.7
