"""Recorded chains of SkipDiff-v1: what they hold, what is paid for them, and agents on them."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.agents.calls import bandits_choice, gains
from skipdiff_agents.call_trees import CallTree, Shape, judged_plans, load_or_record, record_tree, worth
from skipdiff_agents.tree_env import NUMBERS, PLANES, PlanesExtractor, TreeVecEnv, played
from skipdiff_env import SkipDiffSampler, find_optimal_plan, load_metric
from skipdiff_env.chains import Plan
from skipdiff_env.chains.shipped import save_plans
from skipdiff_env.diffusion import load_pretrained, random_model, save_model, tiny_config
from skipdiff_env.images import make_pair, open_source
from skipdiff_env.plan_oracle import optimum_plan_calls

METRICS = ("psnr", "ssim")
HR = [np.random.default_rng(i).integers(0, 256, (32, 32, 3)).astype(np.uint8) for i in range(3)]


@pytest.fixture(scope="module")
def model():
    return random_model(tiny_config(image_size=32))


@pytest.fixture(scope="module")
def shape():
    return Shape(100, (60, 30, 10), 3)


@pytest.fixture(scope="module")
def trees(model, shape) -> list[CallTree]:
    source = open_source(HR)
    return [
        record_tree(model, make_pair(source, i, scale=4), seed, shape, METRICS, 16)
        for seed in (0, 1)
        for i in range(3)
    ]


def test_nodes_are_the_outcomes_of_the_oracle(model, shape, trees) -> None:
    assert len(shape.paths) == optimum_plan_calls(3, 3) == len(trees[0].latents)
    for tree, image, seed in zip(trees, HR * 2, (0, 0, 0, 1, 1, 1), strict=True):
        best = find_optimal_plan(model, image, seed, "psnr", 3, shape.levels)
        values = {str(outcome.plan): outcome.value for outcome in best.outcomes}
        assert {
            str(shape.plan(node)): score for node, score in enumerate(tree.scores[:, 0])
        } == pytest.approx(values, rel=1e-5)
    assert [len(shape.plan(node).calls) for node in range(len(shape.paths))] == shape.spent.tolist()


def test_children_are_one_call_further(shape) -> None:
    paths, child = shape.paths, shape.child
    for node, path in enumerate(paths):
        for level, after in zip(shape.levels, child[node], strict=True):
            may = 0 < level < path[-1] and len(path) < shape.budget
            assert (after >= 0) == may and (not may or paths[after] == (*path, level))


def test_rewards_and_observations_are_those_of_the_environment(model, shape, trees, tmp_path: Path) -> None:
    env = gymnasium.make(
        "skipdiff_env:SkipDiff-v1", model=model, images=HR, metric="psnr", levels=shape.levels, budget=3,
        image_size=32, observation="dict", observation_size=16, step_cost=0.05, device="cpu",
    )  # fmt: skip
    values = np.stack([worth(tree.scores, METRICS, {"psnr": 1.0}) for tree in trees])
    ours = TreeVecEnv(shape, trees, values, 1, 0.05)
    for number, actions in ((0, [0, 2, 3]), (4, [1, 3]), (2, [3])):
        image, seed = number % 3, number // 3
        seen, info = env.reset(options={"image": image, "noise_seed": seed})
        ours.begin(np.array([0]), [number], [0.05])
        for action in actions:
            planes = ours.observe()[0]
            assert planes.shape == (PLANES + NUMBERS, 16, 16)
            for first, name in ((0, "latent"), (3, "x0"), (6, "change")):
                assert np.allclose(planes[first : first + 3], seen[name], atol=0.02), name
            numbers = [seen["level"][0] / 100, seen["evaluations"][0] / 3, seen["budget"][0] / 3, 0.5]
            assert planes[PLANES:, 0, 0] == pytest.approx(numbers, abs=1e-6)
            assert (ours.action_masks()[0] == info["action_mask"].astype(bool)).all()
            seen, reward, ended, _, info = env.step(action)
            paid, done = ours.play(np.array([action]))
            assert paid[0] == pytest.approx(reward, abs=1e-5) and done[0] == ended
    with pytest.raises(ValueError, match="an action leads to a level"):
        ours.begin(np.array([0]), [0], [0.0])
        ours.play(np.array([2]))
        ours.play(np.array([1]))


def test_agents_of_sb3_learn_on_them(shape, trees) -> None:
    """Where one chain is best by far for every picture, it is found, call by call and by its number."""
    contrib = pytest.importorskip("sb3_contrib")
    target = shape.paths.index((100.0, 30.0, 10.0))
    values = np.zeros((len(trees), len(shape.paths)))
    values[:, target] = 5.0
    for nodes in (None, [0, target, 3]):
        env = TreeVecEnv(shape, trees, values, 8, (0.001, 0.01), nodes)
        agent = contrib.MaskablePPO(
            "MlpPolicy", env, n_steps=16, batch_size=128, gamma=1.0, learning_rate=3e-3, seed=0, device="cpu",
            policy_kwargs={
                "features_extractor_class": PlanesExtractor, "normalize_images": False, "net_arch": [],
            },
        )  # fmt: skip
        agent.learn(128 * 12)
        assert (played(agent, shape, trees, values, 0.005, nodes) == target).all()


def test_plans_are_judged_as_the_sampler_runs_them(model) -> None:
    pair, plan = make_pair(open_source(HR), 0, scale=4), Plan.read("100>60|45>0 eta 0.5")
    (found,) = judged_plans(model, pair, 3, [plan], METRICS)
    image = SkipDiffSampler(model)(pair.lr, policy=plan, seed=3).images
    expected = [float(load_metric(name)(image, pair.hr[None])[0]) for name in METRICS]
    assert found == pytest.approx(expected, rel=1e-3)
    assert judged_plans(model, pair, 3, [], METRICS).shape == (0, 2)


def test_a_recording_is_made_once(model, shape, tmp_path: Path) -> None:
    arguments = {
        "model": model, "pair": make_pair(open_source(HR), 0, scale=4), "noise_seed": 0, "shape": shape,
        "metrics": METRICS, "size": 16,
    }  # fmt: skip
    file = tmp_path / "new" / "tree.npz"
    first = load_or_record(file, **arguments)
    again = load_or_record(file, **{**arguments, "model": None})
    for name in ("condition", "latents", "x0", "scores"):
        assert np.array_equal(getattr(first, name), getattr(again, name))


def test_what_cannot_be_judged_gains_nothing() -> None:
    scores = np.array([[np.nan, 0.5], [20.0, 0.5]])
    found = worth(scores, METRICS, {"psnr": 1.0})
    assert found[0] == 0 and found[1] == pytest.approx(np.log(20))


def test_the_bandit_s_chains_and_gains_by_hand() -> None:
    net = np.array([[[3.0, 0.0, 2.0], [0.0, 1.0, 0.9], [3.0, 0.0, 2.9]]])
    assert bandits_choice(net[..., :2]) == [0, 1]
    returns = np.zeros((2, 8, 3))
    returns[..., 1], returns[1, 5, 2] = 1.0, 5.0
    fixed = np.zeros((2, 8), np.int64)
    found = gains(returns, [fixed + 1, np.full((2, 8), 2)], fixed)
    assert found.shape == (2, 8, 2)
    assert (found[..., 0] == 1).all() and found[0, :, 1].sum() == 0 and found[1, :, 1].sum() == 5


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = random_model(tiny_config(image_size=96))
    folder = save_model(tmp_path / "small", made.network, made.config)
    found = {Plan.read(text): {} for text in ("100>60|45>0 eta 0.5", "100>80>60>40>20>0")}
    save_plans(folder / "plans.json", load_pretrained(folder, "cpu").hash, found, {})
    images = tmp_path / "pictures"
    images.mkdir()
    from PIL import Image

    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    command = ["agent-calls", "--model", str(folder), "--images", str(images), "--test", str(images)]
    command += ["--train-images", "2", "--test-images", "2", "--image-size", "96", "--budget", "2"]
    command += ["--timesteps", "64", "--seeds", "1", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "best fixed chain (100>" in text and "The optimum gains" in text
    model = load_pretrained(folder, "cpu")
    assert (tmp_path / model.name / "calls.md").read_text() in text
    lines = (tmp_path / model.name / "calls.csv").read_text().splitlines()
    assert len(lines) == 8 and lines[1].split(",")[2] == "0.0"
    assert lines[2].startswith("plan of 2 calls,"), "the plan of five is beyond the budget"
