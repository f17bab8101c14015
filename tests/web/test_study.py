"""A study drives the sampler, the process and the oracle, and nothing but them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skipdiff_env.chains import Plan
from skipdiff_env.diffusion import DENOISE, SKIP, random_model
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.measure import Measured
from skipdiff_env.images.photo import Header
from skipdiff_env.policies.file import NetworkPolicy, as_seen
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig
from skipdiff_env.sampler import SkipDiffSampler
from skipdiff_env.web.pictures import Task, Upload, make_task
from skipdiff_env.web.study import Metered, Study, bicubic_picture, full_chain, score

SEED = 5


@pytest.fixture(scope="module")
def model() -> Metered:
    return Metered(random_model())


@pytest.fixture(scope="module")
def task() -> Task:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    photo = Upload("photo", b"", Header(96, 64, "png"), image, Measured(0, 0))
    return make_task(photo, scale=4, reference=True)


@pytest.fixture
def study(model: Metered, task: Task) -> Study:
    return Study(model, task, 10, SEED)


@pytest.fixture
def calls(model: Metered) -> list[int]:
    rows: list[int] = []
    model.on_call = lambda n, pixels, seconds: rows.append(n)
    return rows


@pytest.mark.parametrize("policy", [3, "denoise", "skip", None])
def test_a_run_is_the_samplers(policy: object, study: Study, model: Metered, task: Task) -> None:
    result = study.run(policy)
    wanted = SkipDiffSampler(model, 10)(task.lr, policy, SEED)
    assert (result.picture == wanted.images[0]).all()
    assert list(result.actions) == wanted.trace[0].actions
    assert result.evaluations == wanted.trace[0].evaluations
    assert result.seconds > 0


def test_clean_and_detail_are_the_samplers(study: Study, model: Metered, task: Task) -> None:
    result = study.run(3, clean=0.5, detail=0.5)
    wanted = SkipDiffSampler(model, 10, clean=0.5, detail=0.5)(task.lr, 3, SEED)
    assert (result.picture == wanted.images[0]).all() and result.evaluations == 9 + 3 + 1
    mean = study.run(3, detail=0)
    assert mean.evaluations == 1 and [frame.level for frame in mean.frames] == [0]


def test_the_strip_shows_every_level_with_its_decision(study: Study) -> None:
    frames = study.run(4).frames
    assert [frame.level for frame in frames] == [90, 80, 70, 60, 50, 40, 30, 20, *range(10, -1, -1)]
    decided = {frame.level: frame.action for frame in frames if frame.action is not None}
    assert decided == {t: SKIP if t > 4 else DENOISE for t in range(10, 1, -1)}
    assert all(frame.skip is None for frame in frames)
    # A skip brings back x_S1: what is seen at levels 10 … 4 is one latent.
    fine = {frame.level: frame.latent for frame in frames if frame.level <= 10}
    assert all((fine[t] == fine[10]).all() for t in range(4, 10))
    assert (fine[3] != fine[10]).any()


def test_the_strip_of_a_plan_tells_its_calls(study: Study) -> None:
    plan = Plan.read("100>57>27>14|11>5>0 eta 0|1")
    frames = study.run(plan).frames
    assert tuple(frame.call for frame in frames) == plan.calls
    assert [frame.reached for frame in frames] == [100, 57, 27, 14, 5]
    assert [frame.level for frame in frames] == [57, 27, 14, 5, 0]
    assert all(frame.call is None for frame in study.run(4).frames)


def test_an_agents_probabilities_are_its_softmax(study: Study, model: Metered) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = SkipProposalNetwork(SPNConfig(observation_size=16, hidden_size=32)).eval()
    seen: list[tuple[float, int]] = []
    hidden = torch.zeros(1, network.config.memory_size)

    def by_hand(latent: torch.Tensor, memory: object) -> tuple[list[int], None]:
        nonlocal hidden
        with torch.no_grad():
            logits, hidden = network(as_seen(latent, 16), hidden)
        seen.append(
            (float(torch.exp(logits[0, 1]) / torch.exp(logits[0]).sum()), int(logits[0, 1] > logits[0, 0]))
        )
        return [seen[-1][1]], None

    expected = study.run(by_hand)
    result = study.run(NetworkPolicy(network, network.config))
    shown = [(frame.skip, frame.action) for frame in result.frames if frame.action is not None]
    assert [action for _, action in shown] == [action for _, action in seen]
    np.testing.assert_allclose([p for p, _ in shown], [p for p, _ in seen], rtol=1e-5)
    assert (result.picture == expected.picture).all()


def test_a_coin_is_fair_and_falls_the_same_way_again(model: Metered, task: Task, study: Study) -> None:
    result = study.run("random")
    assert {frame.skip for frame in result.frames if frame.action is not None} == {0.5}
    assert study.run("random").actions == result.actions
    others = {Study(model, task, 10, seed).actions("random") for seed in range(4)}
    assert len(others) > 1


def test_a_game_is_the_process_step_by_step(study: Study, task: Task, model: Metered) -> None:
    moves = (DENOISE, SKIP, SKIP, DENOISE, SKIP, DENOISE, DENOISE, SKIP, DENOISE)
    for taken in range(len(moves)):
        place = study.play(moves[:taken])
        assert place.level == 10 - taken
        assert place.evaluations == 9 + moves[:taken].count(DENOISE)
        assert [frame.action for frame in place.frames] == [*moves[:taken], None]
    script = iter(moves)
    wanted = SkipDiffSampler(model, 10)(task.lr, lambda latent, memory: ([next(script)], None), SEED)
    end = study.play(moves)
    assert (end.picture == wanted.images[0]).all()
    assert (end.level, end.evaluations) == (0, wanted.trace[0].evaluations)


def test_going_back_and_forth_is_a_lookup(study: Study, calls: list[int]) -> None:
    study.play(())
    assert sum(calls) == 9
    study.play((SKIP, DENOISE))
    assert sum(calls) == 10
    study.play(())
    study.play((SKIP,))
    study.play((SKIP, DENOISE))
    assert sum(calls) == 10
    study.optimum("psnr")
    assert sum(calls) == 9 + 55
    study.play((DENOISE,) * 9)
    study.actions(6)
    study.optimum("psnr")
    assert sum(calls) == 9 + 55


def test_the_optimum_is_the_best_of_all_starts(study: Study) -> None:
    best = study.optimum("psnr")
    values = []
    for start in range(1, 11):
        end = study.play(study.actions(start))
        values.append(score(end.picture, study.task.hr)["psnr"])
    assert best.reward == pytest.approx(max(values), abs=1e-9)


@pytest.mark.parametrize("moves", [(2,), (DENOISE,) * 10])
def test_impossible_games_are_refused(moves: tuple[int, ...], study: Study) -> None:
    with pytest.raises(SkipDiffError, match="at most 9 of them"):
        study.play(moves)


def test_the_full_chain_takes_every_level(model: Metered, task: Task, calls: list[int]) -> None:
    result = full_chain(model, task, SEED)
    assert result.evaluations == sum(calls) == 100
    wanted = SkipDiffSampler(model, 100, fine_steps=0)(task.lr, seed=SEED)
    assert (result.picture == wanted.images[0]).all()


def test_scores_where_there_is_an_original_and_where_not(task: Task) -> None:
    assert task.hr is not None
    perfect = score(task.hr, task.hr)
    assert perfect["psnr"] == float("inf") and perfect["ssim"] == pytest.approx(1)
    assert isinstance(perfect["niqe"], str) and "at least" in perfect["niqe"]
    alone = score(bicubic_picture(task, 4), None)
    assert alone["psnr"] is alone["ssim"] is alone["lpips"] is None
