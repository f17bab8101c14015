"""A few small pictures to train on, and the tiny recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from skipdiff_env.training import TrainResult, train
from tests.training.training_helpers import picture


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    return [picture(i, 40 + i, 44 - i) for i in range(6)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, pictures: list[np.ndarray]) -> Path:
    """Six PNG files of different sizes."""
    path = tmp_path_factory.mktemp("pictures")
    for i, image in enumerate(pictures):
        cv2.imwrite(str(path / f"{i}.png"), image[..., ::-1])
    return path


@pytest.fixture
def run(folder: Path) -> Callable[..., TrainResult]:
    """``train`` of the tiny recipe on the CPU, without validation unless asked for."""

    def start(
        out: Path, max_steps: int | None = 8, overrides: tuple[str, ...] = (), **options: Any
    ) -> TrainResult:
        quiet = ("validation.images=0", *overrides)
        options.setdefault("data", [folder])
        return train("tiny", out=out, device="cpu", max_steps=max_steps, overrides=quiet, **options)

    return start
