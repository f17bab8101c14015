"""Figures of the agents' tables, against results made by hand; which agent is chosen and shipped."""

import argparse
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("sb3_contrib")
pytest.importorskip("matplotlib")
from benchmarks.agents import ceilings, choice, imitation
from benchmarks.agents.choice import Chosen, Trained, choose, ship
from benchmarks.agents.study import LOGARITHMS, SHARES, add_study_arguments, open_study, some_starts
from benchmarks.agents.table import (
    IMITATION,
    by_kind,
    intervals,
    other_noise,
    table,
    under_other_noise,
    verdict,
)
from benchmarks.measure.samplers import shipped_agent
from skipdiff_agents.evaluate import Result
from skipdiff_agents.settings import BEST
from skipdiff_env.diffusion import random_model, start_actions, tiny_config
from skipdiff_env.diffusion.folder import save_model
from skipdiff_env.diffusion.pretrained import load_pretrained
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.mixed import KINDS
from skipdiff_env.oracle import Optimum, Outcome
from skipdiff_env.policies.base import shipped_policy
from skipdiff_env.policies.file import save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig

BASE = np.array([[1.0, 1.0], [2.0, 2.0]])
"""Rewards of the best start: images × noise seeds."""
OPTIMUM = BASE + [[0.5, 0.7], [1.2, 1.2]]


def row(*by_seed):
    """Results with these rewards, (images, noise seeds) for each training seed."""
    return [
        [
            Result(
                f"{i}.png", k, float(reward), 0, 0, 0, 11 + 2 * i + k, (0,), (4 + 2 * i, 0.5, 20 + i, 0.75)
            )
            for i, image in enumerate(rewards)
            for k, reward in enumerate(image)
        ]
        for rewards in by_seed
    ]


def made(**others):
    agent = row(BASE + [[0.2, 0.4], [0.5, 0.7]], BASE + [[0.3, 0.3], [0.1, -0.1]])
    return {"best": row(BASE), "agent": agent, "optimum": row(OPTIMUM)} | others


def cells(text, name):
    """The line of a policy."""
    return next(line.split(" | ")[1:] for line in text.splitlines() if line.startswith(f"| {name} "))


def test_the_figures_of_the_table():
    runs = [Trained(Path(), minutes, 0.0, 0.0, 5000) for minutes in (1.0, 1.5)]
    text = table(made(), "best", OPTIMUM.ravel(), 2, {"agent": runs}).markdown()
    # gains 0.3 and 0.6 on the two images under one training seed, 0.3 and 0 under the other: 0.3 of 1.5;
    # the extremes of drawing seeds and images twice are 0 and 0.6; the gap is 0.6 and 1.2
    reward, ahead, niqe, lpips, psnr, ssim, evaluations, regret, closed, *cost = cells(text, "agent")
    assert (reward, ahead) == ("1.8000 [1.3000, 2.6000]", "+20.00% [+0.00%, +40.00%]")
    assert (niqe, lpips, psnr, ssim, evaluations) == ("5.000", "0.5000", "20.50", "0.7500", "12.5")
    assert (regret, closed, *cost) == ("0.6000", "33% [0%, 50%]", "1.2", "5,000 |")
    assert cells(text, "optimum")[-4:] == ["0.0000", "100% [100%, 100%]", "", " |"]
    assert cells(text, "best")[1] == "" and cells(text, "best")[-4:] == ["0.9000", "", "", " |"]


def test_every_column_has_its_interval():
    text = intervals(made(), OPTIMUM.ravel(), 2).markdown()
    niqe, lpips, psnr, ssim, evaluations, regret = cells(text, "agent")
    assert (niqe, psnr) == ("5.000 [4.000, 6.000]", "20.50 [20.00, 21.00]")
    assert (lpips, ssim) == ("0.5000 [0.5000, 0.5000]", "0.7500 [0.7500, 0.7500]")
    assert evaluations == "12.5 [11.5, 13.5]"
    assert regret == "0.6000 [0.3000, 1.2000] |"


def test_what_has_no_number_has_an_empty_cell():
    blind = [[Result("0.png", k, 1.0, 0, 0, 0, 10, (0,), (np.nan, 0.5, 20.0, 1.0)) for k in range(2)]]
    assert cells(intervals({"best": blind}, np.ones(2), 1).markdown(), "best")[0] == ""
    text = table({"best": blind, "other": blind}, "best", np.ones(2), 1, {}).markdown()
    line = cells(text, "other")
    assert line[2] == "" and line[-3] == ""  # no NIQE; and no gap that could be closed


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ([0.3, 0.6], "Learning beat the best fixed start: +30.00% [+20.00%, +40.00%]"),
        ([-0.3, 0.6], "Learning did not beat the best fixed start: +10.00% [-20.00%, +40.00%]"),
        ([-0.3, -0.6], "Learning did worse than the best fixed start: -30.00% [-40.00%, -20.00%]"),
    ],
)
def test_the_verdict_is_about_the_agent_chosen_before(gains, words):
    chosen = row(BASE + np.array(gains)[:, None])
    rows = made(lucky=row(BASE + 0.9), chosen=chosen, paper=row(BASE + 0.15))
    text = verdict(rows, "best", 2, "chosen", (0.01, 0.005, 0.02), "paper")
    assert text.startswith(words)
    assert "lucky" not in text and "exploratory" in text
    assert "This is the agent chosen, where it was +1.00% [+0.50%, +2.00%]" in text
    assert f"is {'at least' if min(gains) > 0 else 'below'} −1 %" in text
    assert "The paper's agent (paper), over all training seeds: +10.00%" in text


def test_each_kind_of_input_by_itself():
    def played(*by_kind):  # two pictures, the same in both, one noise seed
        results = [
            Result(f"{name}.png, {kind}", 0, reward, 0, 0, 0, 11, (0,))
            for name in "ab"
            for kind, reward in zip(KINDS, by_kind, strict=True)
        ]
        return [results]

    rows = {"start 1": played(2, 2, 2, 2), "start 2": played(2, 3, 1, 2), "agent": played(1, 3, 2, 2)}
    shown = by_kind(rows | {"best": rows["start 1"]}, "best", 2, ["agent"])
    assert shown.head == ["difference to best start", *KINDS]
    nothing, half = "+0.00% [+0.00%, +0.00%]", "+50.00% [+50.00%, +50.00%]"
    starts = [f"start 1: {nothing}", f"start 2: {half}", f"start 1: {nothing}", f"start 1: {nothing}"]
    assert shown.lines[0] == ["best start in hindsight", *starts]
    assert shown.lines[1] == ["agent", "-50.00% [-50.00%, -50.00%]", half, nothing, nothing]


def test_the_share_of_what_imitation_gains():
    chosen = row(BASE + [[0.1, 0.1], [0.2, 0.2]])
    # two taught networks gain 0.2 and 0.6 on each image, 0.4 on the mean
    rows = made(chosen=chosen) | {IMITATION: row(BASE + 0.2, BASE + 0.6)}
    text = verdict(rows, "best", 2, "chosen", (0, 0, 0), "paper")
    assert (
        "gains +26.67% [+13.33%, +40.00%] over the best start; the chosen agent gains 38% [25%, 50%]" in text
    )
    rows[IMITATION] = row(BASE + [[0.2, 0.2], [-0.1, -0.1]])
    assert "which may be nothing" in verdict(rows, "best", 2, "chosen", (0, 0, 0), "paper")


class Played:
    """Episodes whose starts are worth ``rewards`` (episodes, F); policies are starts."""

    def __init__(self, rewards, pairs=()):
        self.rewards, self.pairs = np.array(rewards, float), list(pairs)

    def optima(self):
        fine = self.rewards.shape[1]
        return [
            Optimum(
                tuple(
                    sorted(
                        (
                            Outcome(tuple(start_actions(k + 1, fine)), 0.0, reward, 10 + k)
                            for k, reward in enumerate(episode)
                        ),
                        key=lambda outcome: -outcome.reward,
                    )
                ),
                0,
            )
            for episode in self.rewards
        ]

    def __call__(self, start):
        return [SimpleNamespace(reward=episode[start - 1]) for episode in self.rewards]


def test_the_references_beside_the_optimum(monkeypatch):
    training = Played([[2, 3], [5, 1], [5, 1], [5, 1]], [(image, 0) for image in range(4)])
    parts = {"known": training, "train": training, "test": Played([[1, 2], [1, 2], [1, 2], [3, 1]])}
    study = SimpleNamespace(
        evaluator=parts.get, test_pairs=[(0, 0), (0, 1), (1, 0), (1, 1)], photographs=lambda _: 2,
        args=SimpleNamespace(test_seeds=2, seeds=1, noise_seeds=1, epochs=1),
        training=SimpleNamespace(process=SimpleNamespace(fine_steps=2), source=SimpleNamespace(degrade=True)),
    )  # fmt: skip
    monkeypatch.setattr(ceilings, "imitation", lambda *_: 2)
    found = ceilings.measure(study)
    assert found["best start"] == 1
    # against start 1, which gives 1, 1 and 1, 3, the optimum gains 1, 1 and 1, 0
    assert found["gap"] == pytest.approx((0.75 / 1.5, 0.5 / 1.5, 1 / 1.5))
    # the other seed's best start gains 1, 1 and 0, -2; image 0 is clean, where start 2 is best: 1, 1 and 0, 0
    assert found["other noise"] == pytest.approx((0, -2, 1))
    assert found["known fault"] == pytest.approx((2 / 3, 0, 1))
    assert found["imitation"] == pytest.approx((1 / 3, -1, 1))  # always start 2: 1, 1 and 1, -2
    assert found["imitation on training"][0] == pytest.approx(-11)  # 1, -4, -4, -4 of a gap of 1


def test_the_start_of_the_other_noise_seeds():
    starts = np.array([[3, 1, 2], [0, 5, 1], [4, 1, 4.5]])
    # sums of the other two rows: (4, 6, 5.5), (7, 2, 6.5) and (3, 6, 3)
    assert other_noise(starts, 1).tolist() == [1, 0, 1]
    assert other_noise(starts[:2], 2).tolist() == [0, 0]  # one noise seed: there is no other
    rows = {"other": row(starts[:, :1] + 9)} | {f"start {k + 1}": row(starts.T[k : k + 1]) for k in range(3)}
    assert [r.reward for r in under_other_noise(rows, 1)] == [1, 0, 1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    model = random_model(tiny_config())
    save_model(folder / "model", model.network, model.config)
    rng = np.random.default_rng(0)
    for name, count in (("train", 6), ("other", 6), ("valid", 2)):
        (folder / name).mkdir()
        for i in range(count):
            cv2.imwrite(str(folder / name / f"{i}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    return folder


def study(files, *more, images="train", metric="psnr"):
    parser = argparse.ArgumentParser()
    add_study_arguments(parser, test=False)
    given = ["--model", str(files / "model"), "--images", str(files / images), "--runs", str(files / "runs")]
    args = parser.parse_args([*given, "--fine-steps", "3", "--precision", "float32", *more])
    args.metric, args.mixed = metric, False
    return open_study(args, metric)


def test_agents_are_chosen_on_pictures_of_their_own(files):
    apart = study(files, "--valid", str(files / "valid"), "--valid-seeds", "2")
    assert {image for image, _ in apart.train_pairs} == set(range(6)) and len(apart.valid_pairs) == 4
    shown = apart.evaluator("valid").setting.pair(0, 0).hr
    assert np.array_equal(shown, cv2.imread(str(files / "valid" / "0.png"))[..., ::-1])
    assert apart.evaluator("known").pairs == apart.train_pairs  # the best start is that of training images
    assert "agents chosen on 2 images of `valid` × 2 new noise seeds" in apart.describe()
    usual = study(files)
    assert [image for image, _ in usual.valid_pairs] == [5] and len(usual.train_pairs) == 15
    assert len(usual.evaluator("known").pairs) == 16
    assert "may have been trained on any of them" in usual.describe()


def test_agents_of_other_episodes_lie_elsewhere(files, monkeypatch):
    known = {"avx512_bf16": True}  # nothing is computed
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: known, raising=False)
    first = study(files)
    assert study(files, "--size", "16").runs == first.runs
    others = [
        study(files, images="other"),
        study(files, "--valid", str(files / "valid")),
        study(files, "--noise-seeds", "2"),
        study(files, "--image-size", "16"),
        study(files, "--precision", "bfloat16"),
    ]
    assert len({s.runs for s in (first, *others)}) == 6


def test_recording_all_of_reset_is_allowed_whatever_f(files):
    many = study(files, "--coarse-steps", "1", "--fine-steps", "100")
    assert many.training.process.fine_steps == 100
    assert "takes 5050 network calls" in many.describe()
    with pytest.raises(SkipDiffError, match="5050"):
        _ = study(files, "--coarse-steps", "1", "--fine-steps", "100", "--max-calls", "5049").training.process


@pytest.mark.parametrize(
    ("fine", "starts"),
    [(4, [1, 2, 3, 4]), (100, [*range(1, 10), *range(10, 101, 10)]), (25, [1, *range(2, 26, 2)])],
)
def test_of_many_starts_some_are_shown(fine, starts):
    assert some_starts(fine) == starts


def agent(path, seed=0):
    network = SkipProposalNetwork(SPNConfig(observation_size=16, hidden_size=8)).eval()
    return save_policy(path, network)


@pytest.mark.parametrize(
    ("evaluations", "expected"),
    [
        # dqn 0 is behind the best, ppo 1, by .15 ± .05, dqn 1 by .05 ± .05 and ppo 0 by .1 ± .1.
        ({"ppo": (15, 15), "dqn": (10, 12)}, ("dqn", 1)),
        ({"ppo": (15, 15), "dqn": (10, 15)}, ("ppo", 1)),
        ({"ppo": (13, 15), "dqn": (10, 14)}, ("ppo", 0)),
    ],
)
def test_of_agents_that_validation_cannot_tell_apart_the_fastest_is_chosen(
    files, tmp_path, monkeypatch, evaluations, expected
):
    gains = {("ppo", 0): (0.3, 0.0), ("ppo", 1): (0.3, 0.2), ("dqn", 0): (0.2, 0.0), ("dqn", 1): (0.3, 0.1)}
    rewards = {1: BASE.ravel()} | {
        tmp_path / name / str(seed) / BEST: (BASE + np.array(gain)[:, None]).ravel()
        for (name, seed), gain in gains.items()
    }
    trained = {
        name: [
            Trained(tmp_path / name / str(seed), 1.0, 0.0, calls)
            for seed, calls in enumerate(evaluations[name])
        ]
        for name in evaluations
    }
    here = study(files, "--valid", str(files / "valid"), "--valid-seeds", "2")

    def evaluator(part):
        assert part == "valid"
        return lambda policy: [SimpleNamespace(reward=r) for r in rewards[policy]]

    monkeypatch.setattr(here, "evaluator", evaluator)
    monkeypatch.setattr(choice, "load_policy", lambda file: file)
    chosen = choose(here, trained, 1)
    assert (chosen.algorithm, chosen.seed) == expected
    assert chosen.file == tmp_path / expected[0] / str(expected[1]) / BEST
    low, high = sorted(gains[expected])
    assert chosen.ahead == pytest.approx(np.array([(low + high) / 2, low, high]) / BASE.mean())


def test_an_agent_behind_the_best_start_is_not_shipped(files, tmp_path, capsys):
    here = study(files)
    bad = Chosen("ppo", 1, agent(tmp_path / "bad.safetensors"), 1.0, (0.01, -0.0101, 0.03))
    assert not ship(here, bad)
    assert "not shipped: ppo, seed 1: on validation +1.00% [-1.01%, +3.00%]" in capsys.readouterr().out
    assert not list((files / "model").glob("policy*"))


def test_shipping_leaves_no_weights_under_anothers_name(files, tmp_path, monkeypatch):
    here = study(files, metric="niqe")
    first, second = (
        Chosen("ppo", 0, agent(tmp_path / f"{name}.safetensors"), 1.0, (0.0, -0.01, 0.01)) for name in "ab"
    )
    folder = files / "model"

    def shipped() -> Path | None:
        return shipped_policy(load_pretrained(folder, "cpu"), 10, 3)

    assert ship(here, first) and shipped() == folder / "policy.safetensors"
    assert json.loads((folder / "policy.json").read_text())["model"] == load_pretrained(folder).hash
    whole = choice.write_atomically

    def interrupted(path, data):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        whole(path, data)

    monkeypatch.setattr(choice, "write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ship(here, second)
    assert shipped() is None  # the weights are not those that policy.json tells of
    monkeypatch.setattr(choice, "write_atomically", whole)
    assert ship(here, second) and shipped()


@pytest.mark.parametrize(("metric", "names"), [("niqe", ["NIQE"]), ("psnr", []), (None, [])])
def test_tables_of_the_paper_take_the_agents_they_have_a_line_for(files, tmp_path, metric, names):
    model = random_model(tiny_config())
    folder = save_model(tmp_path / "model", model.network, model.config)
    agent(folder / "policy.safetensors")
    about = {"model": load_pretrained(folder).hash, "steps": [10, 10], "skip_rule": "reset"}
    about["sha256"] = hashlib.sha256((folder / "policy.safetensors").read_bytes()).hexdigest()
    about |= {"metric": metric} if metric else {}
    (folder / "policy.json").write_text(json.dumps(about))
    assert list(shipped_agent(folder)) == names


def test_imitation_is_taught_once_and_the_better_of_two_is_taken(files, monkeypatch):
    here = study(files, "--train-images", "2", "--noise-seeds", "1", "--size", "16")
    here.record()
    worth = {"StartChooser": 1.0, "NetworkPolicy": 2.0}
    monkeypatch.setattr(imitation, "_mean_reward", lambda _, policy: worth[type(policy).__name__])
    first = imitation.imitation(here, 1, 0)
    assert type(first).__name__ == "NetworkPolicy"
    for name in ("imitate", "regress_starts"):
        monkeypatch.delattr(imitation, name)  # whatever is taught again fails
    worth["StartChooser"] = 3.0
    latent = here.evaluator("train").envs.reset(options={"image": 0, "noise_seed": 0})[0]
    again = imitation.imitation(here, 1, 0)
    assert type(again).__name__ == "StartChooser" and again(latent, None)[0].shape == (1,)


def test_logarithms_are_compared_as_they_are():
    own, baseline = np.array([[[-1.0], [-3.0]]]), np.array([[[-1.02], [-3.04]]])
    mean, low, high = LOGARITHMS.difference(own, baseline)
    assert mean == pytest.approx(0.03) and low == pytest.approx(0.02) and high == pytest.approx(0.04)
    assert SHARES.difference(own, baseline)[0] == pytest.approx(0.03 / 2.03)
    rows = made(chosen=row(BASE + 0.05))
    text = verdict(rows, "best", 2, "chosen", (0, 0, 0), "paper", LOGARITHMS)
    assert text.startswith(
        "Learning beat the best fixed start: +5.00% [+5.00%, +5.00%] of M, by its logarithm"
    )
    assert "| chosen | " in table(rows, "best", OPTIMUM.ravel(), 2, {}, LOGARITHMS).markdown()
