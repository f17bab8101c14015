"""Everything that deals with pyiqa itself: importing it, querying it, and building its networks.

pyiqa imports torchvision and OpenCV, prints when it creates a metric, and would download even weights that
are in ``weights/``. None of that is visible outside this module.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch

from skipdiff_env.errors import SkipDiffError, first_line

WEIGHTS = Path(__file__).parent / "weights"
SET_METRICS = ("fid", "sfid", "fid_dinov2", "inception_score")
"""pyiqa's names of metrics that score sets of pictures, not single ones."""

_lock = threading.Lock()  # creating a metric swaps sys.stdout and a torchvision function for a moment


def properties(name: str) -> tuple[bool, bool]:
    """Return the properties (lower_better, reference) of a metric of pyiqa.

    Raises:
        SkipDiffError: if there is no such metric, or it does not score single pictures.
    """
    with _lock:
        import_pyiqa()
        from pyiqa.default_model_configs import DEFAULT_CONFIGS as known
    if name in SET_METRICS:
        raise SkipDiffError(f"metric {name!r} scores sets of pictures, not single ones: use another metric")
    if name not in known:
        close = difflib.get_close_matches(name.lower(), [*known, "niqe-full", "residue", "st-lpips"], n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "pyiqa.list_models() lists the names"
        raise SkipDiffError(f"unknown metric {name!r}: {hint}")
    return bool(known[name].get("lower_better", False)), known[name]["metric_mode"] == "FR"


def create_network(name: str, device: torch.device) -> torch.nn.Module:
    """Create the network of a metric, which maps a batch of pictures in [0, 1], or two batches to compare, to
    scores.

    Raises:
        SkipDiffError: if the network cannot be made; the message says why in one line.
    """
    with _lock, _quiet():
        pyiqa = import_pyiqa()
        try:
            if name == "niqe":
                return _niqe(pyiqa, device)
            if name == "lpips":
                return _lpips(pyiqa, device)
            return pyiqa.create_metric(name, device=device).net
        except Exception as error:
            raise SkipDiffError(_creation_advice(name, error)) from error


def import_pyiqa() -> ModuleType:
    """Import pyiqa; its usual import errors become a SkipDiffError with advice."""
    try:
        with _quiet():
            import pyiqa
            import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise SkipDiffError(_import_advice(error)) from error
    return pyiqa


def _niqe(pyiqa: ModuleType, device: torch.device) -> torch.nn.Module:
    path = _weight_file("niqe_modelparameters.mat")
    return pyiqa.create_metric("niqe", device=device, pretrained_model_path=str(path)).net


def _lpips(pyiqa: ModuleType, device: torch.device) -> torch.nn.Module:
    import torchvision
    from safetensors.torch import load_file

    weights = load_file(_weight_file("lpips_alex.safetensors"))
    alexnet = torchvision.models.alexnet

    def without_weights(**_: Any) -> torch.nn.Module:
        # pyiqa asks for ImageNet weights whatever its options say. The classifier is never used, and on
        # the meta device its 55 million numbers are not even allocated.
        with torch.device("meta"):
            net = alexnet(weights=None)
        net.features.to_empty(device="cpu")
        return net

    with mock.patch.object(torchvision.models, "alexnet", without_weights):
        network = pyiqa.create_metric("lpips", device=device, pretrained=False).net
    network.load_state_dict(weights, strict=True)
    return network


def _weight_file(name: str) -> Path:
    path = WEIGHTS / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: install skipdiff again")
    return path


def _import_advice(error: Exception) -> str:
    text = first_line(error)
    if "torchvision::" in text:
        return (
            f"torchvision does not fit torch {torch.__version__} ({text}): install both from the same place, "
            "e.g. pip install --force-reinstall torch torchvision"
        )
    if "cannot open shared object file" in text:
        return (
            f"OpenCV lacks a system library ({text}): install it (Debian and Ubuntu: apt-get install libgl1 "
            "libglib2.0-0) or pip install --force-reinstall --no-deps opencv-python-headless"
        )
    return f"metrics need pyiqa and torchvision ({text}): pip install pyiqa torchvision"


def _creation_advice(name: str, error: Exception) -> str:
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, FileNotFoundError):
        return first_line(error)
    if isinstance(error, ImportError):
        return f"metric {name!r} needs a package that is not installed: {first_line(error)}"
    if any(isinstance(cause, OSError) for cause in causes):
        return (
            f"the weights of metric {name!r} could not be downloaded ({first_line(error)}): connect to a "
            "network once, or use niqe, niqe-full, lpips, psnr, ssim or residue, which need no download"
        )
    return f"metric {name!r} could not be made: {first_line(error)}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide prints, log lines and warnings, and leave the caller's random generators alone."""
    logger = logging.getLogger("pyiqa")
    level, numpy_state = logger.level, np.random.get_state()
    logger.setLevel(logging.ERROR)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        np.random.set_state(numpy_state)
