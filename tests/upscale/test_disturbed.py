"""Runs that are ended by a signal at a random moment and resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_ended_at_any_moment_and_resumed_gives_the_same_bytes_and_leaves_nothing() -> None:
    """The rounds take a process of their own: one that has run other threads cannot be forked safely."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.upscale.disturb", str(ROUNDS), "3"],
        cwd=Path(__file__).resolve().parents[2], env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == ROUNDS
