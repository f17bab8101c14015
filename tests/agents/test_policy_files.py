"""Agents as files: parity with what Stable-Baselines3 computes, no pickles, no Stable-Baselines3."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from skipdiff_agents.export import network_from_weights, network_from_zip
from skipdiff_env import SkipDiffError, SkipDiffSampler
from skipdiff_env.chains import Refined, SkipDiff
from skipdiff_env.diffusion import available_models, random_model
from skipdiff_env.diffusion.folder import POLICY
from skipdiff_env.policies.file import KEY, NetworkPolicy, load_policy, save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig
from skipdiff_env.policies.purpose import Purpose

LATENTS, SIDE, HIDDEN, FINE = 1000, 16, 8, 5
CONFIG = SPNConfig(SIDE, HIDDEN, "group")


def network(config=CONFIG):
    torch.manual_seed(0)
    return SkipProposalNetwork(config).eval()


def saved(tmp_path, format="safetensors", config=CONFIG):
    if format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    return save_policy(tmp_path / "agent", network(config), format)


def sb3_answers(agent, latents, hidden):
    """Logits or values, and the next memory, by Stable-Baselines3's own modules."""
    policy = agent.policy
    policy.set_training_mode(False)
    with torch.no_grad():
        if hasattr(policy, "lstm_actor"):
            lstm = hidden.shape[1] == 2 * HIDDEN
            h, c = hidden.chunk(2, dim=1) if lstm else (hidden, torch.zeros_like(hidden))
            distribution, (h, c) = policy.get_distribution(
                latents, (h[None], c[None]), torch.zeros(len(latents))
            )
            return distribution.distribution.logits, torch.cat([h[0], c[0]], dim=1) if lstm else h[0]
        step = hidden[:, 0].long()
        seen = {"latent": latents, "step": step, "lr": torch.zeros(len(latents), 3, 4, 4)}
        if hasattr(policy, "quantile_net"):
            return policy.quantile_net(seen).mean(dim=1), hidden + 1
        if hasattr(policy, "q_net"):
            return policy.q_net(seen), hidden + 1
        return policy.get_distribution(seen).distribution.logits, hidden + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format"),
    [
        (n, "safetensors")
        for n in ("recurrent_ppo", "recurrent_ppo_lstm", "ppo", "a2c", "trpo", "dqn", "qrdqn")
    ]
    + [(n, f) for n in ("recurrent_ppo", "recurrent_ppo_lstm", "ppo") for f in ("onnx", "torch-export")],
)
def test_parity_with_sb3(tmp_path, setting, name, format):
    if format == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    pytest.importorskip("sb3_contrib")
    from skipdiff_agents.pairs import all_pairs
    from skipdiff_agents.settings import build_agent, observation_kind, read_settings
    from skipdiff_agents.vec_env import SkipDiffVecEnv

    settings = read_settings(name)
    settings["policy"]["hidden_size"] = HIDDEN
    settings["arguments"] |= {"buffer_size": 64} if "dqn" in name else {}
    envs = setting().envs(2, observation=observation_kind(settings), observation_size=SIDE)
    agent = build_agent(settings, SkipDiffVecEnv(envs, all_pairs(2, 1)), FINE - 1)
    with torch.no_grad():  # fresh heads are nearly zero, fresh batch norms nearly the identity
        for parameter in agent.policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for buffer_name, buffer in agent.policy.named_buffers():
            if "running" in buffer_name:
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    agent.save(tmp_path / "agent.zip")
    loaded = load_policy(save_policy(tmp_path / "agent", network_from_zip(tmp_path / "agent.zip"), format))
    torch.manual_seed(1)
    latents = torch.randn(LATENTS, 3, SIDE, SIDE)
    size = loaded.config.memory_size
    hidden = (
        torch.randint(0, FINE - 1, (LATENTS, 1)).float() if size == 1 else torch.randn(LATENTS, size).tanh()
    )
    expected, expected_hidden = sb3_answers(agent, latents, hidden)
    logits, after = loaded.logits(latents, hidden)
    if "dqn" not in name:  # SB3 normalises logits
        logits = logits.log_softmax(dim=1)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(after, expected_hidden, atol=1e-4, rtol=0)
    clear = (expected[:, 0] - expected[:, 1]).abs() > 1e-4
    assert clear.float().mean() > 0.9
    assert torch.equal(logits.argmax(1)[clear], expected.argmax(1)[clear])


@pytest.mark.parametrize("format", ["safetensors", "onnx", "torch-export"])
@pytest.mark.parametrize("rows", [1, 5])
def test_the_sampler_takes_files_and_any_batch(tmp_path, format, rows):
    model = random_model()
    sampler = SkipDiffSampler(model, fine_steps=FINE)
    pictures = np.random.default_rng(0).integers(0, 256, (rows, 8, 8, 3), dtype=np.uint8)
    out = sampler(pictures, policy=load_policy(saved(tmp_path, format)))
    again = sampler(pictures, policy=NetworkPolicy(network(), CONFIG))
    assert [t.actions for t in out.trace] == [t.actions for t in again.trace]
    np.testing.assert_array_equal(out.images, again.images)
    # an image's actions are its own: memory belongs to rows
    alone = sampler(pictures[-1], policy=NetworkPolicy(network(), CONFIG))
    assert alone.trace[0].actions == out.trace[-1].actions


def clocked(fine_steps=FINE):
    config = SPNConfig(SIDE, HIDDEN, "group", "clock", fine_steps)
    return NetworkPolicy(network(config), config)


def test_a_clock_counts_the_steps_it_was_trained_with_and_no_others(tiny_setting):
    sampler = SkipDiffSampler(random_model(), fine_steps=FINE)
    picture = np.zeros((8, 8, 3), np.uint8)
    assert len(sampler(picture, policy=clocked()).trace[0].actions) == FINE - 1
    match = f"trained for F = {FINE}: use fine_steps={FINE}"
    with pytest.raises(SkipDiffError, match=match):  # a clock that has run out is no input
        SkipDiffSampler(random_model(), fine_steps=20)(picture, policy=clocked())
    with pytest.raises(SkipDiffError, match=match):  # and one that would not run out knows nothing of these
        SkipDiffSampler(random_model(), fine_steps=FINE - 1)(picture, policy=clocked())
    for fine in (2, FINE - 1, FINE + 1):
        with pytest.raises(SkipDiffError, match=match):
            clocked().check_steps(fine)
        NetworkPolicy(network(), CONFIG).check_steps(fine)
    from skipdiff_agents.evaluate import Evaluator

    with pytest.raises(SkipDiffError, match="trained for F = 8"):
        Evaluator(tiny_setting, [(0, 0)])(clocked(8))


@pytest.mark.parametrize("costs", [5, [1], [None, 2], "ab", {"low": 1, "high": 2}, [10**400, 1]])
def test_a_configuration_of_wrong_types_is_refused(tmp_path, costs):
    about = SPNConfig(SIDE, HIDDEN, "group", "clock", FINE).to_dict() | {"step_costs": costs}
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", {KEY: json.dumps(about)})
    refused(tmp_path / "a.safetensors", "bad 'skipdiff_policy'")


def test_without_stable_baselines3(tmp_path):
    """A fresh interpreter in which Stable-Baselines3 cannot be imported runs the file."""
    path = saved(tmp_path)
    code = f"""
import sys
for name in ("stable_baselines3", "sb3_contrib", "skipdiff_agents", "pickle5"):
    sys.modules[name] = None
import numpy as np
from skipdiff_env import SkipDiffSampler
from skipdiff_env.diffusion import random_model
from skipdiff_env.policies.file import load_policy
policy = load_policy({str(path)!r})
out = SkipDiffSampler(random_model(), fine_steps=5)(np.zeros((8, 8, 3), np.uint8), policy=policy)
print(len(out.trace[0].actions))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "4\n", done.stderr


@pytest.mark.parametrize("name", sorted(n for n, f in available_models().items() if (f / POLICY).is_file()))
def test_shipped_agents_decide_alike_in_every_format_without_stable_baselines3(tmp_path, name):
    """In a fresh interpreter, in which a picture is enlarged under the agent, too."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    code = f"""
import sys
for package in ("stable_baselines3", "sb3_contrib", "skipdiff_agents"):
    sys.modules[package] = None
from pathlib import Path
import numpy as np, torch
from PIL import Image
from skipdiff_env.cli import main
from skipdiff_env.diffusion.pretrained import model_folder
from skipdiff_env.policies.file import load_policy, save_policy
folder = Path({str(tmp_path)!r})
ours = load_policy(model_folder({name!r}) / "policy.safetensors")
others = [load_policy(save_policy(folder / "agent", ours.network, f)) for f in ("onnx", "torch-export")]
side, generator = ours.config.observation_size, torch.Generator().manual_seed(0)
memories = [None] * 3
for decision in range(3):
    latent = torch.randn(4, 3, side, side, generator=generator)
    found = [p.logits(latent, memory) for p, memory in zip([ours, *others], memories)]
    memories = [memory for _, memory in found]
    for logits, memory in found[1:]:
        torch.testing.assert_close(logits, found[0][0], atol=1e-4, rtol=0)
        torch.testing.assert_close(memory, found[0][1], atol=1e-4, rtol=0)
picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
Image.fromarray(picture).save(folder / "in.png")
for suffix in (".onnx", ".pt2"):
    agent = str(folder / "agent") + suffix
    arguments = [str(folder / "in.png"), "-o", str(folder / "out.png"), "--policy", agent, "--force", "-q"]
    assert main(["upscale", *arguments, "-m", {name!r}]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PURPOSE = Purpose("face-8x", "0123456789abcdef", 10, 10, "reset", "niqe", "RecurrentPPO", 2)


@pytest.mark.parametrize("format", ["safetensors", "onnx", "torch-export"])
def test_a_file_says_what_its_agent_was_trained_for(tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    policy = load_policy(save_policy(tmp_path / "agent", network(), format, purpose=PURPOSE))
    assert policy.purpose == PURPOSE and policy.config == CONFIG
    assert load_policy(saved(tmp_path, format)).purpose is None, "not every agent has one"


def test_agents_used_for_something_else_say_so():
    model = random_model()
    assert PURPOSE.differs(model, 10, 10, "reset") == "trained for face-8x"
    own = replace(PURPOSE, model=model.name, model_hash=model.hash)
    assert own.differs(model, 10, 10, "reset") == ""
    assert own.differs(model, 20, 5, "reset") == "trained for S = 10 and F = 10"
    assert own.differs(model, 10, 10, "hold") == "trained under the skip rule reset"
    older = replace(own, model_hash="other", coarse_steps=5)
    assert older.differs(model, 10, 10, "reset") == (
        f"trained for {model.name} with other weights and for S = 5 and F = 10"
    )
    agent = NetworkPolicy(network(), CONFIG, purpose=older)
    assert SkipDiff(agent, 10).notice(model).startswith("the agent was trained for ")
    assert SkipDiff(NetworkPolicy(network(), CONFIG), 10).notice(model) == ""
    assert Refined(SkipDiff(agent, 10), torch.add).notice(model) == SkipDiff(agent, 10).notice(model)


@pytest.mark.parametrize("change", [{"seed": "1"}, {"seed": True}, {"more": 1}, {"model": None}])
def test_a_damaged_purpose_is_named(tmp_path, change):
    path, name = save_policy(tmp_path / "a.safetensors", network(), purpose=PURPOSE), next(iter(change))
    about = CONFIG.to_dict() | {"trained_for": PURPOSE.to_dict() | change}
    save_file(load_file(path), path, {KEY: json.dumps(about)})
    refused(path, f"bad 'skipdiff_policy': field '{name}' (is unknown|must be of type)")


class Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def refused(path, match):
    with pytest.raises(SkipDiffError, match=match) as caught:
        load_policy(path)
    assert "\n" not in str(caught.value)


def test_a_missing_key_a_wrong_shape_and_a_wrong_type_are_named(tmp_path):
    path = saved(tmp_path)
    weights, about = load_file(path), {KEY: json.dumps(CONFIG.to_dict())}
    changes = [
        ({k: v for k, v in weights.items() if k != "gru.bias_ih_l0"}, "lacks the key 'gru.bias_ih_l0'"),
        (
            weights | {"actor.0.weight": torch.zeros(3, HIDDEN)},
            r"'actor.0.weight' is \(3, 8\).* needs \(2, 8\)",
        ),
        (weights | {"actor.0.weight": torch.zeros(2, HIDDEN).double()}, "float64"),
        (weights | {"extra": torch.zeros(1)}, "unknown key 'extra'"),
    ]
    for changed, match in changes:
        save_file(changed, path, metadata=about)
        refused(path, match)
    for text, match in [
        ("{}", "field .* is missing"), ("[]", "not a JSON object"), ("{", "bad 'skipdiff_policy'"),
        (json.dumps(CONFIG.to_dict() | {"norm": "layer"}), "unknown norm 'layer'"),
        (json.dumps(CONFIG.to_dict() | {"hidden_size": 10**9}), "hidden_size"),
        (json.dumps(CONFIG.to_dict() | {"observation_size": "big"}), "whole number"),
    ]:  # fmt: skip
        save_file(weights, path, metadata={KEY: text})
        refused(path, match)
    save_file(weights, path)
    refused(path, "does not say which network")
    path.write_bytes(path.read_bytes()[:100])
    refused(path, "damaged")
    refused(tmp_path / "nowhere.safetensors", "is missing")


@pytest.mark.parametrize("price", [-0.1, float("nan"), float("inf"), "1e-4", True])
def test_prices_are_checked(tmp_path, price):
    config = SPNConfig(SIDE, HIDDEN, "group", "clock", FINE, (1e-4, 1e-2))
    file = save_policy(tmp_path / "agent.safetensors", network(config))
    for make in (lambda: load_policy(file, price), lambda: NetworkPolicy(network(config), config, price)):
        with pytest.raises(SkipDiffError, match=f"step_cost={price!r} must be a finite number, 0 or more"):
            make()
    assert load_policy(file, np.float32(1)).settings["step_cost"] == 1.0


def test_half_precision_halves_the_file_and_rounds_the_weights(tmp_path):
    config = SPNConfig(SIDE, 64, "group")
    whole = save_policy(tmp_path / "whole.safetensors", network(config))
    half = save_policy(tmp_path / "half.safetensors", network(config), half=True)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    exact, rounded = load_policy(whole).network.state_dict(), load_policy(half).network.state_dict()
    for name, weight in exact.items():
        assert rounded[name].dtype == torch.float32 and torch.equal(rounded[name], weight.half().float())
    latent = torch.randn(50, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    ours, theirs = (load_policy(file).logits(latent, None)[0] for file in (half, whole))
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".pt2", ".zip", ".pt"])
@pytest.mark.parametrize("wrap", ["pickle", "torch"])
def test_pickles_in_disguise_are_refused_unopened(tmp_path, suffix, wrap):
    trace, path = tmp_path / "trace", tmp_path / f"agent{suffix}"
    if wrap == "pickle":
        path.write_bytes(pickle.dumps({"policy": Bomb(trace)}))
    else:
        torch.save({"policy": Bomb(trace)}, path)
    refused(path, "skipdiff-agent export|pickled")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("data/sample_inputs/model.pt", "bomb"),
        ("data/weights/model.pt", "bomb"),
        ("data/constants/custom_obj_0", "bomb"),
        ("data/aotinductor/model/code.so", b"\x7fELF"),
        ("data/weights/model_weights_config.json", "use_pickle"),
        ("data/constants/model_constants_config.json", b'{"config": {"x": {"path_name": "opaque_obj_0"}}}'),
    ],
)
def test_pickles_inside_a_torch_export_file_are_refused_unopened(tmp_path, member, content):
    path, trace = saved(tmp_path, "torch-export"), tmp_path / "trace"
    load_policy(path)
    with zipfile.ZipFile(path) as archive:
        items = {i.filename: archive.read(i) for i in archive.infolist()}
    root = next(iter(items)).partition("/")[0]
    if content == "bomb":
        buffer = io.BytesIO()
        torch.save(Bomb(trace), buffer)
        content = buffer.getvalue()
    elif content == "use_pickle":
        content = items[f"{root}/{member}"].replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        assert content != items[f"{root}/{member}"]
    items[f"{root}/{member}"] = content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in items.items():
            archive.writestr(name, data)
    refused(path, "could hold pickled objects")
    assert not trace.exists()


def test_a_torch_export_file_of_another_network_is_refused(tmp_path):
    path = saved(tmp_path, "torch-export")
    with zipfile.ZipFile(path) as archive:
        items = {i.filename: archive.read(i) for i in archive.infolist()}
    about = json.dumps(CONFIG.to_dict() | {"hidden_size": 9}).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in items.items():
            archive.writestr(name, about if name.endswith(KEY) else data)
    refused(path, "a network other than it says|damaged")


def test_exporting_what_is_not_an_agent(tmp_path):
    with pytest.raises(SkipDiffError, match="is missing"):
        network_from_zip(tmp_path / "nowhere.zip")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(SkipDiffError, match="not a .zip"):
        network_from_zip(tmp_path / "text.zip")
    trace = tmp_path / "trace"
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w") as archive:
        archive.writestr("policy.pth", pickle.dumps(Bomb(trace)))
    with pytest.raises(SkipDiffError, match="damaged or not"):
        network_from_zip(tmp_path / "bomb.zip")
    assert not trace.exists()
    with pytest.raises(StopIteration):
        network_from_weights({"mlp.weight": torch.zeros(2, 2)})
    with pytest.raises(SkipDiffError, match="unknown policy format"):
        save_policy(tmp_path / "agent", network(), "pickle")
