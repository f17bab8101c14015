"""Functions that the parts of the page share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from html import escape
from typing import Any

import gradio as gr

from ..errors import SkipDiffError

Choice = tuple[Any, ...]


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that its SkipDiffErrors are shown as messages."""

    @wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except SkipDiffError as error:
            raise shown(error) from None

    return wrapped


def shown(error: SkipDiffError) -> Exception:
    """Convert an error to Gradio's form, escaped, since Gradio's messages are HTML."""
    return gr.Error(escape(str(error)), print_exception=False)


def meter(progress: Any, what: str) -> Callable[[int, int], None]:
    """Make a progress bar that counts network calls."""
    return lambda done, total: progress((done, total), desc=what, unit="network calls")
