"""Published checkpoints: networks in their authors' format, written here with random weights."""

import argparse
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from skipdiff_env.cli import main
from skipdiff_env.diffusion import NoiseSchedule, SkipProcess, UNetConfig, load_pretrained
from skipdiff_env.diffusion.folder import empty_network
from skipdiff_env.diffusion.interop.sr3 import import_sr3, model_config, read_json
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.policies.file import load_policy
from tests.reference import unet64

from .test_sr3_agents import agent_weights

JSON = """{
    "name": "a // name, with } and ,] in it", "phase": "train", // train or val
    "path": { //set the path
        // "resume_state": null
        "resume_state": "https://example.org/I1_E1"
    },
    "datasets": {
        "train": {"l_resolution": 16, "r_resolution": 64, "data_len": -1,}, // all of them
        "val": {
            "phase": "val",,
            "l_resolution": 4, // small
            "r_resolution": 16
        }
    },
    "model": {
        "which_model_G": "sr3",
        "finetune_norm": false,
        "unet": {
            "in_channel": 6, "out_channel": 3, "inner_channel": %(width)d, %(groups)s
            "channel_multiplier": [%(multipliers)s],
            "attn_res": [%(attention)d], // pixels
            "res_blocks": %(blocks)d, "dropout": 0.2
        },
        "beta_schedule": {
            "train": {"schedule": "linear", "n_timestep": 2000, "linear_start": 1e-6, "linear_end": 1e-2},
            "val": {"schedule": "%(schedule)s", "n_timestep": %(steps)d, //2000 1000 10
                "linear_start": 1e-6, "linear_end": 1e-2}
        },
        "diffusion": {"image_size": %(size)d, "channels": 3, "conditional": true //sample channel
        }
    },
    "train": {"n_iter": 1e6, "val_freq": 1e4,},
}
"""
SMALL = {
    "width": 8, "groups": '"norm_groups": 4,', "multipliers": "1, 2", "attention": 8, "blocks": 1,
    "schedule": "linear", "steps": 2000, "size": 16,
}  # fmt: skip
FULL = SMALL | {"width": 64, "groups": "", "multipliers": "1, 2, 4, 8, 8", "attention": 16, "blocks": 2}
TABLES = ["betas", "alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_mean_coef2"]


def published_layout():
    """Every key and shape of the small network, spelled out by hand."""
    found = {}

    def add(name, shape):
        found[f"denoise_fn.{name}.weight"], found[f"denoise_fn.{name}.bias"] = shape, (shape[0],)

    def stage(name, inputs, outputs, attend):
        add(f"{name}.res_block.noise_func.noise_func.0", (outputs, 8))
        add(f"{name}.res_block.block1.block.0", (inputs,))
        add(f"{name}.res_block.block1.block.3", (outputs, inputs, 3, 3))
        add(f"{name}.res_block.block2.block.0", (outputs,))
        add(f"{name}.res_block.block2.block.3", (outputs, outputs, 3, 3))
        if inputs != outputs:
            add(f"{name}.res_block.res_conv", (outputs, inputs, 1, 1))
        if attend:
            add(f"{name}.attn.norm", (outputs,))
            found[f"denoise_fn.{name}.attn.qkv.weight"] = (3 * outputs, outputs, 1, 1)
            add(f"{name}.attn.out", (outputs, outputs, 1, 1))

    add("noise_level_mlp.1", (32, 8))
    add("noise_level_mlp.3", (8, 32))
    add("downs.0", (8, 6, 3, 3))
    stage("downs.1", 8, 8, False)
    add("downs.2.conv", (8, 8, 3, 3))
    stage("downs.3", 8, 16, True)
    stage("mid.0", 16, 16, True)
    stage("mid.1", 16, 16, False)
    stage("ups.0", 32, 16, True)
    stage("ups.1", 24, 16, True)
    add("ups.2.conv", (16, 16, 3, 3))
    stage("ups.3", 24, 8, False)
    stage("ups.4", 16, 8, False)
    add("final_conv.block.0", (8,))
    add("final_conv.block.3", (3, 8, 3, 3))
    return found


def random_weights():
    rng = np.random.default_rng(0)

    def draw(key, shape):
        scale = 0.5 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.2
        offset = 1.0 if len(shape) == 1 and key.endswith("weight") else 0.0
        return torch.from_numpy(rng.normal(offset, scale, shape)).float()

    return {key: draw(key, shape) for key, shape in published_layout().items()}


def write(folder, weights, **changes):
    """A checkpoint with the schedule's tables beside the network, and its JSON."""
    tables = {name: torch.linspace(0, 1, 2000) for name in TABLES}
    torch.save({**tables, **weights}, folder / "I9_E9_gen.pth")
    (folder / "net.json").write_text(JSON % (SMALL | changes))
    return folder / "I9_E9_gen.pth", folder / "net.json"


@pytest.fixture
def published(tmp_path):
    return write(tmp_path, random_weights())


def test_the_imported_network_computes_the_same(published, tmp_path):
    """Against the float64 re-computation, which reads the published keys."""
    folder = import_sr3(*published, tmp_path / "faces-4x")
    model = load_pretrained(folder)
    assert {t.dtype for t in load_file(folder / "ddpm.safetensors").values()} == {torch.float32}
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "ddpm.safetensors"]
    assert (model.scale, model.image_size, model.name) == (4, 16, "faces-4x")
    bare = {k.removeprefix("denoise_fn."): w.double().numpy() for k, w in random_weights().items()}
    rng = np.random.default_rng(1)
    for signal in (0.999, 0.5, 0.05):
        latent, condition = rng.normal(size=(3, 16, 16)), rng.uniform(-1, 1, (3, 16, 16))
        noise = unet64.unet(np.concatenate([condition, latent]), signal, bare, vars(model.config.unet))
        wanted = ((latent - np.sqrt(1 - signal**2) * noise) / signal).clip(-1, 1)
        inputs = (torch.from_numpy(a)[None].float() for a in (latent, condition))
        got = model.predict(*inputs, torch.tensor([signal]))[0]
        np.testing.assert_allclose(got, wanted, atol=1e-5 / signal)  # the output is divided by it


def test_the_imported_output_is_exact_to_1e_5_before_it_is_divided(published, tmp_path):
    model = load_pretrained(import_sr3(*published, tmp_path / "out"))
    bare = {k.removeprefix("denoise_fn."): w.double().numpy() for k, w in random_weights().items()}
    x = torch.randn(2, 6, 16, 12)
    for signal in (1.0, 0.3, 0.0005):
        got = model.network(x, torch.full((2,), signal))
        for row in range(2):
            wanted = unet64.unet(x[row].double().numpy(), signal, bare, vars(model.config.unet))
            np.testing.assert_allclose(got[row], wanted, atol=1e-5)
            assert np.abs(wanted).max() > 0.1


def test_the_process_runs_on_it(published, tmp_path):
    model = load_pretrained(import_sr3(*published, tmp_path / "out"))
    table = NoiseSchedule.linear().alpha_bar[::20]
    np.testing.assert_allclose(model.schedule.alpha_bar, table, rtol=1e-14)
    process = SkipProcess(model)
    assert model.config.coarse_levels == "rebuilt" and process.stride == 10
    np.testing.assert_allclose(process.coarse_alpha_bar, table[::10], rtol=1e-14)


@pytest.mark.parametrize(
    "changes, levels, wanted",
    [
        ({}, 2000, NoiseSchedule.linear()),
        ({}, 5000, NoiseSchedule.linear()),
        ({}, 300, NoiseSchedule.linear().respaced(300)),
        ({"steps": 60}, 100, NoiseSchedule.linear(60)),
        ({"schedule": "cosine", "steps": 100}, 100, NoiseSchedule.cosine()),
        ({"schedule": "cosine", "steps": 1000}, 50, NoiseSchedule.cosine(1000).respaced(50)),
    ],
)
def test_levels(tmp_path, changes, levels, wanted):
    (tmp_path / "net.json").write_text(JSON % (SMALL | changes))
    config = model_config(read_json(tmp_path / "net.json"), "net.json", levels)
    assert config.schedule == wanted.config


@pytest.mark.parametrize("size, weights, tensors", [(128, 97_807_491, 362), (160, 92_556_931, 337)])
def test_the_published_sizes(tmp_path, size, weights, tensors):
    """160 is what the authors' ImageNet JSON says: no level is then 16 wide."""
    (tmp_path / "net.json").write_text(JSON % (FULL | {"size": size, "schedule": "cosine", "steps": 100}))
    config = model_config(read_json(tmp_path / "net.json"), "net.json")
    assert config.unet == UNetConfig(image_size=size) and config.image_size == 16
    network = empty_network(config, "net.json")
    assert sum(p.numel() for p in network.parameters()) == weights and len(network.state_dict()) == tensors


def test_json_of_the_wild(tmp_path):
    text = '{"a": "x // y", // z, "b": 1\n "c": [1, 2,, ], "d": {"e": ",}\\"//",},}'
    (tmp_path / "wild.json").write_text(text)
    wanted = {"a": "x // y", "c": [1, 2], "d": {"e": ',}"//'}}
    assert read_json(tmp_path / "wild.json") == wanted
    (tmp_path / "wild.json").write_text(text, encoding="utf-8-sig")  # as Windows' editors write it
    assert read_json(tmp_path / "wild.json") == wanted
    (tmp_path / "wild.json").write_text('{\n"a": 1, // one\n"b": }\n')
    with pytest.raises(SkipDiffError, match=r"wild.json is not JSON: .*line 3"):
        read_json(tmp_path / "wild.json")


class Module(torch.nn.Module):
    """A network as a whole, which only a pickle can hold."""


class Evil:
    """Would make a file, were it ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


KEY = "denoise_fn.ups.1.res_block.block1.block.3.weight"


def without(weights):
    weights.pop(KEY)


def narrower(weights):
    weights[KEY] = weights[KEY][:8]


def stranger(weights):
    weights["denoise_fn.wings.weight"] = torch.zeros(1)


def unprefixed(weights):
    weights["wings"] = torch.zeros(1)


def untensor(weights):
    weights[KEY] = "a string"


def unnamed(weights):
    weights[7] = torch.zeros(1)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (without, ["lacks the key", KEY]),
        (narrower, [KEY, "(8, 24, 3, 3)", "(16, 24, 3, 3)"]),
        (stranger, ["unknown key", "denoise_fn.wings.weight"]),
        (unprefixed, ["unknown key", "'wings'"]),
        (untensor, [KEY, "is of type str, not a tensor"]),
        (unnamed, ["its key 7 is not a string"]),
    ],
)
def test_wrong_checkpoints_are_refused_naming_the_key(tmp_path, spoil, words):
    weights = random_weights()
    spoil(weights)
    refused(write(tmp_path, weights), tmp_path, ["I9_E9_gen.pth", *words])


def refused(published, tmp_path, words):
    with pytest.raises(SkipDiffError) as caught:
        import_sr3(*published, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    for word in words:
        assert word in str(caught.value)


def test_another_width_than_the_json_says_is_refused(tmp_path):
    published = write(tmp_path, random_weights(), width=16)
    refused(published, tmp_path, ["denoise_fn.noise_level_mlp.1.weight", "(32, 8)", "(64, 16)"])


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pickled_module_is_refused_by_name(published, tmp_path, old_format):
    torch.save(Module(), published[0], _use_new_zipfile_serialization=not old_format)
    refused(published, tmp_path, ["Module", "never opened", "state_dict()"])


def test_code_in_a_file_is_not_run(published, tmp_path):
    for save in (torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))):
        save({KEY: Evil(tmp_path / "touched")}, published[0])
        refused(published, tmp_path, ["I9_E9_gen.pth"])
        assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("data", [b"", b"\x80", b"PK\x03\x04 no archive", b"hello" * 99])
def test_damaged_files_are_refused(published, tmp_path, data):
    published[0].write_bytes(data)
    refused(published, tmp_path, ["I9_E9_gen.pth is damaged or not a PyTorch checkpoint"])
    published[0].unlink()
    refused(published, tmp_path, ["I9_E9_gen.pth is missing"])


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('"sr3"', '"ddpm"', ["'model.which_model_G' is 'ddpm'"]),
        ('"in_channel": 6', '"in_channel": 3', ["'model.unet.in_channel' is 3"]),
        ('"conditional": true', '"conditional": false', ["'model.diffusion.conditional' is False"]),
        ('"inner_channel": 8,', "", ["'model.unet.inner_channel' is missing"]),
        ('"inner_channel": 8', '"inner_channel": "8"', ["'model.unet.inner_channel' must be a number"]),
        ('"inner_channel": 8', '"inner_channel": 8.5', ["inner_channel' must be a whole number of at"]),
        ('"inner_channel": 8', '"inner_channel": 6', ["'unet' does not describe a network"]),
        ("[1, 2]", "2", ["'model.unet.channel_multiplier' must be a list"]),
        ("[1, 2]", '[1, "2"]', ["'model.unet.channel_multiplier.1' must be a number"]),
        ('"linear", "n_timestep": 2000, //', '"quad", "n_timestep": 2000, //', ["'quad'"]),
        ('"n_timestep": 2000, //', "//", ["'model.beta_schedule.val.n_timestep' is missing"]),
        ('"r_resolution": 16', '"r_resolution": 18', ["18 pixels", "'datasets.val.r_resolution'"]),
        ('"model": {', '"model": 3, "other": {', ["'model' is not a JSON object"]),
    ],
)  # fmt: skip
def test_other_configurations_are_refused_naming_the_field(published, tmp_path, old, new, words):
    text = published[1].read_text()
    assert old in text
    published[1].write_text(text.replace(old, new))
    refused(published, tmp_path, ["net.json", *words])


def test_levels_out_of_range_are_refused(published, tmp_path):
    with pytest.raises(SkipDiffError, match="levels=0"):
        import_sr3(*published, tmp_path / "out", levels=0)


def test_the_command(published, tmp_path, capsys):
    checkpoint, config = map(str, published)
    output = str(tmp_path / "out")
    assert main(["import-sr3", checkpoint, "--config", config, "-o", output, "--levels", "40"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    assert load_pretrained(tmp_path / "out").schedule.steps == 40
    torch.save(agent_weights(4, 48).state_dict(), tmp_path / "ppo_model.pth")
    assert main(["import-sr3", str(tmp_path / "ppo_model.pth"), "-o", str(tmp_path / "agent")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'agent.safetensors'}\n"
    assert load_policy(tmp_path / "agent.safetensors").config.observation_size == 128
    for arguments, word in (([], "gru.weight_hh_l0"), (["--levels", "40"], "--config")):
        assert main(["import-sr3", checkpoint, "-o", str(tmp_path / "x"), *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("skipdiff: error: ") and error.count("\n") == 1 and word in error


def test_the_command_in_a_process_of_its_own(published, tmp_path):
    torch.save(argparse.Namespace(), published[0])
    command = ["import-sr3", published[0], "--config", published[1], "-o", "x"]
    done = subprocess.run(
        [sys.executable, "-m", "skipdiff_env.cli", *command],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "x").exists()
    assert "argparse.Namespace" in done.stderr


def test_a_model_that_is_there_is_left_alone(published, tmp_path):
    """A second network beside the first one's agent and card would be neither of the two."""
    folder = import_sr3(*published, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SkipDiffError, match=r"out holds a model already \(config.json\): name another"):
        import_sr3(*published, folder, levels=10)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(SkipDiffError, match="net.json is a file"):
        import_sr3(*published, published[1])


def test_the_model_folder_says_where_it_is_from(published, tmp_path):
    folder = import_sr3(*published, tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["training"] == {"imported": "net.json"}
    assert "I9_E9_gen.pth" in (folder / "README.md").read_text()
