"""Trains an agent, with a folder for the run, evaluation on held-out images, checkpoints, and a clean stop.

The folder holds ``run.json`` (the settings, and how ``skipdiff-agent evaluate`` plays the run),
``evaluations.csv``, ``policy.safetensors`` (the best agent so far, ready for the sampler), ``checkpoint.zip``
and ``checkpoint.json`` (from which to resume) and ``tensorboard/``. ``played.csv`` describes how the agent
plays. ``reward`` and ``skip_LEVEL``, the share of episodes that skipped at the level, are means over the
episodes since the last evaluation, in which actions are drawn at random; ``held_out_skip_LEVEL`` is for the
held-out episodes, in which the more probable action is taken.

Resuming restores the weights and the optimiser. DQN and QR-DQN start again with an empty replay buffer: they
first play ``learning_starts`` decisions at random, and then continue to learn.
"""

from __future__ import annotations

import csv
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from skipdiff_env.diffusion import DENOISE
from skipdiff_env.diffusion.protocol import identity_of
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.files import write_atomically, written
from skipdiff_env.locks import alone
from skipdiff_env.policies.file import NetworkPolicy, save_policy
from skipdiff_env.policies.network import SkipProposalNetwork
from skipdiff_env.progress import duration
from skipdiff_env.training.recipe import differences

from .evaluate import Evaluator, Result, Setting, denoise_shares, paid_starts
from .export import network_from_weights
from .pairs import Pair
from .settings import BEST, CHECKPOINT, RUN, build_agent, observation_kind, step_cost
from .vec_env import SkipDiffVecEnv

LOG, PLAYED = "evaluations.csv", "played.csv"


@dataclass
class Progress:
    """The progress of a run, which ``checkpoint.json`` holds."""

    timesteps: int = 0
    seconds: float = 0.0
    best_reward: float | None = None
    """Highest mean reward on the held-out episodes."""
    best_evaluations: float = math.inf
    """Network evaluations per episode of the agent with that reward."""
    stopped_by: str = ""
    """Name of the signal that ended the run early."""

    def improve(self, reward: float, evaluations: float) -> bool:
        """Record an agent, and return whether it is the best so far: by reward, then by fewer evaluations."""
        former = (-math.inf if self.best_reward is None else self.best_reward, -self.best_evaluations)
        better = (reward, -evaluations) > former
        if better:
            self.best_reward, self.best_evaluations = reward, evaluations
        return better


@dataclass
class Run:
    """A training run.

    Args:
        settings: settings of the algorithm, see :func:`.settings.read_settings`.
        setting: the model, images, metric and steps.
        pairs: (image, noise seed) of each training episode.
        evaluator: evaluator of the held-out episodes.
        folder: folder of the run.
        seed: seed of the weights, the actions and the order of episodes.
        device: device on which the agent learns.
        every: number of decisions between evaluations, each with a checkpoint; None: a twentieth of the run.
        command: arguments of ``skipdiff-agent evaluate`` for this run, by name.
        minutes: limit on the training time in minutes, including that before resuming; None: no limit.
    """

    settings: dict[str, Any]
    setting: Setting
    pairs: Sequence[Pair]
    evaluator: Evaluator
    folder: Path
    seed: int = 0
    device: str = "auto"
    every: int | None = None
    command: dict[str, Any] = field(default_factory=dict)
    minutes: float | None = None
    progress: Progress = field(default_factory=Progress)

    def train(
        self, resume: bool = False, progress_bar: bool = False, say: Callable[[str], None] | None = None
    ) -> Progress:
        """Train to the end, or until a signal; return the progress.

        Args:
            resume: whether to continue the run in the folder.
            progress_bar: whether to show a progress bar.
            say: function that is called with a line about the progress at every evaluation.

        Raises:
            SkipDiffError: if the folder holds a run and ``resume`` is False, or a run with other settings; if
                another run is writing into it; or if there are too few decisions for one update.
        """
        self._check_length()
        with alone(self.folder):
            self._open_folder(resume)
            return self._train(progress_bar, say)

    def _train(self, progress_bar: bool, say: Callable[[str], None] | None) -> Progress:
        size = self.settings["observation_size"]
        envs = self.setting.envs(
            self.settings["num_envs"], observation=observation_kind(self.settings), observation_size=size,
            step_cost=step_cost(self.settings), **self._rewards(),
        )  # fmt: skip
        venv = VecMonitor(SkipDiffVecEnv(envs, self.pairs))
        # A resumed run draws other episodes and actions than those with which it began.
        agent = build_agent(
            self.settings, venv, envs.process.decisions, self.seed + self.progress.timesteps, self.device,
            tensorboard_log=str(self.folder / "tensorboard"),
        )  # fmt: skip
        if self.progress.timesteps:
            # Tensors alone: unlike load(), this unpickles nothing.
            agent.set_parameters(str(self.folder / f"{CHECKPOINT}.zip"), device=self.device)
            agent.num_timesteps = self.progress.timesteps
            if hasattr(agent, "learning_starts"):
                # A replay buffer is not saved (it may be 1 GB), so it is filled before anything is learned,
                # as at the start.
                agent.learning_starts += self.progress.timesteps
        left = self.settings["timesteps"] - self.progress.timesteps
        self.progress.stopped_by = ""
        with _signals(self.progress):
            if left > 0 and not self.late(self.progress.seconds):
                watch = Watch(self, say)
                agent.learn(
                    left, watch, reset_num_timesteps=False, progress_bar=progress_bar, tb_log_name="run"
                )
                watch.evaluate_and_save()
        venv.close()
        return self.progress

    def late(self, seconds: float) -> bool:
        """Return whether this many seconds of training reach the time limit."""
        return self.minutes is not None and seconds >= 60 * self.minutes

    def _check_length(self) -> None:
        least = self.settings["arguments"].get("learning_starts", -1) + 1
        if self.settings["timesteps"] < least:
            raise SkipDiffError(
                f"timesteps={self.settings['timesteps']} is less than what is played before anything is "
                f"learned (learning_starts): give {least} or more"
            )
        count, length = self.settings["num_envs"], self.evaluator.process.decisions
        update = self.settings.get("episodes", 0) * length * count
        if self.settings["timesteps"] < update:
            raise SkipDiffError(
                f"timesteps={self.settings['timesteps']} is less than one update (environments: {count}, "
                f"decisions per episode: {length}): give {update} or more"
            )

    def check(self, resume: bool) -> None:
        """Raise beforehand the errors that :meth:`train` would raise, except for another run in the folder.

        Raises:
            SkipDiffError: see :meth:`train`.
        """
        self._check_length()
        self._about(resume)

    def comparison(self) -> str:
        """Compare the best agent with the best fixed start and the optimum on held-out episodes, in one line;
        each is a mean over the prices at which the agent is evaluated."""
        prices, fine = _prices(step_cost(self.settings)), self.evaluator.process.fine_steps
        optima = self.evaluator.optima()
        starts = np.mean([paid_starts(optima, fine, price) for price in prices], axis=(0, 1))
        best = int(starts.argmax())
        optimum = float(self.evaluator.best_rewards(prices).mean())
        calls = self.evaluator.process.coarse_steps + best
        assert self.progress.best_reward is not None
        return (
            f"held out: agent {self.progress.best_reward:.5f} with {self.progress.best_evaluations:.1f} "
            f"evaluations, best fixed start ({best + 1}) {starts[best]:.5f} with {calls}, "
            f"optimum {optimum:.5f}"
        )

    def _rewards(self) -> dict[str, Any]:
        relative = self.settings.get("relative_rewards", True)
        return self.setting.relative_rewards(self.pairs) if relative else {}

    def network(self) -> SkipProposalNetwork:
        """Return the network of the best agent so far."""
        from skipdiff_env.policies.file import load_policy

        network = load_policy(self.folder / BEST).network
        assert isinstance(network, SkipProposalNetwork)
        return network

    def _about(self, resume: bool) -> dict[str, Any]:
        """Return what identifies the run in the folder; refuse a folder that holds another run."""
        # Digests, since images with the same number or the same names may still differ.
        about = {
            "settings": {k: v for k, v in self.settings.items() if k != "timesteps"}, "seed": self.seed,
            "model": self.setting.model.hash, "metric": str(self.setting.metric),
            "skip_rule": self.setting.skip_rule, "coarse_steps": self.setting.coarse_steps,
            "fine_steps": self.setting.fine_steps, "image_size": self.setting.side,
            "precision": self.setting.precision, "training": self.setting.digest(self.pairs),
            "held_out": self.evaluator.setting.digest(self.evaluator.pairs),
        }  # fmt: skip
        file = self.folder / RUN
        if file.exists() and not resume:
            raise SkipDiffError(f"{self.folder} already holds a run: give --resume, or another folder")
        if file.exists():
            identity_of(self.setting.model, "a run that goes on")
            before = json.loads(file.read_text(encoding="utf-8"))
            before.pop("command", None)
            wanted = json.loads(json.dumps(about))
            if names := differences(before, wanted):
                order = [*wanted, *before]  # settings before digests, which depend on them
                name = min(names, key=lambda name: order.index(name.partition(".")[0]))
                was, now = (reduce(dict.get, name.split("."), table) for table in (before, wanted))
                raise SkipDiffError(
                    f"{self.folder} holds a run with {name} = {was!r}, not {now!r}: resume with the "
                    "settings that it was started with, or use another folder"
                )
        return about

    def _open_folder(self, resume: bool) -> None:
        about = self._about(resume)
        write_atomically(self.folder / RUN, json.dumps(about | {"command": self.command}, indent=2).encode())
        state = self.folder / f"{CHECKPOINT}.json"
        if state.exists():
            self.progress = Progress(**json.loads(state.read_text(encoding="utf-8")))


class Watch(BaseCallback):
    """Logs episodes, evaluates the agent, keeps the best one, saves checkpoints, and stops on a signal."""

    def __init__(self, run: Run, say: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self.run, self.say = run, say
        self.every = run.every or max(run.settings["timesteps"] // 20, 1)
        self.last = run.progress.timesteps
        self.before, self.began = run.progress.seconds, time.perf_counter()
        self.prices = _prices(step_cost(run.settings))
        self.optima = run.evaluator.best_rewards(self.prices) if run.evaluator.can_find_optima() else None
        self.ended: list[dict[str, Any]] = []
        """Last infos of the episodes that ended in this roll-out."""
        self.played: list[dict[str, Any]] = []
        """Last infos of the episodes that ended since the last evaluation."""

    def _on_step(self) -> bool:
        both = zip(self.locals["infos"], self.locals["dones"], strict=True)
        ended = [info for info, done in both if done]
        self.ended += ended
        self.played += ended
        if self.num_timesteps - self.last >= self.every:
            self.evaluate_and_save()
        late = self.run.late(self.before + time.perf_counter() - self.began)
        return not (self.run.progress.stopped_by or late)

    def _on_rollout_end(self) -> None:
        if not self.ended:
            return
        self.logger.record("episode/reward", _reward(self.ended))
        self.logger.record(
            "episode/evaluations", float(np.mean([info["evaluations"] for info in self.ended]))
        )
        if "regret" in self.ended[0]:
            self.logger.record("episode/regret", float(np.mean([info["regret"] for info in self.ended])))
        self._record_shares("episode", np.array([info["actions"] for info in self.ended]) == DENOISE)
        self.ended.clear()

    def evaluate_and_save(self) -> None:
        """Play the held-out episodes, log the result, keep the best agent, and save a checkpoint."""
        if self.last == self.num_timesteps:
            return
        run, progress = self.run, self.run.progress
        self.last = progress.timesteps = self.num_timesteps
        progress.seconds = self.before + time.perf_counter() - self.began
        network = network_from_weights(self.model.policy.state_dict())
        results, rewards = [], []
        for price in self.prices:
            told = price if network.config.step_costs else 0.0
            played = run.evaluator(NetworkPolicy(network, network.config, told))
            rewards.append([run.evaluator.paid(result, price) for result in played])
            results += played
        reward, evaluations = float(np.mean(rewards)), float(np.mean([r.evaluations for r in results]))
        if progress.improve(reward, evaluations):
            purpose = run.setting.purpose(run.settings["algorithm"], run.seed)
            save_policy(run.folder / BEST, network, purpose=purpose)
        self._note(results, reward)
        if self.say:
            done, total = self.num_timesteps, run.settings["timesteps"]
            left = progress.seconds / done * max(total - done, 0)
            self.say(
                f"{done} of {total} decisions: held-out reward {reward:.5f} with {evaluations:.1f} "
                f"evaluations, {duration(left)} left"
            )
        with written(run.folder / f"{CHECKPOINT}.zip") as file:
            self.model.save(file)  # type: ignore[arg-type]  # any binary file will do
        write_atomically(run.folder / f"{CHECKPOINT}.json", json.dumps(vars(progress)).encode())

    def _note(self, results: Sequence[Result], reward: float) -> None:
        evaluations = float(np.mean([r.evaluations for r in results]))
        row: dict[str, Any] = {
            "timesteps": self.num_timesteps, "minutes": round(self.run.progress.seconds / 60, 3),
            "reward": reward,
            "regret": "" if self.optima is None else float(self.optima.mean()) - reward,
            "evaluations": evaluations,
        }  # fmt: skip
        _append(self.run.folder / LOG, row)
        for name in ("reward", "regret", "evaluations"):
            if row[name] != "":
                self.logger.record(f"held_out/{name}", row[name])
        held_out = denoise_shares(results)
        self._record_shares("held_out", held_out[None])
        self.logger.dump(self.num_timesteps)
        if self.played:
            sampled = np.mean([info["actions"] == DENOISE for info in self.played], axis=0)
            top = len(held_out) + 1
            skips = {f"skip_{top - i}": 1 - float(share) for i, share in enumerate(sampled)}
            skips |= {f"held_out_skip_{top - i}": 1 - float(share) for i, share in enumerate(held_out)}
            _append(
                self.run.folder / PLAYED,
                {"timesteps": self.num_timesteps, "reward": _reward(self.played)} | skips,
            )
            self.played.clear()

    def _record_shares(self, what: str, denoised: np.ndarray) -> None:
        top = denoised.shape[1] + 1
        for i, share in enumerate(denoised.mean(axis=0)):
            self.logger.record(f"{what}_denoise_share/level_{top - i}", float(share))


def _reward(ended: Sequence[dict[str, Any]]) -> float:
    """Return the mean return of episodes; for recorded ones, before rewards were made relative."""
    return float(np.mean([info.get("episode_return", info["episode"]["r"]) for info in ended]))


def _append(file: Path, row: dict[str, Any]) -> None:
    """Append a row to a CSV file, which begins with a header."""
    new = not file.exists()
    with open(file, "a", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def _prices(price: float | tuple[float, float]) -> list[float]:
    """Return the prices at which an agent is evaluated: its own, or three across its range."""
    return [float(p) for p in np.geomspace(*price, 3)] if isinstance(price, tuple) else [price]


@contextmanager
def _signals(progress: Progress) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the run after the current step; a second signal ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: Any) -> None:
        if progress.stopped_by:
            raise KeyboardInterrupt
        progress.stopped_by = signal.Signals(number).name

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
