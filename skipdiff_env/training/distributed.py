"""Several processes, started by ``torchrun``: their ranks, and the values that they agree on.

Data-parallel training itself is torch's ``DistributedDataParallel``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ..diffusion.device import pick_device
from ..errors import SkipDiffError


@dataclass(frozen=True)
class World:
    """This process's place among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and prints messages."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """Return this process's share of a batch.

        Raises:
            SkipDiffError: if the batch cannot be shared evenly.
        """
        if batch % self.size:
            raise SkipDiffError(f"batch = {batch} must be a multiple of {self.size}, the number of processes")
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def largest(self, *values: float) -> list[float]:
        """Return the largest of each value over all processes, so that all of them make the same decision."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return shared.tolist()

    def from_main(self, value: float) -> float:
        """Return the main process's value, for a decision that it makes alone; other values are ignored."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return shared.item()

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes of float64 values on the CPU."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def wait(self) -> None:
        """Wait until every process has reached this call."""
        self.largest(0.0)


def training_device(name: torch.device | str = "auto") -> torch.device:
    """Return the device to train on, see :func:`.device.pick_device`: each process takes a GPU of its own.

    Raises:
        SkipDiffError: if there is no such device.
    """
    device = pick_device(name)
    if device.type == "cuda" and device.index is None:
        device = pick_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return device


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Join the processes that ``torchrun`` started; without ``torchrun``, this is a world of one process."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    # gloo is for decisions, which are made on the CPU without waiting for the GPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
