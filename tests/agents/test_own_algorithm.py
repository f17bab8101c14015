"""An algorithm from outside: a class in a module of its own, and a YAML file that names it."""

import csv
import textwrap

import cv2
import numpy as np
import pytest

pytest.importorskip("sb3_contrib")
from skipdiff_agents.cli import main
from skipdiff_agents.settings import read_settings
from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model

REINFORCE = """
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.policies import MultiInputActorCriticPolicy


    class Reinforce(OnPolicyAlgorithm):
        policy_aliases = {"MultiInputPolicy": MultiInputActorCriticPolicy}

        def __init__(self, policy, env, n_steps, learning_rate, **others):
            fixed = {"gamma": 1.0, "gae_lambda": 1.0, "ent_coef": 0.0, "vf_coef": 0.0, "max_grad_norm": 1.0}
            super().__init__(policy, env, learning_rate, n_steps=n_steps, use_sde=False, sde_sample_freq=-1,
                             **fixed, **others)

        def train(self):
            for played in self.rollout_buffer.get():
                _, log_prob, _ = self.policy.evaluate_actions(played.observations, played.actions.flatten())
                loss = -(log_prob * played.returns).mean()
                self.policy.optimizer.zero_grad()
                loss.backward()
                self.policy.optimizer.step()
"""
SETTINGS = """
    algorithm: toy_algorithm.Reinforce
    timesteps: 64
    num_envs: 4
    observation_size: 16
    episodes: 2
    policy: {hidden_size: 16, norm: group}
    arguments: {learning_rate: 1.0e-2}
"""


def test_it_trains_evaluates_and_exports(tmp_path, monkeypatch, capsys):
    (tmp_path / "toy_algorithm.py").write_text(textwrap.dedent(REINFORCE))
    (tmp_path / "toy.yaml").write_text(textwrap.dedent(SETTINGS))
    monkeypatch.syspath_prepend(tmp_path)
    model = random_model(tiny_config())
    save_model(tmp_path / "model", model.network, model.config)
    (tmp_path / "images").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), picture)
    options = ["--model", str(tmp_path / "model"), "--images", str(tmp_path / "images"), "--metric", "psnr"]
    options += ["--coarse-steps", "20", "--device", "cpu"]
    run = tmp_path / "run"
    assert main(["train", "--algo", str(tmp_path / "toy.yaml"), "--out", str(run), *options]) == 0
    log = list(csv.DictReader((run / "evaluations.csv").open()))
    assert int(log[-1]["timesteps"]) == 64
    agent = str(tmp_path / "agent.onnx")
    assert main(["export", str(run / "checkpoint.zip"), "-o", agent]) == 0
    table = tmp_path / "table.csv"
    assert main(["evaluate", "denoise", agent, *options, "-o", str(table)]) == 0
    capsys.readouterr()
    policies = {row["policy"].partition("@")[0] for row in csv.DictReader(table.open())}
    assert policies == {"denoise", "agent.onnx"}


@pytest.mark.parametrize("name", ["Sac", "no_such_module.Sac", "stable_baselines3.NoSuchClass"])
def test_what_cannot_be_found_is_named(tmp_path, name):
    path = tmp_path / "mine.yaml"
    path.write_text(textwrap.dedent(SETTINGS).replace("toy_algorithm.Reinforce", name))
    with pytest.raises(SkipDiffError, match=f"unknown algorithm '{name}'"):
        read_settings(str(path))
