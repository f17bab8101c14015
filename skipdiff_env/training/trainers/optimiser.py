"""Muon for the convolutions inside a network and AdamW for everything else, as one optimiser.

Muon (Jordan et al. 2024) replaces the momentum of a weight matrix by the nearest orthogonal matrix, so that
rare directions learn as fast as common ones. It takes matrices: a convolution's weight is passed to it as the
(out, k·k·in) view of the same memory. torch.optim.Muon orthogonalises in bfloat16, which a CPU without
instructions for it emulates twenty times slower than it computes in float32; this would take up most of a
step. :class:`Muon` therefore uses the faster type of the device, as measured by the main process when the run
began. If it were chosen again, weights would differ between processes, or after resumption.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks import OptimiserRecipe
from ..distributed import World


def as_matrix(weight: Tensor) -> Tensor:
    """Return the view (out, k·k·in) of a channels-last tensor (out, in, k, k)."""
    return weight.detach().permute(0, 2, 3, 1).flatten(1)


NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of p(σ) = aσ + bσ³ + cσ⁵; five rounds bring singular values to about 1 (Jordan et al.)."""
ROUNDS = 5
MOMENTUM = 0.95
"""Decay of Muon's mean gradient."""
TYPES = (torch.bfloat16, torch.float32)
"""Types in which Muon may orthogonalise."""


@cache
def product_dtype(device: torch.device) -> torch.dtype:
    """Return the type in which a device multiplies matrices faster, bfloat16 or float32, measured once."""

    def seconds(dtype: torch.dtype) -> float:
        x = torch.ones(128, 512, device=device, dtype=dtype)
        times = []
        for _ in range(6):
            began = time.perf_counter()
            (x @ x.T).sum().item()  # item() waits for a GPU
            times.append(time.perf_counter() - began)
        return min(times)

    return min(TYPES, key=seconds)


def orthogonalise(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Return U Vᵀ of a matrix U Σ Vᵀ, with singular values of about 1, by Newton-Schulz iteration.

    Args:
        matrix: the matrix, (rows, columns).
        dtype: type in which to compute; bfloat16 is accurate enough.

    Returns:
        A matrix of the same shape, in ``dtype``.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).to(dtype)
    x = x / x.norm().clamp(min=1e-7)  # no singular value is above 1
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Like torch.optim.Muon with Nesterov momentum and AdamW's learning rates, but computed in a chosen type.

    Args:
        matrices: weights, (rows, columns).
        lr: learning rate. Entries of a step are typically 0.2 times as large (Liu et al. 2025), as in AdamW.
        weight_decay: share of the weights that a step subtracts, in units of the learning rate.
        dtype: type in which to orthogonalise. It is part of the state: a loaded state brings its own.
    """

    def __init__(
        self, matrices: Sequence[Tensor], lr: float, weight_decay: float, dtype: torch.dtype
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "dtype": dtype})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("dtype", self.defaults["dtype"])  # earlier versions wrote states without it

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights with their gradients."""
        for group in self.param_groups:
            lr = group["lr"]
            for weight in group["params"]:
                state, gradient = self.state[weight], weight.grad
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                mean = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
                ahead = gradient.lerp(mean, MOMENTUM)  # Nesterov's
                update = orthogonalise(ahead, group["dtype"])
                weight.mul_(1 - lr * group["weight_decay"])
                weight.add_(update, alpha=-0.2 * lr * max(weight.shape) ** 0.5)


def build_optimiser(
    network: nn.Module, options: OptimiserRecipe, world: World | None = None
) -> torch.optim.AdamW | MuonAdamW:
    """Build the recipe's optimiser for the trainable weights of ``network``, which is on the training device.

    Args:
        network: the network.
        options: the recipe's options.
        world: the processes that train together, all of which must make this call; None: this one alone.
    """
    weights = [p for p in network.parameters() if p.requires_grad]
    if options.kind == "muon":
        return MuonAdamW(weights, options, world or World())
    return _adamw(weights, options)


def _adamw(weights: Sequence[nn.Parameter], options: OptimiserRecipe) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        weights, options.lr, options.betas, weight_decay=options.weight_decay, fused=True
    )


class MuonAdamW:
    """Muon for all convolutions but the first and the last, which read and write pixels; AdamW for the rest.

    Muon's steps are scaled to AdamW's typical size (Liu et al. 2025), so that both use one learning rate.

    Args:
        weights: weights in the network's order; convolutions in channels-last memory.
        options: learning rate, betas (AdamW's) and weight decay.
        world: the processes that train together; the first chooses the type in which all orthogonalise.
    """

    def __init__(self, weights: Sequence[nn.Parameter], options: OptimiserRecipe, world: World) -> None:
        self._convolutions = [p for p in weights if p.ndim == 4][1:-1]
        self._matrices = [nn.Parameter(as_matrix(p)) for p in self._convolutions]
        taken = {id(p) for p in self._convolutions}
        self.adamw = _adamw([p for p in weights if id(p) not in taken], options)
        faster = TYPES.index(product_dtype(weights[0].device))
        dtype = TYPES[int(world.from_main(faster))]
        self.muon = Muon(self._matrices, options.lr, options.weight_decay, dtype)
        self.param_groups = self.adamw.param_groups + self.muon.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self.adamw.zero_grad(set_to_none)
        for weight in self._convolutions:
            weight.grad = None

    def step(self) -> None:
        """Update the weights with their gradients."""
        for weight, matrix in zip(self._convolutions, self._matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = as_matrix(weight.grad)
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimisers."""
        return {"adamw": self.adamw.state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state_dict` returned.

        Raises:
            ValueError: if it belongs to another optimiser or network.
        """
        if set(state) != {"adamw", "muon"}:
            raise ValueError("the state is not Muon's: another optimiser wrote it")
        self.adamw.load_state_dict(state["adamw"])
        self.muon.load_state_dict(state["muon"])
        self.param_groups = self.adamw.param_groups + self.muon.param_groups
