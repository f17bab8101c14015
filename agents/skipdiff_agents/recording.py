"""Settings whose episodes are recorded once and then looked up; see :mod:`skipdiff_env.envs.recordings`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from skipdiff_env.diffusion import SkipProcess
from skipdiff_env.envs.options import RecordedOptions
from skipdiff_env.envs.recorded import RecordedVectorEnv
from skipdiff_env.envs.recordings import MEMORY, Graph, Recordings, Watch
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.oracle import Optimum
from skipdiff_env.wrappers import RelativeVectorReward

from .evaluate import Setting
from .pairs import Pair


@dataclass(frozen=True)
class RecordedSetting(Setting):
    """A setting whose episodes are recorded. Its ``metric`` must be a name.

    Missing recordings are made when they are first needed.

    Args:
        folder: folder of the recordings, which settings may share. None: the user's cache.
        sizes: sides in pixels of the latents that agents may see; by default agents see the largest.
        max_bytes: bound on the bytes of latents kept in memory; the least recently used are dropped first.
    """

    folder: Path | None = None
    sizes: tuple[int, ...] = (32,)
    max_bytes: int = MEMORY
    # Not arguments: a setting made from another one by replace() must not look up the other's answers.
    _memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def recordings(self) -> Recordings:
        """The recorded episodes."""
        if "recordings" not in self._memory:
            self._memory["recordings"] = Recordings(
                self.plain_process, self.pair, self.metric, self.folder, self.sizes, self.max_bytes,
                self.max_calls,
            )  # fmt: skip
        return self._memory["recordings"]

    @property
    def process(self) -> SkipProcess:
        """The process whose schedules are recorded."""
        return self.recordings.process

    @property
    def graph(self) -> Graph:
        """States and outcomes of every episode."""
        return self.recordings.graph

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the outcomes."""
        return self.recordings.metrics

    def content(self, image: int, noise_seed: int) -> dict[str, Any]:
        """Return hashes of an episode's two pictures, computed once."""
        about = self.recordings.about(image, noise_seed)
        return {"lr": about["lr"], "hr": about["hr"]}

    def record(self, pairs: Iterable[Pair], watch: Watch = iter) -> int:
        """Make the missing recordings, and return the number of network calls that this took."""
        return self.recordings.record(pairs, watch)

    def latents(self, image: int, noise_seed: int, size: int) -> np.ndarray:
        """Return the latents that agents see in each state, float16 (states, 3, size, size)."""
        return self.recordings.latents(image, noise_seed, size)[: len(self.graph.states)]

    def rewards(self, image: int, noise_seed: int) -> np.ndarray:
        """Return the reward of each outcome, float64 (outcomes,); 0 where it cannot be computed."""
        return self.recordings.rewards(image, noise_seed)

    def relative_rewards(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Return ``reward_scale``: the mean standard deviation of an episode's outcomes."""
        return {"reward_scale": self.recordings.spread(pairs)}

    def envs(
        self, count: int, tensors: bool = False, reward_scale: float | None = None, **others: Any
    ) -> Any:
        """Make a batch of ``count`` environments of recorded episodes; if a scale is given, rewards are
        relative."""
        if others.pop("return_image", False):
            raise SkipDiffError("recordings hold no images: use only metrics that are recorded")
        options, shared = vars(self.options(**others)), {option.name for option in fields(RecordedOptions)}
        options = {name: value for name, value in options.items() if name in shared}
        options["observation_size"] = options["observation_size"] or max(self.sizes)
        envs = RecordedVectorEnv(
            count, autoreset_mode="Disabled", tensors=tensors, recordings=self.recordings, **options
        )
        return envs if reward_scale is None else RelativeVectorReward(envs, reward_scale)

    def optimum(self, image: int, noise_seed: int) -> Optimum:
        """Look up every outcome; ``calls`` is the number of network calls that recording took."""
        return self.recordings.optimum(image, noise_seed)
