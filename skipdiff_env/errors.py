"""The errors that SkipDiff raises on purpose: one line each, saying what is wrong and what to do."""

from __future__ import annotations

import operator
import re
from typing import Any

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that make a terminal do something, or turn the direction of writing."""


def visible(text: str) -> str:
    """A text from elsewhere, such as a file's name, on one line; what terminals obey is escaped."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """The same with single spaces for white space, also fit for a terminal."""
    return visible(" ".join(text.split()))


class SkipDiffError(ValueError):
    """A request that cannot be carried out; the message says what is wrong, where, and what to do."""


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A value as an integer; what is none, a truth value, or out of range is refused by name."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise SkipDiffError(f"{name}={value!r} must be a whole number {bounds}")
    return number


def fraction(name: str, value: Any) -> float:
    """A value as a number from 0 to 1; anything else is refused by name."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool | str) or not 0 <= number <= 1:
        raise SkipDiffError(f"{name}={value!r} must be a number from 0 to 1")
    return number
