"""Whole episodes at once: each latent encoded once, and the memory of all decisions in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Seen(NamedTuple):
    """The latents seen in B whole episodes of L decisions. Each is kept once, since a skip can show it
    again."""

    latents: Tensor
    """The distinct latents, (D, 3, n, n)."""
    numbers: Tensor
    """Index of the latent that was seen, int64 (L, B)."""


class Numbering:
    """Numbers latents in the order of their first appearance; equal latents have the same number."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __call__(self, latents: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Return the number of each latent (B, ...), int64 (B,), and the new rows, in order."""
        known, fresh, numbers = self._known, [], np.empty(len(latents), np.int64)
        for row, latent in enumerate(latents):
            count = len(known)
            numbers[row] = known.setdefault(latent.tobytes(), count)
            if len(known) > count:
                fresh.append(row)
        return numbers, fresh


def distinct(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows (D, ...) of a CPU tensor (B, ...), and each row's index among them, (B,)."""
    numbers, fresh = Numbering()(latents.detach().numpy())
    return latents[fresh], torch.from_numpy(numbers)


class GRUSequence(torch.autograd.Function):
    """The recurrent half of a GRU over a whole sequence; the input's contribution is computed beforehand.

    Equivalent to ``torch.nn.GRU`` (one layer), except that the caller multiplies repeated inputs only once,
    and that the gradient of the weights is one matrix product over all decisions.

    ``GRUSequence.apply(gates, hidden, weight, bias)``: gates = W_ih x + b_ih, (L, B, 3 hidden), in the order
    reset, update, new; hidden (B, hidden) before the first decision; ``weight_hh``, ``bias_hh``.
    Returns the memory after each decision, (L, B, hidden).
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See the class."""
        steps, width = len(gates), hidden.shape[1]
        states = gates.new_empty(steps + 1, *hidden.shape)
        parts = gates.new_empty(steps, hidden.shape[0], 4 * width)
        states[0] = hidden
        for t in range(steps):
            own = torch.addmm(bias, states[t], weight.t())
            reset, update = (gates[t, :, : 2 * width] + own[:, : 2 * width]).sigmoid_().chunk(2, 1)
            recalled = own[:, 2 * width :]
            new = torch.addcmul(gates[t, :, 2 * width :], reset, recalled).tanh_()
            torch.lerp(new, states[t], update, out=states[t + 1])
            torch.cat((reset, update, new, recalled), 1, out=parts[t])
        ctx.save_for_backward(states, parts, weight)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of all four arguments."""
        states, parts, weight = ctx.saved_tensors
        steps, width = len(grad), grad.shape[2]
        reset, update, new, recalled = parts.chunk(4, 2)
        # Factors that do not depend on later decisions, for all decisions at once.
        into_new = (1 - update) * (1 - new * new)
        into_update = (states[:-1] - new) * update * (1 - update)
        into_reset = into_new * recalled * reset * (1 - reset)
        factors = torch.cat((into_reset, into_update, into_new * reset), 2)
        through = torch.empty_like(factors)  # gradients of W_hh h + b_hh
        before = torch.empty_like(grad)  # gradients of the memory after each decision
        carried = torch.zeros_like(grad[0])
        for t in range(steps - 1, -1, -1):
            torch.add(grad[t], carried, out=before[t])
            torch.mul(
                factors[t].unflatten(1, (3, width)),
                before[t][:, None],
                out=through[t].unflatten(1, (3, width)),
            )
            carried = torch.addmm(before[t] * update[t], through[t], weight)
        gates = through.clone()
        gates[:, :, 2 * width :] = before * into_new
        flat = through.flatten(0, 1)
        return gates, carried, flat.t() @ states[:-1].flatten(0, 1), flat.sum(0)
