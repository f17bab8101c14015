"""Engines, which run a model's network: torch itself, or another library that gives the same results up to
rounding.

An engine turns a network into an equivalent function, (B, 6, H, W), (B,) → (B, 3, H, W), which
:class:`.model.FrozenModel` calls. A new engine is a new entry of :data:`ENGINES`. ``python -m benchmarks
speed --only engines`` measures these engines, and others that were not worth an entry.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SkipDiffError, first_line
from .unet import pad_to_multiple

Forward = Callable[[Tensor, Tensor], Tensor]
"""A network as a function: [condition, latent] (B, 6, H, W) and √ᾱ (B,) → (B, 3, H, W)."""

TORCH = "torch"
EXAMPLE = 64
"""Minimum side, in pixels, of the picture with which a network is traced; the graph takes any size."""


def run_by(
    engine: str, network: nn.Module, multiple: int, device: torch.device, dtype: torch.dtype
) -> Forward:
    """Return the function that runs a network with an engine.

    Args:
        engine: ``torch`` or one of :data:`ENGINES`.
        network: the network, (B, 6, H, W), (B,) → (B, 3, H, W), in eval mode.
        multiple: multiple to which inputs are padded, such as :attr:`.unet.UNetConfig.multiple`.
        device: device of the network.
        dtype: type in which the network computes.

    Raises:
        SkipDiffError: for an unknown engine, one whose library is not installed, a device or type that it
            does not support, or a network that cannot be written as a graph.
    """
    if engine == TORCH:
        return network
    if engine not in ENGINES:
        raise SkipDiffError(f"unknown engine {engine!r}: use {' or '.join([TORCH, *ENGINES])}")
    if device.type != "cpu" or dtype != torch.float32:
        kind = str(dtype).removeprefix("torch.")
        raise SkipDiffError(
            f"engine {engine} runs float32 on the CPU, not {kind} on {device}: use engine {TORCH}, or "
            "float32 on device cpu"
        )
    run = ENGINES[engine](network, EXAMPLE + -EXAMPLE % multiple)

    def forward(x: Tensor, level: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, multiple).contiguous()
        made = [run(padded[i : i + 1], level[i : i + 1].contiguous()) for i in range(len(x))]
        return torch.cat(made)[..., :height, :width]

    return forward


def onnx_engine(network: nn.Module, example: int) -> Forward:
    """Return a function that runs a network with ONNX Runtime, one picture at a time, with as many threads as
    torch uses."""
    runtime = _library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    graph = onnx_graph(network, example)
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(x: Tensor, level: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"x": x.numpy(), "level": level.numpy()})[0])

    return run


def onnx_graph(network: nn.Module, example: int) -> bytes:
    """Return a network as an ONNX graph for one picture of any size; it is traced with a
    picture of side ``example``.

    Raises:
        SkipDiffError: if the network cannot be traced.
    """
    _library("onnx")
    axes = {name: {2: "height", 3: "width"} for name in ("x", "made")}
    given = torch.zeros(1, 6, example, example), torch.full((1,), 0.5)
    try:
        # By tracing, since torch's newer exporter takes many times as long, and this is done at every start.
        with TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = Path(folder) / "network.onnx"
            torch.onnx.export(
                network, given, file, input_names=["x", "level"], output_names=["made"], dynamic_axes=axes,
                dynamo=False,
            )  # fmt: skip
            return file.read_bytes()
    except Exception as error:  # a network that cannot be traced may raise any error
        why = first_line(error)
        raise SkipDiffError(
            f"this network cannot be written as a graph ({why}): use engine {TORCH}"
        ) from None


ENGINES: dict[str, Callable[[nn.Module, int], Forward]] = {"onnx": onnx_engine}
"""Engines other than torch, by the names that users write."""


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SkipDiffError(f"engine onnx needs the package {name}: pip install 'skipdiff[export]'") from None
