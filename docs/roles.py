"""A Griffe extension: roles of docstrings, such as :func:`skipdiff_env.find_optimum`, become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`[~.]*(?P<name>[^`]+)`")


class Roles(griffe.Extension):
    """Rewrites every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called once for each module, class, function and attribute."""
        if obj.docstring:
            text = ROLE.sub(r"`\g<name>`", obj.docstring.value)
            obj.docstring.value = re.sub(r"``([^`\n]+)``", r"`\1`", text)
