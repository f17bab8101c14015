"""The error that SkipDiff raises for invalid requests, and checks that raise it. Each message is one line
that says what is wrong and, unless that is plain, what to do."""

from __future__ import annotations

import math
import operator
import re
from typing import Any

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that control a terminal, break lines or change the direction of the text."""


def visible(text: str) -> str:
    """Escape the control characters in text from outside, such as a file name, so that it stays on one
    line."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Escape control characters as :func:`visible` does, and replace every run of white space with one
    space."""
    return visible(" ".join(text.split()))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of the error's class if the message is
    empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class SkipDiffError(ValueError):
    """A request that cannot be carried out; the message says what is wrong, where, and, unless that is plain,
    what to do."""


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a value as an integer. If it is a bool, not of an integer type or out of range, raise an error
    that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise SkipDiffError(f"{name}={value!r} must be a whole number {bounds}")
    return number


def not_negative(name: str, value: Any) -> float:
    """Return a value, such as a price, as a finite number of at least 0, or raise an error that names it."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if isinstance(value, bool | str) or not 0 <= number < math.inf:
        raise SkipDiffError(f"{name}={value!r} must be a finite number, 0 or more")
    return number


def fraction(name: str, value: Any) -> float:
    """Return a value as a number from 0 to 1, or raise an error that names it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool | str) or not 0 <= number <= 1:
        raise SkipDiffError(f"{name}={value!r} must be a number from 0 to 1")
    return number
