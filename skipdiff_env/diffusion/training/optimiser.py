"""Muon for the convolutions inside a network, AdamW for everything else, behind one optimiser's interface.

Muon (Jordan et al. 2024) replaces the momentum of a weight matrix by the nearest orthogonal matrix, so that
rare directions learn as fast as common ones. torch's own takes matrices only: a convolution's weight is
shown to it as the (out, k·k·in) view of the same memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import OptimiserRecipe


def as_matrix(weight: Tensor) -> Tensor:
    """(out, in, k, k) → (out, k·k·in), a view of a channels-last tensor."""
    return weight.detach().permute(0, 2, 3, 1).flatten(1)


def build_optimiser(network: nn.Module, options: OptimiserRecipe) -> torch.optim.AdamW | MuonAdamW:
    """The recipe's optimiser of the weights of ``network`` that are to be trained."""
    weights = [p for p in network.parameters() if p.requires_grad]
    if options.kind == "muon":
        return MuonAdamW(weights, options)
    return _adamw(weights, options)


def _adamw(weights: Sequence[nn.Parameter], options: OptimiserRecipe) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        weights, options.lr, options.betas, weight_decay=options.weight_decay, fused=True
    )


class MuonAdamW:
    """Muon for all convolutions but the first and the last, which meet pixels; AdamW for the rest.

    Muon's steps are scaled to AdamW's typical size (Liu et al. 2025), so that both take the same rate.

    Args:
        weights: in the network's order; convolutions in channels-last memory.
        options: rate, betas (AdamW's) and weight decay.
    """

    def __init__(self, weights: Sequence[nn.Parameter], options: OptimiserRecipe) -> None:
        self._convolutions = [p for p in weights if p.ndim == 4][1:-1]
        self._matrices = [nn.Parameter(as_matrix(p)) for p in self._convolutions]
        taken = {id(p) for p in self._convolutions}
        self._adamw = _adamw([p for p in weights if id(p) not in taken], options)
        self._muon = torch.optim.Muon(
            self._matrices, options.lr, options.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self.param_groups = self._adamw.param_groups + self._muon.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self._adamw.zero_grad(set_to_none)
        for weight in self._convolutions:
            weight.grad = None

    def step(self) -> None:
        """Change the weights by their gradients."""
        for weight, matrix in zip(self._convolutions, self._matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = as_matrix(weight.grad)
        self._muon.step()
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"adamw": self._adamw.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave.

        Raises:
            ValueError: if it is of another optimiser or network.
        """
        if set(state) != {"adamw", "muon"}:
            raise ValueError("the state is not Muon's: another optimiser wrote it")
        self._adamw.load_state_dict(state["adamw"])
        self._muon.load_state_dict(state["muon"])
        self.param_groups = self._adamw.param_groups + self._muon.param_groups
