"""Models from the Hugging Face hub, by ``owner/name``, where the network allows."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from ...errors import SkipDiffError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def looks_like_hub_id(name: str) -> bool:
    """Whether a name that is no folder could be a model's on the hub."""
    return HUB_ID.fullmatch(name) is not None


@lru_cache
def fetch(name: str) -> Path:
    """Download a model, unless the hub's own cache holds it already, and return its folder.

    Args:
        name: ``owner/name``.

    Raises:
        SkipDiffError: if that fails, naming the folder from which the model would load instead.
    """
    from ..pretrained import ABOUT_POLICY, CARD, CONFIG, DIFFUSERS_INDEX, FILES, POLICY

    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, allow_patterns=[*FILES, CARD, POLICY, ABOUT_POLICY]))
    except ImportError:
        why = "the package huggingface_hub is missing: pip install 'skipdiff[diffusers]'"
    except Exception as error:  # without a network, a name, a permission: the hub has a class for each
        why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    else:
        if (folder / CONFIG).is_file() or (folder / DIFFUSERS_INDEX).is_file():
            return folder
        why = f"it holds no {CONFIG}"
    raise SkipDiffError(
        f"unknown model {name!r}: no such folder, and nothing from the Hugging Face hub ({why}); "
        f"to use it without the hub, put its files into {Path(name).absolute()}"
    )
