"""The package as users get it: a wheel, an editable install and the bare source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("skipdiff_env", "agents", "pretrained")
BESIDE = ("benchmarks", "docs", "tests")
"""What does not ship, though a source archive could take it along."""
BUILD_FILES = (
    "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff",
    "constraints.txt",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Somewhere SkipDiff can be used from."""

    python: Path
    """The interpreter."""
    folder: Path
    """The current folder of what it runs."""
    code: Path
    """Where the package's files must come from."""

    def run(self, *arguments: object) -> str:
        """Run the interpreter to its end and return what it printed; fail with what it complained about.

        One thread, and nothing of this process's own import path.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(
            [str(self.python), *map(str, arguments)],
            cwd=self.folder,
            env={**inherited, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def pip(self, *arguments: object) -> None:
        """Build or install with the libraries at hand, without the network."""
        self.run("-m", "pip", "--disable-pip-version-check", *arguments, "--no-deps")


def separate_python(folder: Path) -> Path:
    """A virtual environment that sees this one's libraries, but no SkipDiff installed beside them.

    A path file adds the libraries; path files among them, such as an editable install's, are not read.
    """
    venv.create(folder, symlinks=True)
    (libraries,) = folder.glob("lib/python*/site-packages")
    parents = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (libraries / "parent.pth").write_text("\n".join(parents) + "\n")
    return folder / "bin" / "python"


def copy_source(target: Path, *more: str) -> Path:
    """Copy what ships, and more: building leaves files behind, and would find those of earlier builds."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in (*SHIPPED, *more):
        shutil.copytree(ROOT / name, target / name, ignore=ignore)
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="session")
def checkout() -> Place:
    """This very checkout, with the interpreter of the tests."""
    return Place(Path(sys.executable), ROOT, ROOT)


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes: a folder with the source archive, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    tree = copy_source(folder / "tree", *BESIDE)
    place = Place(Path(sys.executable), folder, tree)
    place.run("-m", "build", "--no-isolation", "--outdir", folder / "dist", tree)
    return folder / "dist"


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    """The built wheel."""
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def from_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The wheel, installed."""
    base = tmp_path_factory.mktemp("from_wheel")
    python = separate_python(base / "venv")
    (base / "elsewhere").mkdir()
    place = Place(python, base / "elsewhere", base / "venv" / "lib")
    place.pip("install", "--ignore-installed", wheel)
    return place


@pytest.fixture(scope="session")
def from_editable(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """`pip install -e`."""
    base = tmp_path_factory.mktemp("from_editable")
    python, tree = separate_python(base / "venv"), copy_source(base / "tree")
    (base / "elsewhere").mkdir()
    place = Place(python, base / "elsewhere", tree)
    place.pip("install", "--ignore-installed", "--no-build-isolation", "-e", tree)
    return place


@pytest.fixture(scope="session")
def from_source(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A source tree, not installed at all."""
    base = tmp_path_factory.mktemp("from_source")
    tree = copy_source(base / "tree")
    return Place(separate_python(base / "venv"), tree, tree)
