"""Compares the time of network calls under other engines and settings with that of plain torch, by turns."""

from __future__ import annotations

import copy
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skipdiff_env import SkipDiffError, load_pretrained
from skipdiff_env.diffusion import FrozenModel, to_uint8
from skipdiff_env.diffusion.engines import ENGINES, EXAMPLE, Forward, onnx_graph

SIDES = (256, 512)
"""Sides of the pictures in pixels: of a small photograph, and of a tile."""
THREADS = (1, 2)
"""Numbers of threads. With one, processor time is measured, which other work hardly changes; otherwise wall
time."""


def _contiguous(model: FrozenModel) -> Forward:
    network = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format)
    return lambda x, level: network(x.contiguous(), level)


def _bfloat16(model: FrozenModel) -> Forward:
    assert model.folder is not None
    network = load_pretrained(model.folder, "cpu", torch.bfloat16).network

    def forward(x: Tensor, level: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(x, level)

    return forward


def _openvino(model: FrozenModel) -> Forward:
    library = importlib.import_module("openvino")
    graph = library.Core().read_model(onnx_graph(model.network, EXAMPLE))
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = library.Core().compile_model(graph, "CPU", settings)

    def forward(x: Tensor, level: Tensor) -> Tensor:
        given = [x.contiguous().numpy(), level.numpy()]
        return torch.from_numpy(compiled(given)[0].copy())

    return forward


def _engine(name: str) -> Callable[[FrozenModel], Forward]:
    return lambda model: ENGINES[name](model.network, EXAMPLE)


AS_IT_IS = "torch"
WAYS: dict[str, Callable[[FrozenModel], Forward]] = {
    AS_IT_IS: lambda model: model.forward,
    "torch, not channels-last": _contiguous,
    "torch.compile": lambda model: torch.compile(model.network),
    "torch, bfloat16": _bfloat16,
    **{f"--engine {name}": _engine(name) for name in ENGINES},
    "OpenVINO": _openvino,
}
"""Ways to run a network, each made from a model; a way that is not available raises an error."""


def measure(model: str, threads: int, repeats: int, ways: list[str] | None = None) -> dict[str, Any]:
    """Measure every way at every size, by turns, in this process.

    Returns:
        ``rows``: dictionaries with ``side``, ``way``, ``seconds`` (the median), ``ready`` (wall time until
        the first result at the first size) and ``units`` (maximum difference of the result, in 8-bit units);
        ``missing``: ways that are not available, and why.
    """
    torch.set_num_threads(threads)
    now = time.process_time if threads == 1 else time.perf_counter
    usual = load_pretrained(model, "cpu")
    models: dict[str, FrozenModel] = {}
    ready: dict[str, float] = {}
    missing: dict[str, str] = {}
    example = _inputs(SIDES[0])
    for way in ways or WAYS:
        began = time.perf_counter()
        try:
            made = copy.copy(usual)
            made.forward = WAYS[way](usual)
            made.predict(*example)
        except (ImportError, SkipDiffError, RuntimeError) as error:
            missing[way] = str(error).splitlines()[0]
            continue
        models[way], ready[way] = made, time.perf_counter() - began
    rows = []
    for side in SIDES:
        inputs = _inputs(side)
        pictures = {way: to_uint8(made.predict(*inputs)).int() for way, made in models.items()}
        taken: dict[str, list[float]] = {way: [] for way in models}
        for _ in range(repeats):
            for way, made in models.items():
                began = now()
                made.predict(*inputs)
                taken[way].append(now() - began)
        for way in models:
            units = int((pictures[way] - pictures[AS_IT_IS]).abs().max())
            seconds = statistics.median(taken[way])
            rows.append({"side": side, "way": way, "seconds": seconds, "ready": ready[way], "units": units})
    return {"rows": rows, "missing": missing}


def measured(model: str, threads: int, repeats: int) -> dict[str, Any]:
    """Run :func:`measure` in a process with this number of threads."""
    arguments = json.dumps([model, threads, repeats])
    code = "import json, sys; from benchmarks.speed.engines import measure; "
    code += "print(json.dumps(measure(*json.loads(sys.argv[1]))))"
    ran = subprocess.run(
        [sys.executable, "-c", code, arguments],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _inputs(side: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latent, condition = (torch.randn(1, 3, side, side, generator=generator) for _ in range(2))
    return latent, condition.clamp(-1, 1), torch.full((1,), 0.5)
