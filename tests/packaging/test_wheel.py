"""What the wheel and the source archive hold, and what their metadata promise."""

from __future__ import annotations

import configparser
import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from skipdiff_env._version import __version__

ROOT = Path(__file__).resolve().parents[2]
INDEX_LIMIT = 100_000_000
"""Bytes of a file that a package index takes without being asked."""
PACKAGES = {"skipdiff_env": "skipdiff_env", "agents/skipdiff_agents": "skipdiff_agents"}


@pytest.fixture(scope="module")
def content(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def files(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file()}


def requirement_names(text: str) -> set[str]:
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    names = {re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0] for line in lines if line}
    return {name.lower().replace("_", "-") for name in names}


def test_only_our_names_reach_site_packages(content: set[str]) -> None:
    tops = {name.split("/")[0] for name in content}
    assert tops == {"skipdiff_env", "skipdiff_agents", f"skipdiff-{__version__}.dist-info"}


def test_every_module_is_in_the_wheel(content: set[str]) -> None:
    for folder, package in PACKAGES.items():
        modules = {f"{package}/{name}" for name in files(ROOT / folder, "**/*.py")}
        assert modules <= content
        shipped = {n for n in content if n.startswith(f"{package}/") and n.endswith(".py")}
        assert shipped - modules <= {"skipdiff_env/pretrained/__init__.py"}


def test_models_travel_whole_without_their_sample_pictures(content: set[str]) -> None:
    models = [path.parent.name for path in (ROOT / "pretrained").glob("*/config.json")]
    assert "natural-4x" in models
    for model in models:
        for file in ("config.json", "ddpm.safetensors", "README.md"):
            assert f"skipdiff_env/pretrained/{model}/{file}" in content
    pictures = {n for n in content if Path(n).suffix.lower() in {".png", ".jpg", ".jpeg", ".webp", ".gif"}}
    assert not pictures


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("metrics/weights", "**/*"),
        ("training/recipes", "*.yaml"),
        ("training/held_out", "*.txt"),
        (".", "py.typed"),
    ],
)
def test_data_files_are_in_the_wheel(content: set[str], folder: str, pattern: str) -> None:
    data = files(ROOT / "skipdiff_env" / folder, pattern)
    assert data, f"skipdiff_env/{folder} is empty"
    prefix = "skipdiff_env" if folder == "." else f"skipdiff_env/{folder}"
    assert {f"{prefix}/{name}" for name in data} <= content


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"skipdiff-{__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        commands = configparser.ConfigParser()
        commands.read_string(archive.read(f"{info}/entry_points.txt").decode())
        assert any(name.endswith("/LICENSE") and name.startswith(info) for name in archive.namelist())
    assert (metadata["Name"], metadata["Version"]) == ("skipdiff", __version__)
    assert metadata["Requires-Python"] == ">=3.10"
    assert commands["console_scripts"]["skipdiff"] == "skipdiff_env.cli:main"
    assert metadata.get_payload().startswith("# "), "the README is the long description"


def test_every_package_folder_is_listed(settings: configparser.ConfigParser) -> None:
    listed = set(settings["options"]["packages"].split())
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for folder, package in PACKAGES.items()
        for path in (ROOT / folder).glob("**/__init__.py")
    }
    assert listed == found | {"skipdiff_env.pretrained"}


def test_what_make_installs_is_pinned(settings: configparser.ConfigParser) -> None:
    wanted = requirement_names(settings["options"]["install_requires"])
    (extras,) = re.findall(r"-e '\.\[(.+)\]'", (ROOT / "Makefile").read_text(encoding="utf-8"))
    for extra in extras.split(","):
        wanted |= requirement_names(settings["options.extras_require"][extra])
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert wanted <= requirement_names(constraints)
    assert {"torch", "torchvision"} <= requirement_names(constraints), "they must be pinned as a pair"


def test_a_package_index_would_take_both(dist: Path) -> None:
    both = sorted(dist.iterdir())
    assert [path.name for path in both] == [
        f"skipdiff-{__version__}-py3-none-any.whl", f"skipdiff-{__version__}.tar.gz"
    ]  # fmt: skip
    assert all(path.stat().st_size < INDEX_LIMIT for path in both)
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *both]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout.count("PASSED") == 2, checked.stdout + checked.stderr


def test_the_source_archive_holds_what_builds_the_wheel_and_no_results(dist: Path, content: set[str]) -> None:
    """That it suffices is known already: the wheel was built from it."""
    with tarfile.open(dist / f"skipdiff-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()} - {""}
    folders = {name.partition("/")[0] for name in names if "/" in name} - {"skipdiff.egg-info"}
    assert {"skipdiff_env", "agents", "pretrained"} == folders
    assert {"setup.cfg", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"} <= names
    models = {name for name in content if name.endswith(".safetensors")}
    assert models and len(models) == sum(name.endswith(".safetensors") for name in names)
