"""The benchmarks of agents run, resume and write, on a tiny model; their statistics are right."""

import csv
import gzip
import hashlib
import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("sb3_contrib")
pytest.importorskip("matplotlib")
from benchmarks.__main__ import main
from benchmarks.agents.choice import same_agent
from benchmarks.agents.spn import BATCHES, random_latents
from benchmarks.agents.step_cost import price_of_start_1
from benchmarks.agents.study import interval
from benchmarks.agents.training import plateau_of
from skipdiff_agents.settings import BEST
from skipdiff_env import load_pretrained
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model
from skipdiff_env.policies.base import shipped_policy


def lines(file):
    with gzip.open(file, "rt") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, training and test pictures, and where everything goes."""
    folder = tmp_path_factory.mktemp("benchmarks")
    model = random_model(tiny_config())
    save_model(folder / "model", model.network, model.config)
    rng = np.random.default_rng(0)
    for name, count in (("train", 6), ("valid", 3), ("test", 2)):
        (folder / name).mkdir()
        for i in range(count):
            picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / name / f"{i}.png"), picture)
    return folder


def command(files, name, *more, test=True):
    arguments = [
        name, "--model", str(files / "model"), "--images", str(files / "train"), "--train-images", "6",
        "--noise-seeds", "1", "--seeds", "2", "--timesteps", "64", "--fine-steps", "4", "--size", "16",
        "--runs", str(files / "runs"), "--out", str(files / "out"), "--precision", "float32",
    ]  # fmt: skip
    if test:
        arguments += ["--test", str(files / "test"), "--test-images", "2", "--test-seeds", "2"]
    return main([*arguments, *more])


def test_agents(files, capsys):
    arguments = [
        "--metric", "psnr", "--algos", "ppo", "recurrent_ppo_lstm", "--chain", "1", "--ship", "--epochs", "2",
        "--valid", str(files / "valid"),
    ]  # fmt: skip
    assert command(files, "agents", *arguments) == 0
    printed = capsys.readouterr().out
    assert "recording 1/6" in printed and "recording 1/9" in printed and "training ppo, seed 1" in printed
    folder = files / "out" / "model"
    text = (folder / "clean-psnr-reset-10-4.md").read_text()
    names = ["always denoise", "always skip", "random", "start 1", "start 4", "optimum", "ppo", "full chain"]
    names += ["imitation of the optimum", "chosen on validation (", "best start on validation images ("]
    assert all(f"\n| {name}" in text for name in names) and "Learning " in text
    assert "Training: 6 images of `train` × 1 noise seeds; agents chosen on 3 images of `valid` × 3" in text
    assert "Made by `python -m benchmarks agents --model model --images train --train-images 6 " in text
    assert "takes 19 network calls" in text  # 9 of CSA, and 4 · 5 / 2
    rows = lines(folder / "clean-psnr-reset-10-4.csv.gz")
    of = {
        name: [float(r["reward"]) for r in rows if r["policy"] == name]
        for name in ("optimum", "start 2", "ppo")
    }
    assert [len(found) for found in of.values()] == [4, 4, 8]
    assert np.all(np.array(of["optimum"]) >= np.array(of["start 2"]))
    assert (folder / "clean-psnr-reset-10-4.png").stat().st_size > 5000
    about = json.loads((files / "model" / "policy.json").read_text())
    assert about["algorithm"] in ("ppo", "recurrent_ppo_lstm") and about["steps"] == [10, 4]
    assert about["validation_difference"][1] >= -0.01
    chosen = f"chosen on validation ({about['algorithm']}, seed {about['training_seed']})"
    assert f"\n| {chosen} |" in text
    assert (
        shipped_policy(load_pretrained(files / "model", "cpu"), 10, 4)
        == files / "model" / "policy.safetensors"
    )
    assert (
        shipped_policy(load_pretrained(files / "model", "cpu")) is None
    )  # it was trained for four fine steps
    before = (folder / "clean-psnr-reset-10-4.csv.gz").read_bytes()
    assert command(files, "agents", *arguments) == 0  # nothing is recorded or learned again
    printed = capsys.readouterr().out
    assert not [line for line in printed.splitlines() if line.startswith(("recording", "imitation"))]
    assert (folder / "clean-psnr-reset-10-4.csv.gz").read_bytes() == before
    # An agent of an earlier comparison has a row of its own, the one that was chosen here has not.
    assert "the agent that ships" not in text
    policy = files / "model" / "policy.safetensors"
    trained = sorted(files.glob(f"runs/**/{BEST}"))
    policy.write_bytes(next(file.read_bytes() for file in trained if not same_agent(file, policy)))
    about["sha256"] = hashlib.sha256(policy.read_bytes()).hexdigest()
    (files / "model" / "policy.json").write_text(json.dumps(about))
    assert command(files, "agents", *(a for a in arguments if a != "--ship")) == 0
    assert "\n| the agent that ships |" in (folder / "clean-psnr-reset-10-4.md").read_text()


def test_agents_where_recording_takes_too_long(files, capsys):
    pytest.importorskip("lmdb")
    arguments = ["--metric", "psnr", "--max-calls", "18", "--valid", str(files / "valid")]
    assert command(files, "agents", *arguments, "--algos", "exact_gradient") == 2
    assert "exact_gradient learns from recordings" in capsys.readouterr().err
    assert command(files, "agents", *arguments, "--algos", "ppo:many") == 2
    assert "--algos ppo:many: write a number of decisions after the colon" in capsys.readouterr().err
    arguments += ["--algos", "ppo:144", "recurrent_ppo_lstm", "--out", str(files / "played")]
    assert command(files, "agents", *arguments) == 0
    assert "recording 1/" not in capsys.readouterr().out
    folder = files / "played" / "model"
    text = (folder / "clean-psnr-reset-10-4.md").read_text()
    assert "would take 19 network calls" in text and "rewards as the environment pays them" in text
    names = ["always denoise", "random", "start 1", "start 4", "ppo", "chosen on validation ("]
    assert all(f"\n| {name}" in text for name in names) and "Learning " in text
    assert all(re.search(rf"\| \d+\.\d \| {decisions} \|\n", text) for decisions in (144, 96))
    assert "| optimum" not in text and "| imitation" not in text and "nan" not in text
    assert (folder / "clean-psnr-reset-10-4.png").stat().st_size > 5000
    # The fixed starts are those of recorded episodes.
    command(files, "agents", "--metric", "psnr", "--algos", "--valid", str(files / "valid"), "--epochs", "1")
    of = []
    for place in (folder, files / "out" / "model"):
        rows = lines(place / "clean-psnr-reset-10-4.csv.gz")
        of.append([float(row["reward"]) for row in rows if row["policy"].startswith("start ")])
    assert len(of[0]) == 4 * 4 and np.allclose(*of, rtol=2e-3)  # half precision
    assert command(files, "agents", *arguments) == 0  # resumes


def test_agents_on_mixed_quality(files, capsys):
    arguments = ["--metric", "psnr", "--mixed", "--algos", "exact_gradient", "--epochs", "2"]
    arguments += ["--valid", str(files / "valid"), "--valid-seeds", "1"]
    assert command(files, "agents", *arguments) == 0
    folder = files / "out" / "model"
    text = (folder / "mixed-psnr-reset-10-4.md").read_text()
    assert "Training: 6 images of `train` × 1 noise seeds" in text
    assert "chosen on 3 images of `valid`, each in all four kinds, × 1 new noise seeds" in text
    assert "Test: 2 images of `test`, each in all four kinds, × 2 new noise seeds" in text
    assert "| difference to best start | clean | jpeg | noise | blur |" in text
    rows = lines(folder / "mixed-psnr-reset-10-4.csv.gz")
    played = [row["image"] for row in rows if row["policy"] == "exact_gradient"]
    assert len(played) == 2 * 2 * 4 * 2 and len(set(played)) == 2 * 4  # seeds, pictures, kinds, noise
    capsys.readouterr()
    assert command(files, "agents", *arguments) == 0
    assert "training exact_gradient" not in capsys.readouterr().out


def test_ceilings(files, capsys):
    arguments = ("--metrics", "psnr", "--epochs", "2")
    assert command(files, "ceilings", *arguments) == 0
    text = (files / "out" / "model" / "ceilings.md").read_text()
    lines = text.splitlines()
    assert "Made by `python -m benchmarks ceilings --model model " in text
    assert [line.split("|")[1].strip() for line in lines if line.startswith("|")][2:] == ["clean", "mixed"]


def test_step_cost(files):
    assert command(files, "step-cost", "--metric", "ssim") == 0
    folder = files / "out" / "model"
    rows = list(csv.DictReader((folder / "clean-ssim-reset-10-4-step-cost.csv").open()))
    assert [row["policy"] for row in rows] == ["fixed start"] * 4 + ["agent"] * 7
    assert [float(row["evaluations"]) for row in rows[:4]] == [10, 11, 12, 13]
    assert (folder / "clean-ssim-reset-10-4-step-cost.png").exists()


@pytest.mark.slow
def test_training_and_network(files):
    arguments = ("--metric", "psnr", "--algo", "recurrent_ppo_lstm")  # the paper's has 14 million weights
    assert command(files, "agent-training", *arguments, test=False) == 0
    text = (files / "out" / "model" / "training.md").read_text()
    assert "| 3400000 |" in text and f"| {6 * 19} |" in text  # six episodes of 9 + 4·5/2 calls
    assert "The validation reward rises from" in text and "plateau" in text
    arguments = ("--metric", "psnr", "--widths", "8", "--sizes", "16")
    assert command(files, "spn", *arguments, test=False) == 0
    lines = (files / "out" / "model" / "spn.md").read_text().splitlines()
    batch, group = (line.split("|") for line in lines if line.startswith(("| batch", "| group")))
    assert float(batch[-2]) > 0 == float(group[-2])


@pytest.mark.parametrize(
    ("rewards", "plateau"),
    [
        ([100, 100.5, 101.9, 102, 101.95], 2),
        ([100, 101.95, 101, 102, 101.9], 3),  # what is lost again does not count
        ([100, 102, 101], None),
        ([100, 99, 98], None),  # nothing was learned
        ([100, 101], 1),
    ],
)
def test_the_plateau_is_measured_in_what_was_learned(rewards, plateau):
    assert plateau_of(rewards) == plateau


def test_the_bias_is_averaged_over_random_episodes_and_actions():
    calls = []

    class Envs:
        process = SimpleNamespace(decisions=3)

        def reset(self, options):
            calls.append((options["image"], options["noise_seed"]))
            return torch.zeros(4, 3, 8, 8), {}

        def step(self, actions):
            calls.append(list(actions))
            return torch.zeros(4, 3, 8, 8), None, None, None, {}

    training = SimpleNamespace(envs=lambda *_, **__: Envs())
    study = SimpleNamespace(training=training, train_pairs=[(i, s) for i in range(10) for s in range(3)])
    batches = [random_latents(study, 8, 4, seed) for seed in range(BATCHES)]
    assert all(latents.shape == (3, 4, 3, 8, 8) for latents in batches)
    played = [pair for call in calls if isinstance(call, tuple) for pair in zip(*call, strict=True)]
    assert set(played) == set(study.train_pairs)
    actions = np.array([call for call in calls if isinstance(call, list)])
    assert set(actions.ravel()) == {0, 1} and abs(actions.mean() - 0.5) < 0.1


def test_the_bootstrap_draws_seeds_and_images():
    rng = np.random.default_rng(0)
    between = rng.normal(0, 1, (1, 400, 1))
    values = 5 + between + rng.normal(0, 0.1, (3, 400, 2))
    mean, low, high = interval(values)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - 1.96 / 20, mean + 1.96 / 20), abs=0.02)
    # images are what varies: six values of each do not narrow the interval
    one = interval(values[:1, :, :1])
    assert one[2] - one[1] == pytest.approx(high - low, rel=0.1)
    ratio, low, high = interval(2 * values, values)
    assert (ratio, low, high) == pytest.approx((2, 2, 2))


def test_the_highest_price_makes_start_1_best():
    rewards = np.array([1.0, 1.6, 1.8, 1.7])
    price = price_of_start_1(rewards)
    assert price == pytest.approx(0.6)
    for factor, best in ((1.01, 0), (0.99, 1)):
        assert (rewards - factor * price * np.arange(4)).argmax() == best
    with pytest.raises(ValueError, match="nothing to weigh"):
        price_of_start_1(np.array([3.0, 2.0, 1.0]))
