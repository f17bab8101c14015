"""``python -m benchmarks photographs``, with packages as Debian's that hold a picture each."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.paper.gather import KDE, MATE
from skipdiff_env.images import PHOTOGRAPHS, open_source

APT = """#!/bin/sh
test "$1" = download || exit 1
test -d {folder}/$2 || {{ echo "E: Unable to locate package $2" >&2; exit 100; }}
dpkg-deb -b {folder}/$2 . > /dev/null
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """An ``apt-get`` that knows two packages."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    pixels = np.random.default_rng(0).integers(0, 256, (320, 512, 3), dtype=np.uint8)
    for package, file in (
        (MATE, "backgrounds/mate/nature/Dune.jpg"),
        (KDE, "wallpapers/Kite/contents/images/512x320.jpg"),
    ):
        file = tmp_path / package / "usr" / "share" / file
        file.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(file)
        control = tmp_path / package / "DEBIAN" / "control"
        control.parent.mkdir()
        control.write_text(
            f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
        )
    about = {"KPlugin": {"Authors": [{"Name": "R. S."}], "License": "LGPLv3"}}
    (file.parents[2] / "metadata.json").write_text(json.dumps(about))
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "apt-get"
    script.write_text(APT.format(folder=tmp_path))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_photographs_and_whose_they_are(packages, capsys):
    out = packages / "out"
    assert main(["photographs", "--out", str(out)]) == 0
    count = len(PHOTOGRAPHS) + 2
    assert f"{count} photographs" in capsys.readouterr().out
    source = open_source(out)
    assert len(source) == count and all(min(image.shape[:2]) == 256 for image in source)
    told = (out / "SOURCES.md").read_text()
    for photo in PHOTOGRAPHS:
        assert f"| {photo.name}.png | {photo.author} | {photo.licence} | {photo.package}" in told
    assert f"| Dune.png | Marco Cogoni, Hylke Bons | GPL-2+ | Debian's {MATE} |" in told
    assert f"| Kite.png | R. S. | LGPLv3 | Debian's {KDE} |" in told


def test_what_cannot_be_had_leaves_nothing(packages, monkeypatch, capsys):
    out = packages / "out"
    shutil.rmtree(packages / KDE)
    assert main(["photographs", "--out", str(out)]) == 2
    assert f"{KDE} cannot be downloaded (E: Unable to locate package {KDE})" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(packages))
    assert main(["photographs", "--out", str(out)]) == 2
    assert "apt-get is missing: this needs Debian or Ubuntu" in capsys.readouterr().err
    assert not out.exists()
