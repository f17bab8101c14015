"""``train()``, which makes a model folder from a recipe and data."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import SkipDiffError
from ..locks import alone
from .data.bank import ImageBank, load_bank
from .data.held_out import read_list
from .data.stream import Ahead, StreamedBank
from .distributed import World, join, training_device
from .programs import begin, check_frozen, load_program, make_trainer
from .provenance import Provenance, describe_hardware
from .recipe import Program, Recipe
from .run.checkpoint import checkpoint_files
from .run.log import say
from .run.loop import Cooldown, Run, Session, Signals
from .trainers.base import BatchMaker, Trainer
from .trainers.validation import Validation

Paths = Sequence[str | os.PathLike[str]]
GPU_SHARE = 0.5
"""Images move to the GPU if they take less than this share of its free memory."""


@dataclass(frozen=True)
class TrainResult:
    """How a leg of training ended."""

    step: int
    """Number of steps of the run so far."""
    reason: str
    """``steps``, ``minutes``, ``cool-down`` (finished), or the name of the signal that stopped it."""
    model: Path
    """The model folder written last, which is the cool-down branch's if one was trained."""


@dataclass(frozen=True)
class Limits:
    """When the trunk of a run ends, and which cool-down follows; see :func:`train`."""

    max_steps: int | None = None
    max_minutes: float | None = None
    cooldown: int | None = None
    cooldown_minutes: float | None = None

    def __post_init__(self) -> None:
        if self.cooldown is not None and self.cooldown_minutes is not None:
            raise SkipDiffError("give the cool-down in steps or in minutes, not both")
        if (self.cooldown is not None and self.cooldown < 1) or (self.cooldown_minutes or 1) <= 0:
            raise SkipDiffError("a cool-down must be longer than 0")
        if self.cooldown_minutes is not None and self.cooldown_minutes > (self.max_minutes or 0):
            raise SkipDiffError(
                "the cool-down takes the last minutes of max-minutes: give max-minutes, at least as many"
            )

    @property
    def deadline(self) -> float:
        """Time limit of the whole training, in seconds."""
        return math.inf if self.max_minutes is None else 60 * self.max_minutes

    @property
    def trunk_deadline(self) -> float:
        """Time limit of the trunk, in seconds."""
        return self.deadline - 60 * (self.cooldown_minutes or 0)


def train(
    recipe: str | Path | Mapping[str, Any],
    data: Paths,
    out: str | os.PathLike[str],
    resume: bool = False,
    init: str | os.PathLike[str] | None = None,
    max_minutes: float | None = None,
    device: torch.device | str = "auto",
    *,
    val: Paths = (),
    max_steps: int | None = None,
    cooldown: int | None = None,
    cooldown_minutes: float | None = None,
    overrides: Sequence[str] = (),
    program: Program = "ddpm",
) -> TrainResult:
    """Train a model until a limit, SIGTERM or SIGINT, and then write a checkpoint and a model folder.

    Under ``torchrun`` all processes share each batch, and ``out`` must be a folder that all of them see.

    Args:
        recipe: name of a shipped recipe, a YAML file, or the content of one.
        data: training images: folders, tar files, .txt lists and image files.
        out: folder of the run; see :mod:`.run.loop` for its content.
        resume: whether to continue the run in ``out`` from its newest checkpoint.
        init: name or folder of the model whose weights to start from, instead of the recipe's; for a refiner,
            a restorer or a student, the frozen model, which must then be given again when the run is resumed.
        max_minutes: time limit in minutes, counted from this call; a last validation takes additional time.
        device: device to train on; ``"auto"`` takes CUDA if there is one.
        val: validation images; if there are none, a few training images are held out.
        max_steps: step at which the trunk stops.
        cooldown: number of steps of a branch in which the learning rate falls to zero. The branch starts when
            the trunk reaches ``max_steps``, or at once if that is not given.
        cooldown_minutes: length of such a branch in minutes, which are the last of ``max_minutes``.
        overrides: changes to the recipe, such as ``"batch=4"``.
        program: kind of training that the recipe must be for.

    Raises:
        SkipDiffError: if the recipe, the data, the checkpoint or the request is not usable, if another
            training run is writing into the folder, if the loss is no longer finite, or if a discriminator
            collapses.
    """
    began = time.monotonic()
    limits = Limits(max_steps, max_minutes, cooldown, cooldown_minutes)
    if resume and init is not None and program == "ddpm":
        raise SkipDiffError(
            "resume continues with a run's own weights, init starts from others: give only one of them"
        )
    place = training_device(device)
    loaded = load_program(recipe, program, init, place.type == "cuda", overrides)
    torch.set_flush_denormal(place.type == "cpu")
    torch.backends.cudnn.benchmark = place.type == "cuda"
    try:
        with join(place) as world, _alone_in(Path(out), world, resume), Signals() as signals:
            tell: Callable[[str], None] = say if world.main else lambda _: None
            session = _prepare(loaded, data, val, make_trainer(loaded, place, world), world, signals, tell)
            session.began = began
            trunk = Run(session, Path(out))
            if resume:
                trunk.restore()
                check_frozen(session.trainer, session.provenance)
            elif init or loaded.init:
                tell(f"from {begin(session.trainer, init or loaded.init or '', session.provenance)}")
            try:
                return _run(trunk, limits, resume)
            finally:
                if isinstance(session.batches, Ahead):
                    session.batches.close()
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def _alone_in(out: Path, world: World, resume: bool) -> Iterator[None]:
    """Lock a run's folder against other training runs; the first process holds the lock for all."""
    with alone(out) if world.main else nullcontext():
        if not resume and checkpoint_files(out):
            raise SkipDiffError(f"{out} already holds a run: resume it, or choose another folder")
        yield


def _prepare(
    recipe: Recipe,
    data: Paths,
    val: Paths,
    trainer: Trainer,
    world: World,
    signals: Signals,
    tell: Callable[[str], None],
) -> Session:
    bank = _bank(recipe, data, recipe.data.crop, tell, read_list(recipe.data.held_out), recipe.data.drawings)
    if isinstance(bank, ImageBank) and bank.nbytes < _room(trainer.device):
        bank.to(trainer.device)
    batches: Callable[[int], Any] = BatchMaker(recipe, bank, trainer.device, world, trainer.restorer)
    # Work that the CPU does while the GPU is busy
    beside = recipe.degradation is not None and trainer.device.type == "cuda"
    if bank.device != trainer.device or isinstance(bank, StreamedBank) or beside:
        batches = Ahead(batches)
    held = _validation_images(recipe, bank, val, tell)
    validation = Validation(recipe, held, trainer.device, tell) if held and world.main else None
    hardware = describe_hardware(trainer.device, world)
    faults = recipe.degradation.ranges if recipe.degradation else None
    names = [Path(path).name for path in data]
    provenance = Provenance(recipe.name, names, hardware, degradation=faults)
    return Session(trainer, batches, world, signals, provenance, bank.fingerprint, validation, tell)


def _room(device: torch.device) -> float:
    """Return the bytes of a GPU's memory that images may take."""
    return GPU_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def _bank(
    recipe: Recipe,
    data: Paths,
    min_size: int,
    tell: Callable[[str], None],
    held_out: frozenset[str] = frozenset(),
    drawings: int = 0,
) -> ImageBank | StreamedBank:
    options, paths = recipe.data, [Path(path) for path in data]
    if not options.in_memory:
        return StreamedBank(paths, min_size, options.resize_short, options.weights, tell, held_out)
    bank, report = load_bank(
        paths, min_size, "cpu", options.resize_short, options.weights, held_out, drawings
    )
    tell(str(report))
    return bank


def _validation_images(
    recipe: Recipe, bank: ImageBank | StreamedBank, val: Paths, tell: Callable[[str], None]
) -> list[np.ndarray]:
    count = recipe.validation.images
    if not count:
        return []
    if val:
        used = _bank(recipe, val, recipe.model.scale, tell).hold_out(count)
        tell(f"{len(used)} of them for validation")
        return used
    held = bank.hold_out(min(count, len(bank) - 1))
    tell(f"no validation images were given; training images held out instead: {len(held)}")
    return held


def _run(trunk: Run, limits: Limits, resumed: bool) -> TrainResult:
    """Train the trunk, then the branch, as far as the limits ask for them."""
    session, cools = trunk.session, limits.cooldown is not None or limits.cooldown_minutes is not None
    reason = "steps"
    if resumed and limits.cooldown_minutes is not None and _unfinished(trunk):
        session.say(
            "an interrupted cool-down is finished first; to go on with the run itself, ask for no cool-down"
        )
    elif not cools or limits.max_steps is not None or limits.cooldown_minutes is not None:
        reason = trunk.train(limits.max_steps, limits.trunk_deadline, validate_last=not cools)
    elif not resumed:
        trunk.save()  # so that the trunk can continue from here
    expected = ("steps", "minutes") if limits.cooldown_minutes is not None else ("steps",)
    if not cools or reason not in expected:
        return TrainResult(session.trainer.step, reason, trunk.folder / "model")
    start = session.trainer.step
    left = min(limits.deadline - session.elapsed(), 60 * (limits.cooldown_minutes or 0))
    seconds = None if limits.cooldown is not None else max(left, 0.0)
    branch = Run(session, _branch_folder(trunk), Cooldown(start, limits.cooldown, seconds))
    deadline = limits.deadline
    if checkpoint_files(branch.folder):
        branch.restore()
    elif seconds is not None:
        deadline = math.inf  # the branch ends by itself a moment later, and is then finished
    reason = branch.train(None, deadline)
    if reason == "cool-down" and session.world.main:
        branch.export(trunk.folder / "model")  # where readers of the README will look
    return TrainResult(session.trainer.step, reason, branch.folder / "model")


def _branch_folder(trunk: Run) -> Path:
    """Return the folder of the branch that is taken at the trunk's step."""
    return trunk.folder / f"cooldown-{trunk.trainer.step:09d}"


def _unfinished(trunk: Run) -> bool:
    """Return whether that branch is unfinished: a finished one holds a model and no checkpoints."""
    folder = _branch_folder(trunk)
    begun = folder.is_dir() and (bool(checkpoint_files(folder)) or not (folder / "model").is_dir())
    (found,) = trunk.session.world.largest(begun)
    return bool(found)
