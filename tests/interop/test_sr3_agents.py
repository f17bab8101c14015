"""Published agents: the authors' own, written here with random weights."""

import pytest
import torch

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.policies.authors import import_policy
from skipdiff_env.policies.file import load_policy


def agent_weights(convolutions, hidden=1536):
    """The authors' agent, as its class lays it out: convolution, batch norm, ReLU, again and again."""
    torch.manual_seed(0)
    layers, channels = [], 3
    for i in range(convolutions):
        out, kernel = (32, 9) if i == 0 else (24, 5)
        layers += [
            torch.nn.Conv2d(channels, out, kernel, 2, kernel // 2),
            torch.nn.BatchNorm2d(out),
            torch.nn.ReLU(),
        ]
        channels = out
    modules = {
        "state_encoder": torch.nn.Sequential(*layers),
        "gru": torch.nn.GRU(1536, hidden),
        "actor": torch.nn.Sequential(torch.nn.Linear(hidden, 2), torch.nn.Softmax(dim=1)),
        "critic": torch.nn.Sequential(torch.nn.Linear(hidden, 1)),
    }
    for module in modules["state_encoder"]:
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return torch.nn.ModuleDict(modules).eval()


@pytest.mark.parametrize("convolutions, side, hidden", [(4, 128, 1536), (5, 256, 48)])
def test_the_authors_agent_becomes_a_policy(tmp_path, convolutions, side, hidden):
    agent = agent_weights(convolutions, hidden)
    torch.save(agent.state_dict(), tmp_path / "ppo_model.pth")
    policy = load_policy(import_policy(tmp_path / "ppo_model.pth", tmp_path / "agent.safetensors"))
    memory, remembered = None, torch.zeros(1, 2, hidden)
    with torch.no_grad():
        for _ in range(3):
            latent = torch.randn(2, 3, side, side)
            logits, memory = policy.logits(latent, memory)
            out, remembered = agent["gru"](agent["state_encoder"](latent).flatten(1)[None], remembered)
            wanted = agent["actor"](out[0])
            torch.testing.assert_close(logits.softmax(dim=1), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda w: w.pop("critic.0.bias"), ["critic.0.bias"]),
        (lambda w: w.pop("gru.weight_hh_l0"), ["gru.weight_hh_l0"]),
        (lambda w: w.update(extra=torch.zeros(1)), ["'extra'"]),
        (lambda w: w.update({"actor.0.weight": torch.zeros(3, 48)}), ["actor.0.weight", "(3, 48)"]),
        (lambda w: w.update({"state_encoder.0.weight": torch.zeros(32)}), ["state_encoder"]),
    ],
)
def test_other_agents_are_refused(tmp_path, spoil, words):
    weights = dict(agent_weights(4, 48).state_dict())
    spoil(weights)
    torch.save(weights, tmp_path / "ppo_model.pth")
    with pytest.raises(SkipDiffError) as caught:
        import_policy(tmp_path / "ppo_model.pth", tmp_path / "agent.safetensors")
    assert "ppo_model.pth" in str(caught.value) and not (tmp_path / "agent.safetensors").exists()
    for word in words:
        assert word in str(caught.value)


def test_an_agent_that_is_there_is_not_replaced(tmp_path):
    torch.save(agent_weights(4, 48).state_dict(), tmp_path / "ppo_model.pth")
    (tmp_path / "agent.safetensors").write_bytes(b"mine")
    with pytest.raises(SkipDiffError, match="exists already"):
        import_policy(tmp_path / "ppo_model.pth", tmp_path / "agent.safetensors")
    assert (tmp_path / "agent.safetensors").read_bytes() == b"mine"
