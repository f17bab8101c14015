"""Durations in words."""

from __future__ import annotations

import pytest

from skipdiff_env.progress import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.3, "0.3 s"),
        (9.96, "10 s"),
        (89, "89 s"),
        (91, "2 min"),
        (5390, "90 min"),
        (5410, "1.5 h"),
        (7201, "2.0 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
