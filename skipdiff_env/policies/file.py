"""Policy files: agents from ``skipdiff-agent export``, which run without a reinforcement-learning library.

There are three formats, distinguished by their suffix. None of them holds pickled objects, so a file from a
stranger may spoil a picture but cannot run code:

- ``.safetensors``: weights in float32 or float16, and the network's shape as JSON in the header
- ``.onnx``: a graph (latent, hidden) → (logits, hidden) for onnxruntime, with the same JSON in its metadata
- ``.pt2``: the same graph by ``torch.export``, stripped of its sample inputs
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..diffusion import bicubic
from ..errors import SkipDiffError, not_negative
from ..files import write_atomically
from .network import ACTIONS, SkipProposalNetwork, SPNConfig, initial_memory
from .purpose import Purpose

KEY = "skipdiff_policy"
"""Key under which each format keeps the JSON of the network's configuration."""
PURPOSE = "trained_for"
"""Key of the :class:`.Purpose` in this JSON, if the agent has one."""
SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}
POLICY_FILES = tuple(SUFFIXES.values())
"""Suffixes of exported agents."""
LATENT_BOUND = 20.0
"""Agents see latents clipped to ± this bound, as in the environment."""

Network = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Said = tuple[SPNConfig, Purpose | None]
"""The configuration of a file's network, and the purpose of its agent if the file states one."""


def as_seen(latent: Tensor, side: int) -> Tensor:
    """Resize latents (B, 3, H, W) to (B, 3, side, side) (antialiased bicubic) and clip them, as agents see
    them."""
    if latent.shape[-2:] != (side, side):
        latent = bicubic(latent, side, side)
    return latent.clamp(-LATENT_BOUND, LATENT_BOUND)


class NetworkPolicy:
    """A policy (see :mod:`skipdiff_env.policies`) that takes the more probable action of a network.

    Args:
        network: (latent (B, 3, n, n), hidden (B, memory_size)) → (logits (B, 2), hidden).
        config: the configuration of the network.
        step_cost: price per evaluation, in units of reward, for networks that observe the price. Outside the
            range that a network was trained for, it counts as the nearer end of the range.
        about: settings that identify the policy; policies with the same settings decide in the same way.
        purpose: what the agent was trained for, if that is known.

    Raises:
        SkipDiffError: if a price is negative or not finite, or is given although the network was not trained
            with prices; in a call, if an agent that counts its decisions has already taken all F - 1 (see
            :meth:`check_steps`).
    """

    def __init__(
        self,
        network: Network,
        config: SPNConfig,
        step_cost: float = 0.0,
        about: dict[str, Any] | None = None,
        purpose: Purpose | None = None,
    ) -> None:
        step_cost = not_negative("step_cost", step_cost)
        if step_cost and config.step_costs is None:
            raise SkipDiffError(
                f"step_cost={step_cost} was given, but this agent was not trained with prices: leave it out"
            )
        self.network, self.config, self.step_cost, self.purpose = network, config, step_cost, purpose
        self.settings: dict[str, Any] = about or {"policy": repr(self)}

    def check_steps(self, fine_steps: int) -> None:
        """Raise a SkipDiffError unless the agent can decide episodes of F = ``fine_steps`` levels.

        An agent that observes the number of the decision can play only the F that it was trained for; other
        agents can play any F.
        """
        trained = self.config.fine_steps
        if self.config.memory == "clock" and fine_steps != trained:
            raise SkipDiffError(
                f"the agent counts its decisions and was trained for F = {trained}: "
                f"use fine_steps={trained}, or an agent with a memory"
            )

    def __call__(self, latent: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map latents (B, 3, H, W) of any size and memory (None at first) to actions (B,), int64, and
        memory."""
        logits, memory = self.logits(latent, memory)
        return logits.argmax(dim=1), memory

    @torch.no_grad()
    def logits(self, latent: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """Call the policy, but return the logits (B, 2) instead of the actions."""
        if isinstance(self.network, nn.Module):
            self.network.to(latent.device)
        if memory is None:
            memory = initial_memory(latent, len(latent), self.config, self.step_cost)
        if (
            self.config.memory == "clock"
            and (longest := int(memory[:, 0].max()) + 2) > self.config.fine_steps
        ):
            self.check_steps(longest)  # F - 1 decisions were taken already
        return self.network(as_seen(latent, self.config.observation_size), memory)

    def __repr__(self) -> str:
        return f"NetworkPolicy({self.config})"


def save_policy(
    path: str | os.PathLike[str],
    network: SkipProposalNetwork,
    format: str | None = None,
    *,
    half: bool = False,
    purpose: Purpose | None = None,
) -> Path:
    """Write a network to a file.

    Args:
        path: the file; it appears whole or not at all.
        network: the network to write.
        format: ``safetensors``, ``onnx`` (needs the extra ``export``) or ``torch-export``; None: by the
            suffix.
        half: whether to write the weights of a ``.safetensors`` file as float16, as in the shipped agents.
            This halves the size of the file and rounds the weights to 11 significant bits. Networks always
            compute in float32.
        purpose: what the agent was trained for; users are warned if they use it for something else.

    Returns:
        The path, with the format's suffix.

    Raises:
        SkipDiffError: for an unknown format, or one that needs a missing package.
    """
    target = Path(path)
    if format is None:
        format = {suffix: name for name, suffix in SUFFIXES.items()}.get(target.suffix, target.suffix)
    if format not in SUFFIXES:
        raise SkipDiffError(f"unknown policy format {format!r}: use one of {', '.join(SUFFIXES)}")
    target = target if target.suffix == SUFFIXES[format] else target.with_name(target.name + SUFFIXES[format])
    target.parent.mkdir(parents=True, exist_ok=True)
    network, about = (
        _copy(network),
        json.dumps(network.config.to_dict() | ({PURPOSE: purpose.to_dict()} if purpose else {})),
    )
    if format == "safetensors":
        weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
        if half:
            weights = {n: w.half() if w.is_floating_point() else w for n, w in weights.items()}
        data = save(weights, metadata={KEY: about})
    else:
        data = (_onnx_file if format == "onnx" else _torch_export_file)(network, about)
    write_atomically(target, data)
    return target


def load_policy(path: str | os.PathLike[str], step_cost: float = 0.0) -> NetworkPolicy:
    """Read a policy file of any format. The policy runs where its latents are; ONNX runs on the CPU.

    Args:
        path: the file.
        step_cost: price per evaluation, for agents that were trained with prices; a higher price usually
            makes the agent faster.

    Raises:
        SkipDiffError: if the file is missing, damaged or of an unknown kind, if it holds pickled objects, if
            its network does not match its configuration, or if :class:`NetworkPolicy` refuses the price.
    """
    file = Path(path)
    readers = {".safetensors": _load_safetensors, ".onnx": _load_onnx, ".pt2": _load_torch_export}
    if not file.is_file():
        raise SkipDiffError(f"{file} is missing: give a policy file ({', '.join(readers)})")
    if file.suffix not in readers or _is_pickle(file):
        raise SkipDiffError(
            f"{file} is not a policy file, and pickled agents are never opened here: write one of "
            f"{', '.join(readers)} with 'skipdiff-agent export'"
        )
    network, (config, purpose) = readers[file.suffix](file)
    about: dict[str, Any] = {
        "policy": file.name,
        "policy_hash": hashlib.sha256(file.read_bytes()).hexdigest()[:16],
    }
    if step_cost:
        about["step_cost"] = step_cost
    return NetworkPolicy(network, config, step_cost, about, purpose)


def _load_safetensors(file: Path) -> tuple[Network, Said]:
    try:
        with safe_open(file, framework="pt") as opened:
            said = config, _ = _said(file, (opened.metadata() or {}).get(KEY))
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        weights = {n: w.float() if w.dtype is torch.float16 else w for n, w in weights.items()}
    except SafetensorError as error:
        raise SkipDiffError(
            f"{file} is damaged or not a safetensors file ({error}): export it again"
        ) from None
    with torch.device("meta"):
        network = SkipProposalNetwork(config)
    check_weights(str(file), weights, network)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False), said


def check_weights(what: str, weights: dict[str, Tensor], network: nn.Module) -> None:
    """Raise a SkipDiffError unless ``weights``, named ``what`` in the message, are exactly those of
    ``network``."""
    wanted = network.state_dict()
    for name, tensor in wanted.items():
        if name not in weights:
            raise SkipDiffError(f"{what} lacks the key {name!r}: export the agent again")
        if weights[name].shape != tensor.shape or weights[name].dtype != tensor.dtype:
            have, need = (f"{tuple(t.shape)} {str(t.dtype)[6:]}" for t in (weights[name], tensor))
            raise SkipDiffError(f"{what}: {name!r} is {have}, but its configuration needs {need}")
    if extra := sorted(set(weights) - set(wanted)):
        raise SkipDiffError(f"{what} holds the unknown key {extra[0]!r}: it belongs to another network")


def _onnx_file(network: SkipProposalNetwork, about: str) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401  (the exporter needs it)
    except ImportError:
        raise SkipDiffError(
            "ONNX export needs the packages onnx and onnxscript: pip install 'skipdiff[export]'"
        ) from None
    program = torch.onnx.export(
        network, _example(network), input_names=["latent", "hidden"], output_names=["logits", "next_hidden"],
        dynamic_shapes=_free_batch(), dynamo=True, verbose=False,
    )  # fmt: skip
    proto = program.model_proto  # type: ignore[union-attr]
    onnx.helper.set_model_props(proto, {KEY: about})
    return proto.SerializeToString()


def _load_onnx(file: Path) -> tuple[Network, Said]:
    try:
        import onnxruntime
    except ImportError:
        raise SkipDiffError(f"{file} needs the package onnxruntime: pip install 'skipdiff[export]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        # Read from memory, which refuses graphs that refer to other files: they could be any files.
        session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each kind of damage
        raise SkipDiffError(f"{file} is damaged or not an ONNX file ({error}): export it again") from None
    said = config, _ = _said(file, session.get_modelmeta().custom_metadata_map.get(KEY))
    side = config.observation_size
    shapes = {"latent": [3, side, side], "hidden": [config.memory_size]}
    shapes |= {"logits": [ACTIONS], "next_hidden": [config.memory_size]}
    found = {node.name: list(node.shape)[1:] for node in (*session.get_inputs(), *session.get_outputs())}
    if found != shapes:
        raise SkipDiffError(f"{file}: inputs and outputs are {found}, but its configuration needs {shapes}")

    def run(latent: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        given = {"latent": latent.cpu().numpy(), "hidden": hidden.cpu().numpy()}
        logits, after = session.run(["logits", "next_hidden"], given)
        return torch.from_numpy(logits).to(latent.device), torch.from_numpy(after).to(latent.device)

    return run, said


def _torch_export_file(network: SkipProposalNetwork, about: str) -> bytes:
    program = torch.export.export(network, _example(network), dynamic_shapes=_free_batch())
    program.example_inputs = None  # they would be pickled
    data = io.BytesIO()
    torch.export.save(program, data, extra_files={KEY: about})
    return data.getvalue()


def _load_torch_export(file: Path) -> tuple[Network, Said]:
    said = config, _ = _said(file, _checked_archive(file))
    try:
        network = torch.export.load(file).module()
        side, rows = config.observation_size, 3
        logits, hidden = network(torch.zeros(rows, 3, side, side), torch.zeros(rows, config.memory_size))
    except Exception as error:  # a wrong graph may raise any error
        raise SkipDiffError(
            f"{file} is damaged or holds a network other than it says ({error}): export it again"
        ) from None
    if (logits.shape, hidden.shape) != ((rows, ACTIONS), (rows, config.memory_size)):
        raise SkipDiffError(
            f"{file}: outputs are {tuple(logits.shape)} and {tuple(hidden.shape)}: export it again"
        )
    return network, said


def _checked_archive(file: Path) -> str | None:
    """Return the JSON in a ``.pt2`` archive, after making sure that loading it will unpickle nothing.

    torch.export.load() unpickles tensors that are marked for it, constants that are objects, and sample
    inputs, and it runs compiled code. A policy file needs none of these, so an archive with any of them
    is refused.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            about = None
            for item in archive.infolist():
                name = item.filename.partition("/")[2]
                tensor = name.startswith("data/weights/weight_") and "." not in name
                plain = name in ("archive_format", "archive_version", "byteorder", "models/model.json")
                if name == "data/weights/model_weights_config.json":
                    plain = not any(
                        w["use_pickle"] for w in json.loads(archive.read(item))["config"].values()
                    )
                elif name == "data/constants/model_constants_config.json":
                    plain = not json.loads(archive.read(item))["config"]
                elif name == "data/sample_inputs/model.pt":
                    plain = item.file_size == 0
                elif name == f"extra/{KEY}":
                    about, plain = archive.read(item).decode(), True
                if not (tensor or plain or name.startswith(".data/")):
                    raise SkipDiffError(
                        f"{file}: its member {name!r} could hold pickled objects or code, which are "
                        "never opened: write the file with 'skipdiff-agent export'"
                    )
            return about
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, SkipDiffError):
            raise
        raise SkipDiffError(
            f"{file} is damaged or not a torch.export file ({error}): export it again"
        ) from None


def _said(file: Path, text: str | None) -> Said:
    if text is None:
        raise SkipDiffError(
            f"{file} does not say which network it holds (no {KEY!r}): write it with 'skipdiff-agent export'"
        )
    try:
        data = json.loads(text)
        purpose = data.pop(PURPOSE, None) if isinstance(data, dict) else None
        return SPNConfig.from_dict(data), None if purpose is None else Purpose.from_dict(purpose)
    except (ValueError, TypeError, OverflowError) as error:  # "step_costs": 5, or a number of 400 digits
        raise SkipDiffError(f"{file}: bad {KEY!r}: {error}") from None


def _is_pickle(file: Path) -> bool:
    """Return whether a file begins like a pickle of protocol 2 to 5, or like torch's and SB3's archives of
    them."""
    with open(file, "rb") as opened:
        head = opened.read(9)
    # The length of a safetensors header can look like the first two bytes, but its JSON begins at byte 8.
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and head[8:] != b"{"
    return pickled or (head[:4] == b"PK\x03\x04" and file.suffix != ".pt2")


def _copy(network: SkipProposalNetwork) -> SkipProposalNetwork:
    with torch.device("meta"):  # draws no random numbers
        copy = SkipProposalNetwork(network.config)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    copy.load_state_dict(weights, assign=True)
    return copy.eval().requires_grad_(False)


def _example(network: SkipProposalNetwork) -> tuple[Tensor, Tensor]:
    side = network.config.observation_size
    return torch.zeros(2, 3, side, side), network.initial(2)


def _free_batch() -> tuple[dict[int, Any], dict[int, Any]]:
    batch = torch.export.Dim("batch", max=np.iinfo(np.int32).max)
    return {0: batch}, {0: batch}
