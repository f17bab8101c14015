"""Chooses the device on which to compute."""

from __future__ import annotations

import torch

from ..errors import SkipDiffError


def pick_device(name: torch.device | str = "auto") -> torch.device:
    """Return the device with this name; ``auto`` is CUDA if it is available, else the CPU.

    Raises:
        SkipDiffError: if there is no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if str(name) == "auto":
        return torch.device("cuda" if count else "cpu")
    if not _usable(name, count):
        known = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
        raise SkipDiffError(f"there is no device {str(name)!r} here: use auto or {', '.join(known)}")
    return torch.device(name)


def _usable(name: torch.device | str, count: int) -> bool:
    """Return whether there is such a device. ``count`` is the number of CUDA devices, on which no memory is
    allocated."""
    try:
        device = torch.device(name)
        if device.type == "cuda":
            return (device.index or 0) < count
        torch.zeros((), device=device).item()  # meta, for example, holds no values
    except (RuntimeError, AssertionError):
        return False
    return True
