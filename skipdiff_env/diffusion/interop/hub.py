"""Downloads models from the Hugging Face hub, by ``owner/name``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import SkipDiffError, first_line

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def looks_like_hub_id(name: str) -> bool:
    """Return whether a name could be the id of a model on the hub."""
    return HUB_ID.fullmatch(name) is not None


def fetch(name: str, patterns: Sequence[str], recognised: Callable[[Path], bool]) -> Path:
    """Download a model, unless the hub's own cache holds it already, and return its folder.

    Args:
        name: ``owner/name``.
        patterns: patterns of the files to download.
        recognised: function that returns whether a folder holds a model.

    Raises:
        SkipDiffError: if the download fails or holds no model; the message names the folder from which the
            model would load instead.
    """
    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, allow_patterns=list(patterns)))
    except ImportError:
        why = "the package huggingface_hub is missing: pip install 'skipdiff[diffusers]'"
    except Exception as error:  # no connection, no such name, no permission: the hub has a class for each
        why = first_line(error).rstrip(".")
    else:
        if recognised(folder):
            return folder
        why = "it holds no config.json"
    raise SkipDiffError(
        f"unknown model {name!r}: no such folder, and nothing from the Hugging Face hub ({why}); "
        f"to use it without the hub, put its files into {Path(name).absolute()}"
    )
