"""``--model auto``: the model goes by the photograph's format, where there is one to choose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skipdiff_env.cli import main
from skipdiff_env.cli import upscale as command
from skipdiff_env.diffusion import pretrained, random_model, save_model, tiny_config
from skipdiff_env.diffusion.folder import CARD
from skipdiff_env.images.metadata import read_record
from skipdiff_env.images.photo import read_photo
from skipdiff_env.upscale import choose_model

from .conftest import FAST, UNET, Ran

MEANT = "---\nauto: jpeg\n---\n# A model for JPEGs\n"


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models: ``natural-4x`` and ``natural-4x-real``, whose card says nothing yet."""
    for seed, name in enumerate(("natural-4x", "natural-4x-real")):
        config = tiny_config(unet=UNET)
        save_model(tmp_path / "shipped" / name, random_model(config, seed).network, config)
    monkeypatch.setattr(pretrained, "pretrained_folder", lambda: tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.fixture
def album(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (10, 14, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in" / "a.jpg")
    Image.fromarray(pixels).save(tmp_path / "in" / "b.png")
    Image.fromarray(pixels).save(tmp_path / "in" / "c.png", "JPEG")  # the content decides, not the name
    return tmp_path / "in"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that a command opened, in order."""
    names: list[str] = []
    before = command._enlarger

    def spy(args: object, name: str, *rest: object) -> object:
        names.append(name)
        return before(args, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "_enlarger", spy)
    return names


def upscale(capfd: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    status = main(["upscale", *map(str, arguments), *FAST])
    return Ran(status, *capfd.readouterr())


def test_jpegs_get_the_model_that_is_meant_for_them(
    shipped: Path, album: Path, opened: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (shipped / "natural-4x-real" / CARD).write_text(MEANT)
    out = tmp_path / "out"
    ran = upscale(capfd, album, "-o", out, "--json", "--jobs", "2", "--compare")
    assert (ran.status, ran.err) == (0, "")
    used = {Path(entry["input"]).name: entry["model"] for entry in ran.json}
    assert used == {"a.jpg": "natural-4x-real", "b.png": "natural-4x", "c.png": "natural-4x-real"}
    assert sorted(opened) == ["natural-4x", "natural-4x-real"]  # once each
    for name in ("a.jpg", "b.png"):
        record = read_record(read_photo(out / name).metadata)
        assert record is not None and record["model"] == used[name]
    # what auto means is what the model's own name means
    alone = upscale(capfd, album / "a.jpg", "-o", tmp_path / "alone.jpg", "--model", "natural-4x-real")
    assert alone.status == 0 and (tmp_path / "alone.jpg").read_bytes() == (out / "a.jpg").read_bytes()
    again = upscale(capfd, album, "-o", out, "--resume", "--compare")
    assert again.out.count("is there already") == 3
    told = upscale(capfd, album, "-o", out, "--resume", "--model", "natural-4x")
    assert told.status == 2 and told.err.count("was made with other settings") == 2
    (out / "c.jpg").unlink()  # a JPEG keeps its format
    assert upscale(capfd, album, "-o", out, "--resume", "--json").json[-1]["model"] == "natural-4x-real"


def test_a_model_is_opened_when_it_is_needed(
    shipped: Path, album: Path, opened: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (shipped / "natural-4x-real" / CARD).write_text(MEANT)
    assert upscale(capfd, album / "b.png", "-o", tmp_path / "b.png").status == 0
    assert upscale(capfd, album / "a.jpg", "-o", tmp_path / "a.jpg", "-n").status == 0
    assert opened == ["natural-4x", "natural-4x-real"]


@pytest.mark.parametrize("card", ["", "# auto: jpeg\n", "---\nauto: png\n---\n", "---\nnotice: x\n---\n"])
def test_a_card_that_does_not_say_so_changes_nothing(shipped: Path, card: str) -> None:
    (shipped / "natural-4x-real" / CARD).write_text(card)
    assert choose_model("auto", "jpeg") == "natural-4x"


def test_what_ships_decides(shipped: Path) -> None:
    (shipped / "natural-4x-real" / CARD).write_text(MEANT)
    assert [choose_model("auto", f) for f in ("jpeg", "png")] == ["natural-4x-real", "natural-4x"]
    assert choose_model("natural-4x", "jpeg") == "natural-4x"
    (shipped / "natural-4x-real").rename(shipped.parent / "elsewhere")
    assert choose_model("auto", "jpeg") == "natural-4x"
