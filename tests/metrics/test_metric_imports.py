"""In processes of their own: what importing costs, working without a network, advice for broken installs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

NO_NETWORK = """
import socket
def refuse(*arguments, **options):
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def python(code: str, *path: Path, **environment: str) -> str:
    """Run code in a fresh interpreter; what it printed on both streams."""
    search = os.pathsep.join(map(str, (*path, ROOT)))
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1", **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout.strip()


def test_import_and_load_are_cheap() -> None:
    heavy = {"pyiqa", "torchvision", "scipy", "skimage", "transformers", "timm"}
    code = f"""
        import sys
        from skipdiff_env.metrics import load_metric
        print(sorted({heavy} & set(sys.modules)))
        for name in ("niqe", "niqe-full", "lpips", "psnr", "ssim"):
            load_metric(name).check_size(200, 200)
        print(sorted({heavy} & set(sys.modules)))
    """
    assert python(code) == "[]\n[]"


def test_what_is_on_board_needs_no_network_and_prints_nothing(tmp_path: Path) -> None:
    code = (
        NO_NETWORK
        + """
import logging, numpy as np
logging.basicConfig(level=logging.INFO)
from skipdiff_env.metrics import load_metric
images = np.random.default_rng(0).integers(0, 256, (2, 200, 200, 3), np.uint8)
for name in ("niqe", "niqe-full", "lpips", "psnr", "ssim"):
    assert np.isfinite(load_metric(name)(images, images[::-1])).all(), name
    """
    )
    assert python(code, HOME=str(tmp_path), TORCH_HOME=str(tmp_path), HF_HOME=str(tmp_path)) == ""


def test_weights_that_cannot_be_downloaded_are_one_line(tmp_path: Path) -> None:
    code = (
        NO_NETWORK
        + """
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics import load_metric
for name in ("brisque", "musiq", "dbcnn"):
    try:
        load_metric(name)
    except SkipDiffError as error:
        print(error)
"""
    )
    lines = python(code, HOME=str(tmp_path), TORCH_HOME=str(tmp_path), HF_HOME=str(tmp_path)).splitlines()
    assert len(lines) == 3
    for name, line in zip(("brisque", "musiq", "dbcnn"), lines, strict=True):
        assert line.startswith(f"the weights of metric '{name}' could not be downloaded (")
        assert "no network in this test" in line and line.endswith("which need no download")


def advice(package: Path, statement: str) -> str:
    """What the first NIQE score says if a package raises at its import."""
    package.mkdir()
    (package / "__init__.py").write_text(statement)
    code = """
        import numpy as np
        from skipdiff_env.errors import SkipDiffError
        from skipdiff_env.metrics import load_metric
        try:
            load_metric("niqe")(np.zeros((1, 96, 96, 3), np.uint8))
        except SkipDiffError as error:
            print(error)
    """
    line = python(code, package.parent)
    assert "\n" not in line
    return line


def test_a_torchvision_that_does_not_fit_is_advice(tmp_path: Path) -> None:
    line = advice(tmp_path / "torchvision", "raise RuntimeError('operator torchvision::nms does not exist')")
    assert line.startswith("torchvision does not fit torch ") and "torchvision::nms does not exist" in line
    assert line.endswith("pip install --force-reinstall torch torchvision")


def test_a_missing_system_library_is_advice(tmp_path: Path) -> None:
    text = "libGL.so.1: cannot open shared object file: No such file or directory"
    line = advice(tmp_path / "cv2", f"raise ImportError({text!r})")
    assert line.startswith("OpenCV lacks a system library (libGL.so.1") and "apt-get install libgl1" in line


def test_a_missing_package_is_advice(tmp_path: Path) -> None:
    line = advice(tmp_path / "pyiqa", "raise ModuleNotFoundError(\"No module named 'pyiqa'\")")
    assert (
        line == "metrics need pyiqa and torchvision (No module named 'pyiqa'): pip install pyiqa torchvision"
    )
