"""A stand-in for the package stlpips_pytorch: files of its layout, narrow networks, random weights."""

from __future__ import annotations

from pathlib import Path

import torch

CONVOLUTIONS = {
    "alex": [[(0, 11)], [(5, 5)], [(9, 3)], [(11, 3)], [(13, 3)]],
    "vgg": [
        [(0, 3), (2, 3)],
        [(6, 3), (8, 3)],
        *[[(at, 3), (at + 2, 3), (at + 4, 3)] for at in (12, 20, 28)],
    ],
}
"""Number and size of the convolutions of each layer, as the files name them."""


def forge(folder: Path, width: int = 4) -> Path:
    """Write the package into ``folder``, which then belongs on Python's path."""
    draws = torch.Generator().manual_seed(0)
    weights = folder / "stlpips_pytorch" / "weights" / "vST0.0"
    weights.mkdir(parents=True)
    (folder / "stlpips_pytorch" / "__init__.py").write_text("raise ImportError('must not be imported')\n")
    for trunk, layers in CONVOLUTIONS.items():
        state, inputs = {}, 3
        for number, layer in enumerate(layers):
            for at, size in layer:
                name = f"net.slice{number + 1}.{at}"
                state[f"{name}.weight"] = torch.randn(width, inputs, size, size, generator=draws) / size
                state[f"{name}.bias"] = torch.randn(width, generator=draws) / 10
                inputs = width
            state[f"lin{number}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=draws)
        torch.save(state, weights / f"{trunk}_shift_tolerant.pth")
    return folder
