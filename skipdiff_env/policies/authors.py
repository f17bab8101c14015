"""Converts the agent that SkipDiff's authors published, ``ppo_model.pth``, into a policy file."""

from __future__ import annotations

import os
from pathlib import Path

from ..diffusion.interop.sr3 import read_state_dict
from ..errors import SkipDiffError
from .file import check_weights, save_policy
from .network import FINAL_SIDE, SkipProposalNetwork, SPNConfig


def import_policy(checkpoint: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Convert the authors' ``ppo_model.pth`` into a policy file.

    Args:
        checkpoint: a state dict with ``state_encoder.*`` (four convolutions for latents of 128 pixels,
            five for 256), ``gru.*``, ``actor.0.*`` and ``critic.0.*``.
        path: the policy file to write, ``.safetensors``.

    Returns:
        The path of the policy file.

    Raises:
        SkipDiffError: if a key is missing, unknown or of the wrong shape, or if the policy file exists
            already.
    """
    if Path(path).exists():
        raise SkipDiffError(f"{path} exists already: name another file")
    weights = read_state_dict(Path(checkpoint))
    convolutions = sum(k.startswith("state_encoder.") and w.ndim == 4 for k, w in weights.items())
    memory = weights.get("gru.weight_hh_l0")
    if memory is None or memory.ndim != 2:
        raise SkipDiffError(
            f"{checkpoint} has no matrix 'gru.weight_hh_l0': it is not an agent (to import a "
            "network, give its JSON file)"
        )
    try:
        config = SPNConfig(FINAL_SIDE * 2**convolutions, hidden_size=memory.shape[1])
    except ValueError as error:
        raise SkipDiffError(f"{checkpoint} is not an agent of this kind: {error}") from None
    network = SkipProposalNetwork(config)
    check_weights(str(checkpoint), weights, network)
    network.load_state_dict(weights)
    return save_policy(path, network, "safetensors")
