"""What an agent was trained for, as its file states it, and whether it is used for something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .._version import __version__
from ..diffusion.protocol import DiffusionModel


@dataclass(frozen=True)
class Purpose:
    """The environment and the algorithm with which an agent was trained."""

    model: str
    """Name of the model."""
    model_hash: str
    """Identity of the model's weights."""
    coarse_steps: int
    """S."""
    fine_steps: int
    """F."""
    skip_rule: str
    """``reset`` or ``hold``."""
    metric: str
    """Name of the metric M that the reward was computed from."""
    algorithm: str
    """Name of the algorithm."""
    seed: int
    """Seed of the training."""
    version: str = __version__
    """Version of skipdiff."""

    @classmethod
    def from_dict(cls, data: Any) -> Purpose:
        """Rebuild the purpose that :meth:`to_dict` returned.

        Raises:
            ValueError: if a field is missing, unknown or of the wrong type; the message names it.
        """
        if not isinstance(data, Mapping):
            raise ValueError("the purpose is not a JSON object")
        types = {f.name: {"str": str, "int": int}[str(f.type)] for f in fields(cls)}
        if odd := sorted(set(types) ^ set(data)):
            raise ValueError(f"field {odd[0]!r} is {'missing' if odd[0] in types else 'unknown'}")
        for name, value in data.items():
            if type(value) is not types[name]:
                kind = types[name].__name__
                raise ValueError(f"field {name!r} must be of type {kind}, not {value!r}")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Return the purpose as plain JSON."""
        return asdict(self)

    def differs(self, model: DiffusionModel, coarse_steps: int, fine_steps: int, skip_rule: str) -> str:
        """Say how the agent's training differs from this use; the text is empty if it does not."""
        found = []
        if self.model_hash != model.hash:
            same = " with other weights" if self.model == model.name else ""
            found.append(f"for {self.model}{same}")
        if (self.coarse_steps, self.fine_steps) != (coarse_steps, fine_steps):
            found.append(f"for S = {self.coarse_steps} and F = {self.fine_steps}")
        if self.skip_rule != skip_rule:
            found.append(f"under the skip rule {self.skip_rule}")
        return f"trained {' and '.join(found)}" if found else ""
