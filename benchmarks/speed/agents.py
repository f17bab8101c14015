"""Compares learning from recordings in speed with sb3-contrib's recurrent PPO, and with another commit.

Every figure comes from a process of its own with one thread. All processes exist from the beginning and take
turns of a few updates, so that other work on the machine slows all of them alike. Decisions are counted per
second of processor time, which depends less on other work than wall time does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

PPO, CONTRIB, EPISODIC = "PPO", "sb3-contrib's RecurrentPPO", "EpisodicPPO"
ROOT = Path(__file__).resolve().parents[2]

CODE = """
import sys, time
import torch
from pathlib import Path
from stable_baselines3.common.vec_env import VecMonitor
from skipdiff_agents.pairs import all_pairs
from skipdiff_agents.recording import RecordedSetting
from skipdiff_agents.settings import build_agent, observation_kind
from skipdiff_agents.vec_env import SkipDiffVecEnv
from skipdiff_env import load_pretrained
from skipdiff_env.images import open_source

kind, model, folder, updates = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
# Named one by one: another commit knows other files of settings.
model, source = load_pretrained(model, "cpu"), open_source(None)
setting = RecordedSetting(model, source, image_size=128, folder=folder, sizes=(32,))
pairs = all_pairs(len(setting.source), -(-16 // len(setting.source)))
setting.record(pairs)
policy = {"hidden_size": 128, "norm": "group"} if kind == "PPO" else {
    "memory": "gru", "hidden_size": 256, "norm": "group"}
arguments = {"learning_rate": 3e-4, "n_epochs": 4, "gamma": 1.0, "gae_lambda": 1.0, "ent_coef": 0.05}
settings = {"algorithm": kind, "num_envs": 16, "observation_size": 32, "episodes": 1, "minibatches": 2,
            "step_cost": 1e-4, "policy": policy, "arguments": arguments}
envs = setting.envs(16, observation=observation_kind(settings), observation_size=32, step_cost=1e-4,
                    **setting.relative_rewards(pairs))
one = envs.process.decisions * 16
agent = build_agent(settings, VecMonitor(SkipDiffVecEnv(envs, pairs, 0)), envs.process.decisions, 0, "cpu")
agent.learn(2 * one)
print("ready", flush=True)
for turn in sys.stdin:
    began = time.process_time()
    agent.learn(updates * one, reset_num_timesteps=False)
    print(updates * one / (time.process_time() - began), flush=True)
"""


class Learner:
    """A process that learns when it is told to.

    Args:
        root: the tree whose code it runs.
        kind: the algorithm.
        model, folder: the model whose recordings it learns from, and their folder.
        updates: number of updates per turn.

    Raises:
        RuntimeError: here or in a turn, if the process fails; the reason is on standard error.
    """

    def __init__(self, root: Path, kind: str, model: str, folder: Path, updates: int = 4) -> None:
        paths = [str(root), str(root / "agents"), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self.name = "RecurrentPPO" if kind == CONTRIB else kind
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, self.name, model, str(folder.resolve()), str(updates)],
            env={**os.environ, **own}, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._told()

    def turn(self) -> float:
        """Learn for some updates; return the decisions per second of processor time."""
        print(file=self.process.stdin, flush=True)
        return float(self._told())

    def _told(self) -> str:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{self.name} ended with status {self.process.wait()}")
        return line


def measure(model: str, folder: Path, beside: Path | None, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Return rates by side (``here``, ``beside``) and algorithm, one per round, in which all take turns."""
    sides: list[tuple[str, Path, tuple[str, ...]]] = [("here", ROOT, (PPO, CONTRIB, EPISODIC))]
    sides += [("beside", beside, (PPO, CONTRIB))] if beside else []
    with ExitStack() as stack:
        learners: dict[tuple[str, str], Learner] = {}
        for side, root, kinds in sides:
            for kind in kinds:
                learner = learners[side, kind] = Learner(root, kind, model, folder)
                stack.enter_context(learner.process)  # closes its standard input, which ends it
        rounds_of_all = [[learner.turn() for learner in learners.values()] for _ in range(rounds)]
    return dict(zip(learners, map(list, zip(*rounds_of_all, strict=True)), strict=True))


AIMS = {
    (("here", EPISODIC), ("here", CONTRIB)): "3",
    (("here", EPISODIC), ("here", PPO)): "0.8",
    (("here", EPISODIC), ("beside", CONTRIB)): "",
    (("here", PPO), ("beside", PPO)): "2",
}
"""The comparisons, and the target of each ratio, if there is one."""


def ratios(found: Mapping[tuple[str, str], list[float]]) -> list[tuple[str, float, str]]:
    """Return the median ratio of speeds over the rounds for every comparison, with its target."""
    where = {"here": "", "beside": ", other commit"}
    return [
        (
            f"{a[1]} / {b[1]}{where[b[0]]}",
            statistics.median(x / y for x, y in zip(found[a], found[b], strict=True)),
            aim,
        )
        for (a, b), aim in AIMS.items()
        if b in found
    ]
