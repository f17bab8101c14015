"""Cool-down branches: interrupted and finished, by steps and by minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skipdiff_env.diffusion import load_pretrained
from skipdiff_env.training import TrainResult
from skipdiff_env.training.run import loop as loop_module
from skipdiff_env.training.run.checkpoint import checkpoint_files
from skipdiff_env.training.run.log import read_log
from tests.training.training_helpers import assert_same

Run = Callable[..., TrainResult]


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's clock goes on by a tenth of a second when it is looked at, however busy the machine is."""

    def elapsed(self: Any) -> float:
        self.looks = getattr(self, "looks", -1) + 1
        return self.looks / 10

    monkeypatch.setattr(loop_module.Session, "elapsed", elapsed)


def test_an_interrupted_branch_goes_on_where_it_was(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"cooldown": 4, "overrides": ("log_every=1",)}
    whole = run(tmp_path / "whole", 2, **options)
    # A deadline after the second step of the branch
    over = loop_module.Run._over
    monkeypatch.setattr(
        loop_module.Run, "_over",
        lambda self, *a: "minutes" if self.cooldown and self.trainer.step == 4 else over(self, *a),
    )  # fmt: skip
    assert run(tmp_path / "parts", 2, **options).reason == "minutes"
    monkeypatch.undo()
    rest = run(tmp_path / "parts", None, resume=True, **options)
    assert (whole.reason, rest.reason, rest.step) == ("cool-down", "cool-down", 6)
    a, b = (load_pretrained(result.model, device="cpu").network.state_dict() for result in (whole, rest))
    assert_same(a, b)


@pytest.mark.usefixtures("ticking")
def test_an_interrupted_branch_of_minutes_is_finished_before_the_trunk_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command again, as after a SIGTERM in the middle of the cool-down."""
    options = {"max_minutes": 3 / 60, "cooldown_minutes": 2 / 60, "overrides": ("log_every=1",)}
    over = loop_module.Run._over

    def interrupted(self: loop_module.Run, *limits: Any) -> str:
        cooled = self.trainer.step - self.cooldown.start if self.cooldown else 0
        return over(self, *limits) or ("SIGTERM" if cooled == 2 else "")

    monkeypatch.setattr(loop_module.Run, "_over", interrupted)
    first = run(tmp_path, None, **options)
    assert first.reason == "SIGTERM"
    monkeypatch.setattr(loop_module.Run, "_over", over)
    trunk = checkpoint_files(tmp_path)
    capsys.readouterr()
    rest = run(tmp_path, None, resume=True, **options)
    assert (rest.reason, rest.model) == ("cool-down", first.model) and rest.step > first.step
    assert checkpoint_files(tmp_path) == trunk and not checkpoint_files(first.model.parent)
    assert "cool-down" in capsys.readouterr().err
    rates = [line["lr"] for line in read_log(first.model.parent / "log.jsonl")]
    assert (np.diff(rates[5:]) < 0).all() and rates[-1] < 0.2 * 0.002
    # It is finished: once more, and the trunk goes on to a branch of its own.
    later = run(tmp_path, None, resume=True, **options)
    assert later.reason == "cool-down" and later.model != first.model


@pytest.mark.usefixtures("ticking")
def test_a_branch_that_was_killed_at_once_is_known_to_have_begun(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: loop_module.Run, *_: Any) -> str:
        if self.cooldown:
            raise MemoryError
        return "minutes" if self.trainer.step == 2 else ""

    over = loop_module.Run._over
    monkeypatch.setattr(loop_module.Run, "_over", killed)
    options = {"max_minutes": 2 / 60, "cooldown_minutes": 1 / 60}
    with pytest.raises(MemoryError):
        run(tmp_path, None, **options)
    monkeypatch.setattr(loop_module.Run, "_over", over)
    rest = run(tmp_path, None, resume=True, **options)
    assert (rest.reason, rest.model.parent.name) == ("cool-down", "cooldown-000000002")


@pytest.mark.usefixtures("ticking")
def test_a_leg_of_minutes_ends_with_its_cool_down(run: Run, tmp_path: Path) -> None:
    result = run(
        tmp_path, None, max_minutes=4 / 60, cooldown_minutes=2 / 60,
        overrides=("log_every=1", "optimiser.warmup=1"),
    )  # fmt: skip
    trunk_steps = int(checkpoint_files(tmp_path)[0].stem[5:])
    assert result.reason == "cool-down" and result.model.parent.name == f"cooldown-{trunk_steps:09d}"
    lines = read_log(result.model.parent / "log.jsonl")
    rates = np.array([line["lr"] for line in lines])
    assert (np.diff(rates) < 0).all() and rates[0] > 0.9 * 0.002 and rates[-1] < 0.2 * 0.002
    assert lines[-1]["minutes"] < 0.1
    assert {line["lr"] for line in read_log(tmp_path / "log.jsonl")} == {0.002}  # the trunk's
