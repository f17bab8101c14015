"""Short training runs side by side, on the tiny recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.__main__ import main
from benchmarks.training import side_by_side
from benchmarks.training.side_by_side import Short
from skipdiff_env import SkipDiffError

VARIANT = "min-SNR weights, γ = 5"


def test_variants_are_trained_once_and_measured(image_folder, tmp_path, capsys):
    arguments = [
        "recipes", "--recipe", "tiny", "--data", str(image_folder), "--val", str(image_folder),
        "--minutes", "0.2", "--only", "as it is", VARIANT, "--set", "model.image_size=64", "--limit", "1",
        "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(arguments) == 0
    file = tmp_path / "out" / "tiny" / "recipes.md"
    text = file.read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0].split(":")[0] for row in rows[1:]] == [
        "| bicubic",
        *2 * ["| as it is"],
        *2 * [f"| {VARIANT}"],
    ]
    assert all(int(row[1]) > 0 for row in rows[2:]) and "0.2 minutes each" in text
    assert "Made by `python -m benchmarks recipes --recipe tiny --data" in text
    trained = sorted(tmp_path.glob("runs/tiny/0.2-minutes/*/ddpm.safetensors"))
    assert len(trained) == 2 and trained[0].read_bytes() != trained[1].read_bytes()
    stamps = [path.stat().st_mtime_ns for path in trained]
    assert main(arguments) == 0
    assert file.read_text() == text and [path.stat().st_mtime_ns for path in trained] == stamps


def test_other_settings_train_another_model(model_folder, tmp_path, monkeypatch):
    """Everything that decides what is trained is in the folder's name; a copy that broke off is no model."""
    trained: list[tuple[str, ...]] = []

    class Result:
        reason, model = "cool-down", tmp_path / "model"

    def train(*_, overrides, **__):
        trained.append(tuple(overrides))
        return Result

    Result.model.mkdir()
    (Result.model / "weights").write_text("w")
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"1")
    monkeypatch.setattr(side_by_side, "train", train)
    usual = Short("tiny", (), [str(data)], 1.0, "cpu")

    def folder(name="as it is", **changed):
        return replace(usual, **changed).trained(name, tmp_path)

    first = folder()
    assert folder() == first and len(trained) == 1
    found = {first, folder(changes=("batch=3",)), folder(minutes=2.0), folder(name=VARIANT)}
    found |= {folder(init=str(model_folder))}
    student = {"recipe": "addsr-natural-4x", "program": "addsr", "init": str(model_folder)}
    found |= {folder(**student), folder(**student, changes=("addsr.adaptive=false",))}
    (data / "a.png").write_bytes(b"12")
    found.add(folder())
    assert len(found) == len(trained) == 8 and all((path / "weights").is_file() for path in found)

    def broken(source, target):
        target.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side.shutil, "copytree", broken)
    with pytest.raises(KeyboardInterrupt):
        folder(changes=("batch=2",))
    monkeypatch.undo()
    monkeypatch.setattr(side_by_side, "train", train)
    assert (folder(changes=("batch=2",)) / "weights").is_file() and len(trained) == 10
    Result.reason = "SIGTERM"
    with pytest.raises(SkipDiffError, match="'as it is' ended early .SIGTERM.: start the command again"):
        folder(changes=("batch=5",))


def test_an_unknown_variant_is_named(image_folder, tmp_path, capsys):
    arguments = ["recipes", "--data", "x", "--val", str(image_folder), "--only", "none"]
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: unknown variant 'none': use some of as it is, noise")


@pytest.mark.parametrize("name", ["natural-4x", "face-8x"])
def test_every_variant_is_a_recipe(name):
    from benchmarks.training.recipes import VARIANTS
    from skipdiff_env.training import load_recipe

    base = load_recipe(name)
    for variant, overrides in VARIANTS.items():
        assert (load_recipe(name, overrides=overrides) == base) == (not overrides), variant
