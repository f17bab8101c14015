"""A model folder with an agent of its own, small enough for every test, and a workshop that offers it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from skipdiff_env.diffusion import load_pretrained, random_model, save_model
from skipdiff_env.diffusion.folder import ABOUT_POLICY, POLICY
from skipdiff_env.policies.file import save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig
from skipdiff_env.web.workshop import Workshop


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy-4x"
    model = random_model()
    save_model(folder, model.network, model.config, "---\nnotice: a toy\n---\n")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        agent = SkipProposalNetwork(SPNConfig(observation_size=16, hidden_size=32)).eval()
    save_policy(folder / POLICY, agent)
    about = {"model": load_pretrained(folder, "cpu").hash, "steps": [10, 10], "skip_rule": "reset"}
    about["sha256"] = hashlib.sha256((folder / POLICY).read_bytes()).hexdigest()
    (folder / ABOUT_POLICY).write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="session")
def workshop(toy_folder: Path) -> Workshop:
    return Workshop([toy_folder], device="cpu", side=96)
