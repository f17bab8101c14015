"""Training from start to stop: the loop, its limits, checkpoints, validation and cool-down branches.

The *trunk* of a run trains at a constant learning rate for any length of time. A *cool-down branch* takes the
trunk's state, lets the learning rate fall linearly to zero, and writes to a folder of its own, so that the
trunk can continue later as if nothing had happened. A run's folder::

    recipe.yaml  log.jsonl  curves.png  samples-STEP.png  tensorboard/
    checkpoints/step-STEP.pt      the newest two
    model/                        a model folder with the moving average of the weights; once a cool-down
                                  is finished, its result
    cooldown-STEP/                a branch taken at that step, with the same files
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ...chains import CSA
from ...errors import SkipDiffError
from ...files import write_atomically
from ...policies.base import COARSE_STEPS
from ..distributed import World
from ..provenance import Provenance
from ..recipe import differences
from ..trainers.base import Batch, Trainer
from ..trainers.validation import Validation, usual_chains
from .checkpoint import delete_checkpoints, load_newest, save_checkpoint
from .log import Progress, RunLog
from .plots import grid

FORMAT = 1
"""Version of the checkpoint format."""
MAY_CHANGE = ("validation", "checkpoint_minutes", "log_every", "compile", "init", "restorer_of")
"""Parts of the recipe that may differ when a run is resumed: they do not affect the weights."""


class Signals:
    """Records SIGTERM and SIGINT instead of letting them end the process; a second one acts as usual."""

    def __init__(self) -> None:
        self.caught = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: Any) -> None:
        self.caught = number
        self.__exit__()


@dataclass
class Cooldown:
    """A branch whose learning rate falls linearly to zero, over steps or over time."""

    start: int
    """Step of the trunk at which the branch was taken."""
    steps: int | None
    seconds: float | None
    spent: float = 0.0
    """Seconds that it took in earlier legs."""

    def left(self, step: int, seconds: float) -> float:
        """Return the share of the learning rate, 1 … 0, before ``step``, ``seconds`` into this leg."""
        if self.steps is not None:
            return max(0.0, 1 - (step - self.start) / self.steps)
        return max(0.0, 1 - (self.spent + seconds) / max(self.seconds or 0.0, 1e-9))


@dataclass
class Session:
    """The state that the trunk and its branches share."""

    trainer: Trainer
    batches: Callable[[int], Batch]
    world: World
    signals: Signals
    provenance: Provenance
    fingerprint: str
    """Fingerprint of the training data, including the number of held-out images."""
    validation: Validation | None
    say: Callable[[str], None]
    seconds: float = 0.0
    """Training time of the trunk in earlier legs."""
    began: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Return the seconds since this leg began."""
        return time.monotonic() - self.began


class Run:
    """One stretch of training into one folder: the trunk, or a cool-down branch.

    Args:
        session: the state that trunk and branches share.
        folder: folder to write to.
        cooldown: the cool-down, if this is a branch; None for the trunk.
    """

    def __init__(self, session: Session, folder: Path, cooldown: Cooldown | None = None) -> None:
        self.session, self.folder, self.cooldown = session, folder, cooldown
        self.trainer, self.recipe = session.trainer, session.trainer.recipe
        self._pending: list[tuple[int, float, dict[str, Tensor]]] = []
        self._checked: list[dict[str, float]] = []  # loss, gradient norm, rate, the trainer's parts
        self._last_checkpoint: Path | None = None
        self._began = self._saved = self._now = session.elapsed()
        self._validated = -1
        self._log: RunLog | None = None

    def restore(self) -> None:
        """Continue from the newest checkpoint in the folder that can be read.

        Raises:
            SkipDiffError: if there is none, or it has another format or was made with another recipe or other
                data.
        """
        state, path = load_newest(self.folder, self.session.say)
        if state.get("format") != FORMAT:
            raise SkipDiffError(
                f"{path} has format {state.get('format')}, but this version reads format {FORMAT}"
            )
        changed = differences(state["recipe"], self.recipe.to_dict())
        changed = [key for key in changed if key.split(".")[0] not in MAY_CHANGE]
        if changed:
            raise SkipDiffError(
                f"cannot resume {path}: the recipe differs in {', '.join(changed)}; "
                "give the same recipe, or start a new run from the model folder with --init"
            )
        if state["data"] != self.session.fingerprint:
            raise SkipDiffError(
                f"cannot resume {path}: it was trained on other data ({state['data']}, "
                f"now {self.session.fingerprint}): give the same data, and the same validation images or none"
            )
        self.trainer.load_state_dict(state["trainer"])
        self.session.seconds = state["seconds"]
        self.session.provenance.earlier, self.session.provenance.init = state["earlier"], state["init"]
        if state["cooldown"] is not None:
            self.cooldown = Cooldown(**state["cooldown"])
        self._last_checkpoint = path
        self.session.say(f"continuing {path}")

    def train(self, max_steps: int | None, deadline: float, validate_last: bool = True) -> str:
        """Train until a limit, and then write a checkpoint and the model folder.

        Args:
            max_steps: step of the trainer at which to stop; None: no limit.
            deadline: time on the session's clock at which to stop, in seconds.
            validate_last: whether to validate once more at the end.

        Returns:
            What ended it: ``steps``, ``minutes``, ``cool-down`` or the name of a signal.
        """
        session, trainer, recipe = self.session, self.trainer, self.recipe
        self._open_log()
        progress = Progress(self._label(), recipe.batch, sys.stderr if session.world.main else None)
        check_every = 1 if trainer.device.type == "cpu" else min(recipe.log_every, 20)
        try:
            while not (reason := self._over(max_steps, deadline)):
                if self._now - self._saved >= 60 * recipe.checkpoint_minutes:
                    self.save()
                cooling = self.cooldown.left(trainer.step, self._now - self._began) if self.cooldown else 1.0
                lr = trainer.learning_rate(trainer.step, cooling)
                loss, norm = trainer.update(session.batches(trainer.step), lr)
                self._pending.append(
                    (trainer.step, lr, {"loss": loss, "gradient_norm": norm, **trainer.parts})
                )
                if trainer.step % check_every == 0 or trainer.step % recipe.log_every == 0:
                    value = self._check()
                    progress.update(trainer.step, value, *self._left(max_steps, deadline, progress.rate()))
                if trainer.step % recipe.log_every == 0:
                    self._write_line(progress.rate())
                if trainer.step % recipe.validation.every == 0:
                    self._validate()
            finished = reason == "cool-down"
            self.save(checkpoint=not finished)
            if validate_last and not session.signals.caught:
                self._validate()
            if finished and session.world.main:
                delete_checkpoints(self.folder)
        finally:
            progress.close()
            if self._log is not None:
                self._log.close()
        return reason

    def save(self, checkpoint: bool = True) -> None:
        """Write a checkpoint and the model folder, after checking that the latest losses are finite."""
        self._check()
        self._saved = self._now
        session, trainer = self.session, self.trainer
        if session.world.main:
            if checkpoint:
                state = self._state(session.seconds + self._now)
                self._last_checkpoint = save_checkpoint(self.folder, trainer.step, state)
            self.export(self.folder / "model")
        session.world.wait()

    def export(self, folder: Path) -> None:
        """Write the model as it is now, with the record of its training."""
        session, trainer = self.session, self.trainer
        cooled = trainer.step - self.cooldown.start if self.cooldown else 0
        images = trainer.step * self.recipe.batch
        record = session.provenance.record(trainer.step, images, session.seconds + self._now, cooled)
        trainer.export(folder, record)

    def _state(self, seconds: float) -> dict[str, Any]:
        provenance, cooldown = self.session.provenance, None
        if self.cooldown:
            spent = self.cooldown.spent + self._now - self._began
            cooldown = asdict(replace(self.cooldown, spent=spent))
        return {
            "format": FORMAT, "recipe": self.recipe.to_dict(), "data": self.session.fingerprint,
            "trainer": self.trainer.state_dict(), "seconds": seconds, "cooldown": cooldown,
            "earlier": provenance.earlier, "init": provenance.init,
        }  # fmt: skip

    def _open_log(self) -> None:
        if self.session.world.main:
            self._log = RunLog(self.folder, self.trainer.step, self.session.say)
            text = yaml.safe_dump(self.recipe.to_dict(), sort_keys=False)
            write_atomically(self.folder / "recipe.yaml", text.encode())

    def _label(self) -> str:
        return self.recipe.name + (" cool-down" if self.cooldown else "")

    def _over(self, max_steps: int | None, deadline: float) -> str:
        """Return the reason to stop before the next step; empty: none. All processes get the same answer."""
        session = self.session
        caught, self._now = session.world.largest(session.signals.caught, session.elapsed())
        if caught:
            return signal.Signals(int(caught)).name
        if self.cooldown and self.cooldown.left(self.trainer.step, self._now - self._began) <= 0:
            return "cool-down"
        if max_steps is not None and self.trainer.step >= max_steps:
            return "steps"
        return "minutes" if self._now >= deadline else ""

    def _left(self, max_steps: int | None, deadline: float, rate: float) -> tuple[float | None, float | None]:
        """Return the share of this leg that is done, and the seconds left; None for both without a limit."""
        ends = [deadline - self._now] if deadline < math.inf else []
        if self.cooldown and self.cooldown.steps is not None:
            max_steps = self.cooldown.start + self.cooldown.steps
        elif self.cooldown:
            left = self.cooldown.left(self.trainer.step, self._now - self._began)
            ends.append(left * (self.cooldown.seconds or 0.0))
        if max_steps is not None and rate > 0:
            ends.append((max_steps - self.trainer.step) * self.recipe.batch / rate)
        if not ends:
            return None, None
        spent = self._now - self._began
        return spent / max(spent + min(ends), 1e-9), min(ends)

    def _check(self) -> float:
        """Read the losses of the last steps from the device, check them, and return the latest."""
        if self._pending:
            values = torch.stack([value for *_, found in self._pending for value in found.values()])
            left = iter(self.session.world.mean(values.double().cpu()).tolist())
            for step, lr, found in self._pending:
                self._check_step(step, lr, {name: next(left) for name in found})
            self._pending = []
        return self._checked[-1]["loss"] if self._checked else math.nan

    def _check_step(self, step: int, lr: float, found: dict[str, float]) -> None:
        good = self._last_checkpoint or "none yet"
        if not all(map(math.isfinite, found.values())):
            # always loss and gradient norm, and those of the others that are not finite
            main = ("loss", "gradient_norm")
            told = {k: v for k, v in found.items() if k in main or not math.isfinite(v)}
            figures = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in told.items())
            raise SkipDiffError(
                f"training became unstable at step {step}: {figures}, learning rate {lr:.3g}; "
                f"last good checkpoint: {good}. Start again from the model folder beside it (init) with a "
                "lower optimiser.lr"
            )
        collapsed = self.trainer.collapsed(found)
        if collapsed:
            raise SkipDiffError(
                f"the discriminator had collapsed at step {step}: {collapsed}; last checkpoint before that: "
                f"{good}. Start again with another adversarial.lr_share or a lower adversarial.weight"
            )
        self._checked.append({**found, "lr": lr})

    def _write_line(self, rate: float) -> None:
        if self._log is not None and self._checked:
            columns: dict[str, list[float]] = {}
            for line in self._checked:
                for name, value in line.items():
                    columns.setdefault(name, []).append(value)
            means = {name: sum(values) / len(values) for name, values in columns.items()}
            minutes = (self.session.seconds + self._now) / 60
            self._log.write({
                "step": self.trainer.step, **means, "lr": columns["lr"][-1],
                "images_per_second": round(rate, 2), "minutes": round(minutes, 3),
            })  # fmt: skip
        self._checked = []

    def _validate(self) -> None:
        """Measure the moving average on the validation images, in the first process."""
        session, step = self.session, self.trainer.step
        if self._validated == step:
            return
        self._validated = step
        if session.validation is not None and self._log is not None:
            line = {"step": step, **self._measure(session.validation, step)}
            self._log.write(line)
            session.say(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in line.items() if k != "step"))
        if self._log is not None:
            self._log.draw_curves()
        session.world.wait()

    def _measure(self, validation: Validation, step: int) -> dict[str, float]:
        """Compute the validation figures, and write the picture grid."""
        trainer = self.trainer
        model, further, diffusion = trainer.frozen(), trainer.chains(), trainer.is_diffusion
        pictures = validation.samples(model, further | (usual_chains(model) if diffusion else {}))
        figures = trainer.measured(validation)
        count = min(self.recipe.validation.grid, len(validation.hr))
        if count and self._log is not None:
            columns = {"bicubic": pictures["bicubic"]} | {name: pictures[name] for name in further}
            if "coarse" in pictures:
                columns[f"S = {COARSE_STEPS}"] = pictures["coarse"]
            if diffusion:
                steps = model.schedule.steps
                columns[f"S = {steps}"] = validation.samples(model, {"all": CSA(steps)}, count)["all"]
            columns["HR"] = validation.hr
            self._log.picture("samples", step, grid({name: x[:count] for name, x in columns.items()}))
        return figures | validation.figures(pictures)
