"""Turns agents of Stable-Baselines3 into plain networks.

The agents of all algorithms have the same architecture: convolutions, a memory, and one linear layer with two
outputs, which are logits, values (DQN) or means of quantiles (QR-DQN). The configuration is inferred from the
names and shapes of the weights, so no pickled object in an agent's file is needed.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from skipdiff_env.diffusion.folder import POLICY
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.policies.file import POLICY_FILES, check_weights, load_policy
from skipdiff_env.policies.network import ACTIONS, FEATURES, FINAL_SIDE, Norm, SkipProposalNetwork, SPNConfig
from skipdiff_env.policies.purpose import Purpose

from .settings import CHECKPOINT, RUN

HEADS = ("action_net", "q_net.q_net.0", "quantile_net.quantile_net.0")
EXTRACTORS = ("features_extractor.", "q_net.features_extractor.", "quantile_net.features_extractor.")


def network_from_file(path: str | os.PathLike[str]) -> SkipProposalNetwork:
    """Read the network of an agent: the best in a run's folder, a ``.safetensors`` file or a ``.zip`` of SB3.

    Raises:
        SkipDiffError: in the same cases as :func:`network_from_zip`, and for a graph, from which no network
            can be restored.
    """
    file = Path(path)
    if file.is_dir():
        file = file / POLICY
    if file.suffix not in POLICY_FILES:
        return network_from_zip(file)
    network = load_policy(file).network
    if not isinstance(network, SkipProposalNetwork):
        raise SkipDiffError(
            f"{file} is a graph, which can only be run: give the .safetensors or .zip that it was made from"
        )
    return network


def purpose_of(path: str | os.PathLike[str]) -> Purpose | None:
    """Return what the agent that :func:`network_from_file` reads was trained for, if that is known."""
    file = Path(path)
    file = file / POLICY if file.is_dir() else file
    if file.name == f"{CHECKPOINT}.zip" and file.with_name(RUN).is_file():
        file = file.with_name(POLICY)  # the policy of the same run
    return load_policy(file).purpose if file.suffix in POLICY_FILES and file.is_file() else None


def network_from_zip(path: str | os.PathLike[str]) -> SkipProposalNetwork:
    """Read the network in a file from SB3's ``save()``: only the tensors, by torch's restricted loader.

    Raises:
        SkipDiffError: if the file is missing, damaged, or holds a policy of another kind.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            weights = torch.load(
                io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True
            )
    except FileNotFoundError:
        raise SkipDiffError(
            f"{path} is missing: give the folder of a run, a policy file or a .zip of Stable-Baselines3"
        ) from None
    except Exception as error:  # zipfile, torch and pickle each have their own errors
        raise SkipDiffError(f"{path} is damaged or not a .zip of Stable-Baselines3 ({error})") from None
    try:
        return network_from_weights(weights)
    except (KeyError, StopIteration):
        raise SkipDiffError(
            f"{path} holds a policy of another kind: train it with 'skipdiff-agent train', with SPNPolicy, "
            "or with ClockExtractor and net_arch=[] (skipdiff_agents.policy)"
        ) from None


def network_from_weights(weights: Mapping[str, Tensor]) -> SkipProposalNetwork:
    """Build the network of a policy's ``state_dict()``.

    Raises:
        KeyError, StopIteration: if the policy is of another kind.
        SkipDiffError: if a weight does not have the shape that the network needs.
    """
    head = next(name for name in HEADS if f"{name}.weight" in weights)
    body = next(name for name in EXTRACTORS if f"{name}encoder.0.weight" in weights)
    # The head is the last layer of its kind; after hidden layers, its number is not 0.
    layers = ("mlp_extractor.", f"{head.removesuffix('.0')}.")
    if any(name.startswith(layers) and not name.startswith(f"{head}.") for name in weights):
        raise KeyError("layers between extractor and head")
    convolutions = [n for n, w in weights.items() if n.startswith(f"{body}encoder.") and w.ndim == 4]
    actor = weights[f"{head}.weight"]
    hidden = actor.shape[1]
    memory, fine_steps, step_costs = "clock", 0, None
    if "lstm_actor.weight_ih_l0" in weights:
        memory = "gru" if len(weights["lstm_actor.weight_ih_l0"]) == 3 * hidden else "lstm"
    else:
        fine_steps = weights[f"{body}clock.layers.0.weight"].shape[1] - FEATURES
        if (prices := weights.get(f"{body}clock.step_costs")) is not None:
            step_costs = (float(prices[0]), float(prices[1]))
            fine_steps -= 1
    batch_norm = any(n.startswith(f"{body}encoder.") and n.endswith("running_mean") for n in weights)
    size = FINAL_SIDE * 2 ** len(convolutions)
    norm: Norm = "batch" if batch_norm else "group"
    config = SPNConfig(size, hidden, norm, memory, fine_steps, step_costs)  # type: ignore[arg-type]
    with torch.device("meta"):  # no random numbers: inspecting an agent must not change its training
        network = SkipProposalNetwork(config)
    own = {
        f"state_encoder.{n.removeprefix(f'{body}encoder.')}": w
        for n, w in weights.items() if n.startswith(f"{body}encoder.")
    }  # fmt: skip
    own |= {n.replace("lstm_actor", memory): w for n, w in weights.items() if n.startswith("lstm_actor.")}
    own |= {n.removeprefix(body): w for n, w in weights.items() if n.startswith(f"{body}clock.")}
    # QR-DQN has many outputs per action, whose mean is the value; averaging their weights is equivalent.
    bias = weights[f"{head}.bias"].reshape(-1, ACTIONS).mean(dim=0)
    own |= {"actor.0.weight": actor.reshape(-1, ACTIONS, hidden).mean(dim=0), "actor.0.bias": bias}
    # Agents that learn action values have no critic; none is needed when an agent is used.
    for part in ("weight", "bias"):
        name = f"critic.0.{part}"
        own[name] = weights.get(f"value_net.{part}", torch.zeros(network.state_dict()[name].shape))
    own = {name: weight.detach().clone().cpu() for name, weight in own.items()}
    check_weights("the agent", own, network)
    network.load_state_dict(own, assign=True)
    return network.eval().requires_grad_(False)
