"""Pictures to train on, and what a run's newest checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch


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
