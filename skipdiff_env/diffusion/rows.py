"""A batch whose rows can be selected and replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

R = TypeVar("R", bound="Rows")


class Rows:
    """Base class of frozen dataclasses whose fields (tensors, arrays and tuples) hold one entry per row."""

    level: np.ndarray

    def __len__(self) -> int:
        return len(self.level)

    def select(self: R, rows: Sequence[int] | np.ndarray) -> R:
        """Return the given rows, in that order."""
        index = _indices(rows)
        return self._with(lambda name, old: _taken(old, index))

    def replace(self: R, rows: Sequence[int] | np.ndarray, other: R, names: Sequence[str] | None = None) -> R:
        """Return a copy with ``rows`` replaced by those of ``other``, in that order, in all fields or in
        ``names``."""
        index = _indices(rows)
        return self._with(lambda name, old: _put(old, index, getattr(other, name)), names)

    def _with(self: R, change: Callable[[str, Any], Any], names: Sequence[str] | None = None) -> R:
        names = names or [field.name for field in fields(self)]  # type: ignore[arg-type]
        return replace(self, **{name: change(name, getattr(self, name)) for name in names})  # type: ignore[type-var]


def _taken(old: Any, index: np.ndarray) -> Any:
    if isinstance(old, Tensor):
        return old[torch.from_numpy(index).to(old.device)]
    return tuple(old[i] for i in index) if isinstance(old, tuple) else old[index]


def _put(old: Any, index: np.ndarray, new: Any) -> Any:
    if isinstance(old, Tensor):
        return old.index_copy(0, torch.from_numpy(index).to(old.device), new)
    if isinstance(old, tuple):
        entries = list(old)
        for i, entry in zip(index, new, strict=True):
            entries[i] = entry
        return tuple(entries)
    copy = old.copy()
    copy[index] = new
    return copy


def _indices(rows: Sequence[int] | np.ndarray) -> np.ndarray:
    index = np.asarray(rows)
    return np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
