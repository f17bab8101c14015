"""Pictures to train on, processes that train, and what a run's newest checkpoint holds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]


def picture(seed: int, height: int = 40, width: int = 44) -> np.ndarray:
    """Smooth colours with some grain, uint8 (height, width, 3)."""
    draws = np.random.default_rng(seed)
    smooth = cv2.resize(draws.uniform(20, 230, (5, 5, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + draws.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    """Network, moving average and optimiser of a run's newest checkpoint, by name."""
    newest = max((run_folder / "checkpoints").glob("*.pt"))
    state = torch.load(newest, weights_only=True)["trainer"]
    found = {f"{part}.{key}": value for part in ("network", "ema") for key, value in state[part].items()}
    for index, moments in state["optimiser"]["state"].items():
        found |= {f"optimiser.{index}.{key}": value for key, value in moments.items()}
    return found


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def start(program: str, *arguments: object, **more: str) -> subprocess.Popen[str]:
    """A process that runs Python code; ``more`` are environment variables."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start_two(program: str, *arguments: object) -> list[subprocess.Popen[str]]:
    """Two processes that train together, as ``torchrun`` would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world["GLOO_SOCKET_IFNAME"] = "lo"
    return [start(program, *arguments, RANK=str(r), LOCAL_RANK=str(r), **world) for r in range(2)]
