"""``--model auto``: the model goes by what is measured of the photograph, where there is one to choose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skipdiff_env.chains import Plan
from skipdiff_env.chains.shipped import save_plans
from skipdiff_env.cli import main
from skipdiff_env.cli import upscale as command
from skipdiff_env.diffusion import pretrained, random_model, save_model, tiny_config
from skipdiff_env.diffusion.folder import CONFIG, PLANS, write_config
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.formats.coding import Coding
from skipdiff_env.images.formats.metadata import read_record
from skipdiff_env.images.measure import Measured
from skipdiff_env.images.photo import read_photo
from skipdiff_env.upscale import choose_model
from skipdiff_env.upscale.choice import (
    RULE,
    Range,
    Rule,
    beyond,
    described,
    read_rule,
    rule_text,
    trained_range,
)

from .conftest import FAST, UNET, Ran

MEANT = rule_text(Rule(jpeg=90, webp=80, noise=3, blur=0.8), {})
CLEAN = Measured(noise=1.2, blur=0.5)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped models: ``natural-4x`` and ``natural-4x-real``, without a rule yet."""
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
    (shipped / "natural-4x-real" / RULE).write_bytes(MEANT)
    out = tmp_path / "out"
    ran = upscale(capfd, album, "-o", out, "--json", "--jobs", "2", "--compare")
    assert (ran.status, ran.err) == (0, "")
    used = {Path(entry["input"]).name: entry["model"] for entry in ran.json}
    notes = {Path(entry["input"]).name: entry["notes"] for entry in ran.json}
    assert notes["a.jpg"] == ["looks like JPEG quality 75: enlarged by natural-4x-real"]
    assert notes["b.png"] == ["shows too few pixels to be measured: enlarged by natural-4x"]
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
    (shipped / "natural-4x-real" / RULE).write_bytes(MEANT)
    assert upscale(capfd, album / "b.png", "-o", tmp_path / "b.png").status == 0
    assert upscale(capfd, album / "a.jpg", "-o", tmp_path / "a.jpg", "-n").status == 0
    assert opened == ["natural-4x", "natural-4x-real"]


@pytest.mark.parametrize(
    ("seen", "real"),
    [
        (CLEAN, False),
        (Measured(3.0, 0.5), True),
        (Measured(1.0, 0.8), True),
        (Measured(1.0, 0.5, Coding("JPEG", 89)), True),
        (Measured(1.0, 0.5, Coding("JPEG", 89, ""), former=True), True),
        (Measured(1.0, 0.5, Coding("JPEG", 90)), False),
        (Measured(1.0, 0.5, Coding("WebP", 85)), False),
        (Measured(1.0, 0.5, Coding("WebP", 79)), True),
        (Measured(1.0, 0.5, Coding("WebP", None, ""), former=True), False),
        (Measured(None, None, Coding("JPEG", 89)), True),
        (Measured(None, None), False),
    ],
)
def test_any_fault_beyond_its_threshold_decides(shipped: Path, seen: Measured, real: bool) -> None:
    (shipped / "natural-4x-real" / RULE).write_bytes(MEANT)
    chosen = choose_model("auto", lambda: seen)
    assert chosen.model == ("natural-4x-real" if real else "natural-4x")
    assert chosen.notes == (f"{described(seen)}: enlarged by {chosen.model}",)


def test_nothing_is_measured_where_there_is_no_choice(shipped: Path) -> None:
    def never() -> Measured:
        raise AssertionError("nobody asked")

    assert choose_model("auto", never).model == "natural-4x", "there is no rule"
    (shipped / "natural-4x-real" / RULE).write_bytes(MEANT)
    assert choose_model("natural-4x", never) == choose_model("natural-4x", never)
    (shipped / "natural-4x-real").rename(shipped.parent / "elsewhere")
    assert choose_model("auto", never).model == "natural-4x"


def test_what_was_seen_in_words() -> None:
    assert described(CLEAN) == "looks clean"
    faulty = Measured(4.2, 1.23, Coding("JPEG", 60))
    assert described(faulty) == "looks like JPEG quality 60, noise 4.2, blur 1.23 pixels"
    former = Measured(1.0, 0.5, Coding("JPEG", 60, ""), former=True)
    assert described(former) == "looks like JPEG quality 60 in an earlier file"
    webp = Measured(1.0, 0.5, Coding("WebP", None, ""), former=True)
    assert described(webp) == "looks like a lossy WebP in an earlier file"
    assert described(Measured(None, None)) == "shows too few pixels to be measured"
    trained = Range(jpeg=30, webp=40, noise=20, blur=2)
    assert beyond(webp, trained) == beyond(Measured(None, None), trained) == []
    assert beyond(faulty, trained) == []
    low, loud, soft = beyond(Measured(31, 2.6, Coding("WebP", 12)), trained)
    assert low == (
        "WebP quality 12 is below what natural-4x-real was trained on (40 and more): "
        "some of the damage will remain"
    )
    assert (
        loud == "noise 31.0 is more than natural-4x-real was trained on (20): some of the damage will remain"
    )
    assert (
        soft == "blur 2.60 pixels is more than natural-4x-real was trained on (2): shrink the picture first"
    )


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rule": {"jpeg": 1}}', MEANT.decode().replace("90", '"90"')]
)
def test_a_damaged_rule_is_named(shipped: Path, text: str) -> None:
    file = shipped / "natural-4x-real" / RULE
    file.write_text(text)
    with pytest.raises(SkipDiffError, match=r"auto\.json holds no rule for --model auto: name a model"):
        choose_model("auto", lambda: CLEAN)
    file.write_bytes(MEANT)
    assert read_rule(file) == Rule(90, 80, 3, 0.8)


def test_warnings_go_by_the_models_own_record(shipped: Path) -> None:
    folder = shipped / "natural-4x-real"
    (folder / RULE).write_bytes(MEANT)
    before = pretrained.load_pretrained(folder, "cpu")
    assert trained_range(before.config) is None
    loud = Measured(noise=9, blur=0.5)
    assert choose_model("auto", lambda: loud).notes == ("looks like noise 9.0: enlarged by natural-4x-real",)
    for highest in (8, 20):
        faults = {"jpeg": [40, 95], "noise": [0.5, highest], "blur": [0.2, 0.9]}
        write_config(folder / CONFIG, replace(before.config, training={"degradation": faults}))
        assert pretrained.load_pretrained(folder, "cpu").hash == before.hash
        _, *warnings = choose_model("auto", lambda: loud).notes
        told = "noise 9.0 is more than natural-4x-real was trained on (8): some of the damage will remain"
        assert warnings == ([told] if highest == 8 else [])
        for named in ("natural-4x-real", str(folder)):
            assert choose_model(named, lambda: loud).notes == tuple(warnings), "it is not auto's alone"
    webp = Measured(1, 0.5, Coding("WebP", 35))
    assert len(beyond(webp, Range(jpeg=40, webp=40, noise=8, blur=1))) == 1
    assert beyond(webp, Range(jpeg=40, webp=30, noise=8, blur=1)) == []
    assert trained_range(pretrained.load_pretrained(folder, "cpu").config) == Range(40, None, 20, 0.9)
    assert beyond(webp, Range(jpeg=40, webp=None, noise=8, blur=1)) == [], "JPEG's qualities are others"


def test_notes_name_the_reason_and_only_what_they_show(shipped: Path) -> None:
    folder = shipped / "natural-4x-real"
    (folder / RULE).write_bytes(rule_text(Rule(jpeg=90, webp=0, noise=6.63, blur=0.64), {}))
    config = pretrained.load_pretrained(folder, "cpu").config
    faults = {"jpeg": [40, 95], "webp": [50, 95], "noise": [0.5, 8], "blur": [0.2, 0.9]}
    write_config(folder / CONFIG, replace(config, training={"degradation": faults}))

    def notes(*seen: Any) -> tuple[str, ...]:
        return choose_model("auto", lambda: Measured(*seen)).notes

    assert notes(0.5, 0.645) == ("looks like blur 0.65 pixels: enlarged by natural-4x-real",)
    assert notes(0.5, 0.641) == ("looks like blur 0.64 pixels: enlarged by natural-4x-real",)
    assert notes(0.5, 0.639) == ("looks clean: enlarged by natural-4x",)
    assert notes(8.04, 0.3) == ("looks like noise 8.0: enlarged by natural-4x-real",)
    assert notes(8.06, 0.3)[1].startswith("noise 8.1 is more than natural-4x-real was trained on (8)")
    assert notes(0.5, 0.903) == ("looks like blur 0.90 pixels: enlarged by natural-4x-real",)
    # of the model that is not taken there is nothing to say
    assert notes(0.5, 0.3, Coding("WebP", 20)) == ("looks like WebP quality 20: enlarged by natural-4x",)
    _, warning = notes(7, 0.3, Coding("WebP", 20))
    assert warning.startswith("WebP quality 20 is below what natural-4x-real was trained on (50 and more)")


def test_a_plan_that_one_of_the_models_lacks_costs_its_photographs_alone(
    shipped: Path, tmp_path: Path, album: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (shipped / "natural-4x-real" / RULE).write_bytes(MEANT)
    usual = pretrained.load_pretrained("natural-4x", "cpu")
    save_plans(shipped / "natural-4x" / PLANS, usual.hash, {Plan.read("100>50>0"): {}}, {})
    out = tmp_path / "out"
    status = main(["upscale", str(album), "-o", str(out), "--policy", "plan:2"])
    errors = capfd.readouterr().err
    lacking = "'natural-4x-real' has no plans: name another model, or write a plan like '100>26|20>0'"
    assert status == 2 and errors.count(lacking) == 2
    assert all(f"{album / name}: {lacking}" in errors for name in ("a.jpg", "c.png"))
    assert [file.name for file in out.iterdir()] == ["b.png"]
    status = main(["upscale", str(album), "-o", str(out), "--policy", "plan:2", "-m", "natural-4x-real"])
    assert status == 2 and capfd.readouterr().err == f"skipdiff: error: {lacking}\n"
    status = main(["upscale", str(album), "-o", str(out), "--policy", "plan:3"])  # which none has
    assert status == 2 and capfd.readouterr().err.count("no plan") == 1


@pytest.mark.parametrize(
    "faults", [None, [], {"jpeg": [40, 95]}, {"jpeg": [], "noise": [], "blur": []},
               {"jpeg": ["low", 95], "noise": [0, 8], "blur": [0, 1]}],
)  # fmt: skip
def test_a_record_without_a_range_warns_of_nothing(faults: object) -> None:
    assert trained_range(tiny_config(training={"degradation": faults})) is None


def test_the_model_that_ships_tells_its_range() -> None:
    config = pretrained.load_pretrained("natural-4x-real", "cpu").config
    assert trained_range(config) is not None


def test_a_photograph_that_cannot_be_measured_is_one_failure(
    shipped: Path, album: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (shipped / "natural-4x-real" / RULE).write_bytes(MEANT)
    (album / "d.png").write_bytes((album / "b.png").read_bytes()[:-90])
    ran = upscale(capfd, album, "-o", tmp_path / "out", "--json")
    assert ran.status == 2 and "d.png: is damaged or truncated" in ran.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "b.png", "c.jpg"]
