"""Training runs: every algorithm, a known answer, resuming, signals, the command."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("sb3_contrib")
from skipdiff_agents.cli import main
from skipdiff_agents.evaluate import Evaluator
from skipdiff_agents.pairs import UNSEEN, all_pairs, enough, kept_back
from skipdiff_agents.settings import algorithms, read_settings
from skipdiff_agents.train import Progress, Run, Watch
from skipdiff_agents.vec_env import SkipDiffVecEnv
from skipdiff_env import SkipDiffError, SkipDiffSampler
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model
from skipdiff_env.diffusion.process import start_actions
from skipdiff_env.images import mixed_quality, open_source
from skipdiff_env.images.mixed import KINDS, kind
from skipdiff_env.latent_cache import LatentCache
from skipdiff_env.locks import alone
from skipdiff_env.policies.file import load_policy


def small(name, timesteps, **changes):
    settings = read_settings(name) | {"timesteps": timesteps, "observation_size": 16} | changes
    settings["policy"]["hidden_size"] = 16
    if "dqn" in name:
        settings["arguments"] |= {"buffer_size": 200, "learning_starts": 32, "batch_size": 16}
    return settings


def run(settings, setting, folder, **others):
    evaluator = Evaluator(setting, all_pairs(len(setting.source), 2, UNSEEN))
    return Run(
        settings, setting, all_pairs(len(setting.source), 3), evaluator, folder, device="cpu", **others
    )


@pytest.mark.parametrize("name", algorithms())
def test_every_algorithm_runs_to_the_end(tmp_path, tiny_setting, name):
    setting = replace(tiny_setting, cache=LatentCache())
    settings = small(name, 128, num_envs=4)
    trained = run(settings, setting, tmp_path / "run", every=64)
    progress = trained.train()
    assert progress.timesteps >= 128 and not progress.stopped_by
    with open(tmp_path / "run" / "evaluations.csv", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len(rows) >= 2 and all(float(row["regret"]) >= -1e-9 for row in rows)
    assert progress.best_reward == max(float(row["reward"]) for row in rows)
    assert list((tmp_path / "run" / "tensorboard").rglob("events.*"))
    # the kept agent is the one that the log praises, at three prices if it is told of them
    price = settings.get("step_cost", 0.0)
    told = not isinstance(price, float)
    returns = []
    for cost in np.geomspace(*price, 3) if told else [price]:
        file = tmp_path / "run" / "policy.safetensors"
        kept = trained.evaluator(load_policy(file, cost if told else 0.0))
        returns += [trained.evaluator.paid(r, cost) for r in kept]
    assert np.mean(returns) == pytest.approx(progress.best_reward)
    # no latent was computed twice: 9 training and 6 held-out episodes, x_S1 and F(F + 1)/2 latents each
    assert setting.cache.misses == len(setting.cache) <= (9 + 6) * (1 + 15)


# gamma = 0.7 makes the first decisions all but worthless: enough for `reset`, where the last skip decides.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "level", "gamma", "entropy", "timesteps"),
    [("reset", 35.0, 0.7, 0.02, 10240), ("hold", 81.0, 1.0, 0.05, 5120)],
)
def test_an_agent_finds_the_right_answer(tmp_path, setting, rule, level, gamma, entropy, timesteps):
    """At least 95 % of the optimum, which no constant action reaches.

    On noise seeds that the agent neither learned from nor was chosen by.
    """
    game = setting(level, skip_rule=rule, cache=LatentCache())
    settings = small("recurrent_ppo", timesteps, num_envs=64)
    settings["arguments"] |= {"learning_rate": 3e-3, "n_epochs": 8, "gamma": gamma, "ent_coef": entropy}
    trained = run(settings, game, tmp_path / "run", every=1280)
    trained.train()
    fresh = Evaluator(game, all_pairs(len(game.source), 2, UNSEEN + 100))
    assert not set(fresh.pairs) & {*trained.pairs, *trained.evaluator.pairs}
    optimum = np.mean([o.reward for o in fresh.optima()])
    learned = np.mean([r.reward for r in fresh(load_policy(tmp_path / "run" / "policy.safetensors"))])
    constant = [np.mean([r.reward for r in fresh(p)]) for p in ("denoise", "skip", "random")]
    assert learned >= 0.95 * optimum and max(constant) < 0.7 * optimum


def test_an_episode_ends_where_the_environment_says_so(tmp_path, tiny_setting):
    """No key of an info tells, since all are there in every step."""
    watch = Watch(run(small("ppo", 64), tiny_setting, tmp_path / "run", every=1000))
    envs = tiny_setting.envs(2)
    envs.reset(options={"image": [0, 1], "noise_seed": [0, 0]})
    for step in range(4):
        *_, done, _, infos = envs.step([0, step % 2])
        told = [{name: infos[name][row] for name in ("metric", "actions")} for row in range(2)]
        watch.locals = {"infos": told, "dones": done}
        assert watch._on_step()
        assert len(watch.ended) == (2 if step == 3 else 0)
    assert [info["actions"].tolist() for info in watch.ended] == [[0, 0, 0, 0], [0, 1, 0, 1]]


def test_resuming(tmp_path, tiny_setting):
    folder = tmp_path / "run"
    first = run(small("ppo", 64, num_envs=4), tiny_setting, folder)
    assert first.train().timesteps == 64
    with pytest.raises(SkipDiffError, match="already holds a run"):
        run(small("ppo", 64, num_envs=4), tiny_setting, folder).train()
    with pytest.raises(SkipDiffError, match="with seed = 0, not 1"):
        run(small("ppo", 64, num_envs=4), tiny_setting, folder, seed=1).train(resume=True)
    again = run(small("ppo", 128, num_envs=4), tiny_setting, folder)
    assert again.train(resume=True).timesteps == 128
    assert again.progress.best_reward >= first.progress.best_reward
    assert again.progress.seconds > first.progress.seconds
    steps = [int(r["timesteps"]) for r in csv.DictReader((folder / "evaluations.csv").open())]
    assert steps == sorted(set(steps)) and steps[-1] == 128


def test_the_papers_agent_goes_on_where_it_was(tmp_path, tiny_setting):
    """Weights, and what the optimiser remembers of each."""
    first = run(small("recurrent_ppo", 64, num_envs=4), tiny_setting, tmp_path / "run")
    first.train()
    before = torch.load(_member(tmp_path / "run" / "checkpoint.zip", "policy.optimizer.pth"))
    again = run(small("recurrent_ppo", 128, num_envs=4), tiny_setting, tmp_path / "run")
    assert again.train(resume=True).timesteps == 128
    after = torch.load(_member(tmp_path / "run" / "checkpoint.zip", "policy.optimizer.pth"))
    steps = [float(state["state"][0]["step"]) for state in (before, after)]
    updates = small("recurrent_ppo", 64)["arguments"]["n_epochs"] * 2
    assert steps == [3 * updates, 6 * updates]  # the last roll-out of each is not learned from any more


def _member(archive, name):
    with zipfile.ZipFile(archive) as opened:
        return io.BytesIO(opened.read(name))


def test_too_few_decisions_are_refused(tmp_path, tiny_setting):
    with pytest.raises(SkipDiffError, match="timesteps=15 is less than one update .* give 16 or more"):
        run(small("ppo", 15, num_envs=4), tiny_setting, tmp_path / "run").train()
    assert not (tmp_path / "run").exists()


def test_what_is_asked_for_is_refused_by_name(tmp_path, tiny_setting):
    with pytest.raises(SkipDiffError, match=r"timesteps=64 .* \(learning_starts\): give 1001 or more"):
        settings = read_settings("dqn") | {"timesteps": 64}
        run(settings, tiny_setting, tmp_path / "dqn").train()
    settings = small("recurrent_ppo", 64, num_envs=4)
    run(settings, tiny_setting, tmp_path / "run").train()
    wider = settings | {"policy": settings["policy"] | {"hidden_size": 9}}
    dear = settings | {"step_cost": 0.25}
    for other, name in (
        (wider, "settings.policy.hidden_size"),
        (dear, "settings.step_cost"),
        (settings | {"num_envs": 2}, "settings.num_envs"),
        (settings | {"arguments": settings["arguments"] | {"seed": 1}}, "settings.arguments.seed"),
    ):
        with pytest.raises(SkipDiffError, match=f"holds a run with {re.escape(name)} = .*, not "):
            run(other, tiny_setting, tmp_path / "run").train(resume=True)
    with pytest.raises(SkipDiffError, match="holds a run with skip_rule = 'reset', not 'hold'"):
        run(settings, replace(tiny_setting, skip_rule="hold"), tmp_path / "run").train(resume=True)


def test_how_an_agent_plays_is_told(tmp_path, tiny_setting):
    """By chance while it learns, and with the more probable action: shares of skips at every level."""
    trained = run(small("recurrent_ppo", 128, num_envs=4), tiny_setting, tmp_path / "run", every=32)
    watched = []
    trained.evaluator, evaluator = (
        (lambda policy: watched.append(evaluator(policy)) or watched[-1]),
        (trained.evaluator),
    )
    for name in ("paid", "can_find_optima", "best_rewards", "setting", "pairs", "process"):
        setattr(trained.evaluator, name, getattr(evaluator, name))
    trained.train()
    with open(tmp_path / "run" / "played.csv", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [int(row["timesteps"]) for row in rows] == [32, 64, 96, 128]
    for row, results in zip(rows, watched, strict=True):
        skips = np.mean([result.actions for result in results], axis=0)
        told = [float(row[f"held_out_skip_{level}"]) for level in (5, 4, 3, 2)]
        assert told == pytest.approx(skips.tolist())
        assert float(row["reward"])
    skipped = [8 * float(row[f"skip_{level}"]) for row in rows for level in (5, 4, 3, 2)]
    assert all(n in range(9) for n in skipped) and {*skipped} - {0, 8}  # of 8 episodes, by chance


def test_rewards_are_as_paid_if_settings_say_so(tmp_path, tiny_setting):
    relative = replace(tiny_setting)
    object.__setattr__(relative, "relative_rewards", lambda pairs: {"reward_scale": 2.0})
    settings = small("recurrent_ppo", 64, num_envs=4)
    assert run(settings, relative, tmp_path)._rewards() == {"reward_scale": 2.0}
    assert run(settings | {"relative_rewards": False}, relative, tmp_path)._rewards() == {}


def test_agents_starts_and_optima_are_compared_at_the_same_prices(tmp_path, tiny_setting):
    trained = run(small("ppo_step_cost", 64, num_envs=4, step_cost=[0.01, 1.0]), tiny_setting, tmp_path)
    trained.progress.improve(0.0, 10.0)
    best, starts = [], []
    for price in (0.01, 0.1, 1.0):
        for found in trained.evaluator.optima():
            paid = {o.actions: o.reward - price * (o.actions.count(0) + 1) for o in found.outcomes}
            best.append(max(paid.values()))
            starts.append([paid[tuple(start_actions(k, 5))] for k in range(1, 6)])
    said, start = trained.comparison(), np.mean(starts, axis=0).max()
    assert f" {start:.5f} with " in said and said.endswith(f"optimum {np.mean(best):.5f}")


def test_a_second_run_into_one_folder_is_refused(tmp_path, tiny_setting):
    settings = small("ppo", 64, num_envs=4)
    with alone(tmp_path / "run"):
        for resume in (False, True):
            with pytest.raises(SkipDiffError, match="another run is writing there"):
                run(settings, tiny_setting, tmp_path / "run").train(resume=resume)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["dqn", "qrdqn"])
def test_after_resuming_nothing_is_learned_from_an_almost_empty_buffer(
    tmp_path, tiny_setting, name, monkeypatch
):
    """The replay buffer is not saved: it is filled again first."""
    run(small(name, 64, num_envs=4), tiny_setting, tmp_path / "run").train()
    from stable_baselines3.common.buffers import DictReplayBuffer

    sizes, sample = [], DictReplayBuffer.sample

    def watched(self, batch_size, env=None):
        sizes.append(self.size() * self.n_envs)
        return sample(self, batch_size, env)

    monkeypatch.setattr(DictReplayBuffer, "sample", watched)
    again = run(small(name, 128, num_envs=4), tiny_setting, tmp_path / "run")
    assert again.train(resume=True).timesteps == 128
    starts = again.settings["arguments"]["learning_starts"]
    assert sizes and starts <= min(sizes) < max(sizes) <= 64


def test_a_resumed_run_draws_other_episodes_than_at_its_start(tmp_path, tiny_setting, monkeypatch):
    """Else each of many short runs would learn from the same few."""
    drawn, before = [], SkipDiffVecEnv.reset

    def reset(self):
        result = before(self)
        drawn.append([(info["image"], info["noise_seed"]) for info in self.reset_infos])
        return result

    monkeypatch.setattr(SkipDiffVecEnv, "reset", reset)
    settings = small("ppo", 64, num_envs=4)
    run(settings, tiny_setting, tmp_path / "run").train()
    first, drawn[:] = drawn[:3], []
    run(settings | {"timesteps": 128}, tiny_setting, tmp_path / "run").train(resume=True)
    assert drawn[:3] != first


def test_a_run_is_resumed_with_its_own_episodes_alone(tmp_path, tiny_setting):
    """As many images of the same names and sizes are not enough."""

    def begun(setting=tiny_setting, held_out=None, **changes):
        evaluator = Evaluator(held_out or setting, all_pairs(3, 2, UNSEEN))
        own = {"pairs": all_pairs(3, 3), "evaluator": evaluator, "device": "cpu"} | changes
        return Run(small("ppo", 64, num_envs=4), setting, folder=tmp_path / "run", **own)

    begun().train()
    before = (tmp_path / "run" / "checkpoint.zip").read_bytes()
    pictures = [tiny_setting.source[i].copy() for i in range(3)]
    pictures[1][16, 16] ^= 1
    other = replace(tiny_setting, source=open_source(pictures))
    assert [other.source.name(i) for i in range(3)] == [tiny_setting.source.name(i) for i in range(3)]
    mixed = replace(tiny_setting, source=mixed_quality(tiny_setting.source))
    bfloat16 = random_model(tiny_config())
    bfloat16.dtype = torch.bfloat16
    for run, name in [
        (begun(other, held_out=tiny_setting), "training"), (begun(held_out=other), "held_out"),
        (begun(mixed, held_out=tiny_setting), "training"), (begun(held_out=mixed), "held_out"),
        (begun(pairs=all_pairs(3, 3, 1)), "training"),
        (begun(evaluator=Evaluator(tiny_setting, all_pairs(3, 2, 7))), "held_out"),
        (begun(replace(tiny_setting, image_size=16)), "image_size"),
        (begun(replace(tiny_setting, model=bfloat16)), "precision"),
    ]:  # fmt: skip
        with pytest.raises(SkipDiffError, match=f"holds a run with {name} = "):
            run.train(resume=True)
    assert (tmp_path / "run" / "checkpoint.zip").read_bytes() == before
    assert begun().train(resume=True).timesteps == 64


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model folder and pictures."""
    folder = tmp_path_factory.mktemp("files")
    model = random_model(tiny_config())
    save_model(folder / "model", model.network, model.config)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    return folder


def options(files):
    return [
        "--model", str(files / "model"), "--images", str(files / "images"), "--metric", "psnr",
        "--coarse-steps", "20", "--noise-seeds", "2", "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(small("recurrent_ppo", 128, num_envs=4)))
    return str(path)


def test_the_commands(tmp_path, files, mine, capsys):
    out = tmp_path / "run"
    assert main(["train", "--algo", mine, "--out", str(out), *options(files), "--timesteps", "64"]) == 0
    assert "policy.safetensors" in capsys.readouterr().out
    exported = tmp_path / "agent"
    assert main(["export", str(out / "checkpoint.zip"), "--format", "torch-export", "-o", str(exported)]) == 0
    policy = load_policy(f"{exported}.pt2")
    sampler = SkipDiffSampler(random_model(tiny_config()), coarse_steps=20)
    assert len(sampler(np.zeros((8, 8, 3), np.uint8), policy=policy).trace[0].actions) == 4

    table = tmp_path / "table.csv"
    arguments = [
        "evaluate",
        "3",
        "denoise",
        "skip",
        "random",
        str(out / "policy.safetensors"),
        *options(files),
    ]
    arguments += ["--optimum", "--also", "ssim", "--best-start-on", str(files / "images"), "-o", str(table)]
    capsys.readouterr()
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    lines = printed.strip().splitlines()
    assert len(lines) == 2 + 6 and lines[2].startswith("| best start (") and "regret" in lines[0]
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 6 * 2 * 2 and all(float(r["ssim"]) <= 1 for r in rows)
    before = table.read_bytes()
    assert main(arguments) == 0  # nothing is played again
    assert capsys.readouterr().out == printed and table.read_bytes() == before

    outcomes = tmp_path / "outcomes.csv"
    assert main(["oracle", *options(files), "-o", str(outcomes)]) == 0
    assert (
        len(capsys.readouterr().out.splitlines()) == 4 and len(list(csv.DictReader(outcomes.open()))) == 4 * 5
    )


def test_several_runs_and_a_price_are_evaluated(tmp_path, files, capsys):
    runs = []
    for name, algorithm in (("plain", "ppo"), ("priced", "ppo_step_cost")):
        path, folder = tmp_path / f"{name}.yaml", str(tmp_path / name)
        path.write_text(json.dumps(small(algorithm, 64, num_envs=4)))
        metric = ["--metric", "ssim"] if name == "priced" else []
        assert main(["train", "--algo", str(path), "--out", folder, *options(files), *metric]) == 0
        runs.append(folder)

    def names(*arguments):
        capsys.readouterr()
        assert main(["evaluate", *arguments, "--device", "cpu", "--noise-seeds", "1"]) == 0
        lines = capsys.readouterr()
        return [line.split("|")[1].strip() for line in lines.out.splitlines()[2:]], lines.err

    both, said = names(*runs)
    assert [name.partition("@")[0] for name in both] == ["policy.safetensors"] * 2
    assert both[1].endswith(" at 0.002") and " at " not in both[0]  # the middle of 2e-4 … 2e-2
    assert f"note: {runs[1]} is played like {runs[0]}, but was trained with another metric\n" in said
    assert names(runs[1], "--step-cost", "0.01")[0][0].endswith(" at 0.01")
    for arguments, match in (
        ([runs[0], "--step-cost", "0.01"], "--step-cost needs an agent that was trained with prices"),
        ([runs[1], "--step-cost", "nan"], "step_cost=nan must be a finite number"),
    ):
        assert main(["evaluate", *arguments, "--device", "cpu"]) == 2
        assert match in capsys.readouterr().err


@pytest.mark.parametrize(("mixed", "kept"), [(False, [9, 19, 29, 39]), (True, [36, 37, 38, 39])])
def test_every_kind_of_fault_is_held_out(tmp_path, files, mine, monkeypatch, mixed, kept):
    (tmp_path / "images").mkdir()
    for i in range(42):
        cv2.imwrite(str(tmp_path / "images" / f"{i:02}.png"), np.full((32, 32, 3), i, np.uint8))
    runs = []

    def train(self, resume, progress_bar, say):
        runs.append(self)
        return Progress(best_reward=0.0)

    monkeypatch.setattr(Run, "train", train)
    arguments = ["train", "--algo", mine, "--out", str(tmp_path / "run"), *options(files)]
    arguments += ["--images", str(tmp_path / "images"), *(["--mixed"] if mixed else [])]
    assert main(arguments) == 0
    held_out = sorted({image for image, _ in runs[0].evaluator.pairs})
    assert len(runs[0].evaluator.pairs) == 8
    assert held_out == kept and {image for image, _ in runs[0].pairs} == {*range(42)} - {*kept}
    assert not mixed or {kind(image) for image in held_out} == {*KINDS}
    assert kept_back(7) == [2, 5] and kept_back(9) == [2, 5, 8] and kept_back(16, 4) == [8, 9, 10, 11]
    assert kept_back(39, 4) == [*range(8, 12), *range(20, 24), *range(32, 36)]
    assert kept_back(3) == kept_back(15, 4) == []
    assert enough(24, 5) == 5 and enough(24, 24) == 1


def test_errors_are_one_line(tmp_path, files, capsys):
    for arguments, match in [
        (["train", "--algo", "sac", "--out", "x", *options(files)], "unknown algorithm 'sac'"),
        (["export", str(tmp_path / "no.zip"), "-o", "a.onnx"], "is missing"),
        (["export", "runs/typo", "-o", "a.onnx"], "runs/typo is missing: give the folder of a run, a policy"),
        (["evaluate", "99", *options(files)], "start=99"),
        (["oracle", *options(files), "--fine-steps", "20", "--skip-rule", "hold"], "1048594 network calls"),
    ]:  # fmt: skip
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("skipdiff-agent: error: ") and error.count("\n") == 1 and match in error


@pytest.mark.slow
def test_a_signal_ends_a_run_that_can_be_resumed(tmp_path, files, mine):
    out, root = tmp_path / "run", Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "skipdiff_agents.cli", "train", "--algo", mine, "--out", str(out)]
    paths = os.pathsep.join([str(root), str(root / "agents"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *options(files), "--timesteps", "1000000", "--every", "64"],
        env=environment,
        stderr=subprocess.PIPE,
    )
    log = out / "evaluations.csv"
    end = time.monotonic() + 120
    while not log.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, errors
    done = json.loads((out / "checkpoint.json").read_text())["timesteps"]
    assert 64 <= done < 1_000_000
    more = ["--resume", "--timesteps", str(done + 64)]
    assert main(["train", "--algo", mine, "--out", str(out), *options(files), *more]) == 0
    assert json.loads((out / "checkpoint.json").read_text())["timesteps"] >= done + 64


def test_of_agents_with_the_same_reward_the_faster_is_kept():
    progress = Progress()
    found = [
        progress.improve(*pair) for pair in ((0.1, 17.0), (0.1, 13.0), (0.1, 14.0), (0.2, 19.0), (0.1, 10.0))
    ]
    assert found == [True, True, False, True, False]
    assert (progress.best_reward, progress.best_evaluations) == (0.2, 19.0)
    again = Progress(**json.loads(json.dumps(vars(Progress()))))  # as in a checkpoint
    assert again == Progress() and again.improve(0.0, 10.0)
