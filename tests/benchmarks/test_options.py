"""What ``paper`` and ``stability`` are told: which images, as JPEG or not, and models that do not fit."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.measure import options
from benchmarks.measure.evaluate import image_name
from benchmarks.measure.options import (
    command_line,
    folder_name,
    made_by,
    open_images,
    said,
    trained_rivals,
)
from benchmarks.paper import command, cost
from benchmarks.paper.parts import Subject
from skipdiff_env import SkipDiffError
from skipdiff_env.diffusion import FrozenModel, NoiseSchedule, random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model
from skipdiff_env.images import make_pair


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args([*words])


def test_images_are_chosen_by_name(image_folder):
    words = ("--images", str(image_folder), "--only", "photo1")
    source = open_images(parsed(*words))
    assert [source.name(i) for i in range(len(source))] == ["photo1.png"]
    assert np.array_equal(source[0], open_images(parsed(*words[:2]))[1])
    assert folder_name(parsed(*words)) == f"{image_folder.name}-photo1"
    with pytest.raises(
        SkipDiffError, match="--only x: no image's name begins with that; the first is named photo0.png"
    ):
        open_images(parsed(*words[:3], "x"))


def test_inputs_are_saved_as_jpeg(image_folder):
    """Of that quality; the original stays, and rows of both kinds have keys of their own."""
    plain, jpeg = (
        make_pair(open_images(parsed("--images", str(image_folder), *more)), 1, scale=4)
        for more in ((), ("--jpeg", "75"))
    )
    file = io.BytesIO()
    Image.fromarray(plain.lr).save(file, "JPEG", quality=75)
    assert np.array_equal(jpeg.lr, np.array(Image.open(file))) and np.array_equal(jpeg.hr, plain.hr)
    assert image_name(jpeg) != image_name(plain)
    args = parsed("--images", "a/faces.tar", "--only", "ffhq_", "--jpeg", "75")
    assert folder_name(args) == "faces-ffhq-q75"
    assert said(args) == "faces, names that begin with ffhq_, inputs saved as JPEG of quality 75"
    with pytest.raises(SkipDiffError, match="--jpeg 0: the quality must be from 1 to 100"):
        open_images(parsed("--images", str(image_folder), "--jpeg", "0"))


def test_the_command_is_said_with_every_option_and_no_folder():
    words = (
        "--model /x/tiny --images /y/z.tar --limit 3 --jpeg 75 --start 4 --agent NIQE=/p/a.safetensors "
        "--ccsr /m/c --device cpu --tables 5 ablation --quick --variants /v/one /v/two "
        "--variant-images 2"
    )
    found = command_line("paper", parsed(*words.split(), "--out", "/o"), command.add_arguments)
    expected = (
        words.replace("/x/", "").replace("/y/", "").replace("/p/", "").replace("/m/", "").replace("/v/", "")
    )
    assert found.split()[:4] == ["python", "-m", "benchmarks", "paper"]
    assert sorted(found.split()[4:]) == sorted(expected.split())
    again = argparse.ArgumentParser()
    command.add_arguments(again)
    assert again.parse_args(found.split()[4:]).tables == ["5", "ablation"]


def test_required_and_listed_options_are_said_and_folders_of_work_are_not():
    texture = pytest.importorskip("benchmarks.agents.texture")
    parser = argparse.ArgumentParser()
    texture.add_arguments(parser)
    words = "--model face-8x --images a.tar --valid v.tar --test t.tar --agent one two --mixed --runs /r"
    args = parser.parse_args(words.split())
    found = command_line("texture", args, texture.add_arguments)
    assert found.split()[:4] == ["python", "-m", "benchmarks", "texture"]
    assert vars(parser.parse_args(found.split()[4:])) == {**vars(args), "runs": Path("runs/agents")}
    assert made_by("texture", args, texture.add_arguments) == f"Made by `{found}`."


@pytest.mark.parametrize("option", ["--variants", "--ccsr", "--addsr"])
def test_a_model_of_another_scale_is_named_before_anything_is_computed(
    option, model_folder, image_folder, tmp_path, capsys, monkeypatch
):
    config = tiny_config(scale=2, schedule=NoiseSchedule.cosine(20).config)
    other = save_model(tmp_path / "double", random_model(config).network, config)
    monkeypatch.setattr(FrozenModel, "predict_unclamped", None)
    arguments = ["paper", "--model", str(model_folder), "--images", str(image_folder), option, str(other)]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: {other}: enlarges 2 times and cannot be compared with a model that enlarges 4 times\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_variant_s_levels_must_fit(model_folder, image_folder, tmp_path, capsys):
    config = tiny_config(schedule=NoiseSchedule.cosine(12).config)
    other = save_model(tmp_path / "twelve", random_model(config).network, config)
    arguments = [
        "paper",
        "--model",
        str(model_folder),
        "--images",
        str(image_folder),
        "--variants",
        str(other),
    ]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert "twelve: the tables take S = 10, which does not divide its T = 12" in capsys.readouterr().err


def test_a_part_of_a_run_leaves_the_page_true(model_folder, image_folder, tmp_path):
    """Sentences rest on every stored row of the images; a table of more images is not called one of fewer."""
    arguments = ["paper", "--model", str(model_folder), "--images", str(image_folder), "--out", str(tmp_path)]
    assert main([*arguments, "--tables", "5"]) == 0
    folder = tmp_path / "tiny" / image_folder.name
    both = (folder / "README.md").read_text()
    claim = "Some manual start beats the full chain"
    assert claim in both and "- 2 images, noise seeds 0\n" in both
    assert main([*arguments, "--tables", "6", "--limit", "1"]) == 0
    text = (folder / "README.md").read_text()
    assert claim in text and "- 1 image, noise seeds 0\n" in text and "--limit 1 --tables 6" in text
    assert (
        "- Table 5: manual starts (2 images, 1 noise seed each): [md](table5.md), [csv](table5.csv)\n" in text
    )
    assert (folder / "images.csv").read_text().count("photo") == 2
    assert "--tables 5`" in (folder / "table5.md").read_text()


def test_table_3_keeps_the_row_of_most_rounds(model, tmp_path, monkeypatch):
    made: list[int] = []
    measure = cost.measure

    def counted(model, policy, repeats, size):
        made.append(repeats)
        return measure(model, policy, repeats, size)

    monkeypatch.setattr(cost, "measure", counted)
    for repeats in (1, 2, 1, 2):
        costs = cost.table(tmp_path, [model], [2], repeats, 32, "Made by `me`.")
    assert made == [1, 2] and [c.repeats for c in costs] == [2, 2]
    lines = (tmp_path / "table3.md").read_text().splitlines()
    assert [line.split("|")[2].strip() for line in lines if line.startswith("| ")] == ["rounds", "2", "2"]
    text = (tmp_path / "table3.md").read_text()
    assert (
        "| SkipDiff at its fixed start: " in text and "Made by `me`." in text and "| the paper |" not in text
    )
    with (tmp_path / "table3.csv").open() as file:
        assert [row["sampler"] for row in csv.DictReader(file)] == ["full chain", "SkipDiff"]


def test_table_3_has_a_cpu_row_beside_that_of_the_gpu(monkeypatch, tmp_path):
    measured: list[object] = []
    monkeypatch.setattr(cost, "table", lambda folder, models, *_: measured.extend(models))
    authors = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(cost, "authors_model", lambda device: authors)
    monkeypatch.setattr(command, "load_pretrained", lambda name, device, dtype: (name, device, dtype))
    on_gpu = SimpleNamespace(device=torch.device("cuda"), scale=4)
    session = SimpleNamespace(
        subject=Subject(4, 100, 7), args=parsed("--tables", "3"), agents={}, model=on_gpu, folder=tmp_path,
        wanted=("table3",), made="",
    )  # fmt: skip
    command.draw_rest(session)
    assert measured == [on_gpu, ("natural-4x", "cpu", None), authors]


def test_the_model_s_index_links_what_lies_beside_it(tmp_path):
    from benchmarks.paper.page import write_index

    for name in ("recipes.md", "tiling_seams.csv", "tiling_seams.md", "speed.md"):
        Path(tmp_path / name).write_text("x")
    write_index(tmp_path, "tiny", "me")
    text = (tmp_path / "README.md").read_text()
    assert "made by `me`." in text and "[md](recipes.md)" in text and "[md](speed.md)" in text
    assert "- Tiles: seams: [md](tiling_seams.md), [csv](tiling_seams.csv)" in text


def test_a_shipped_model_s_rivals_are_found_by_name(monkeypatch):
    monkeypatch.setattr(options, "available_models", lambda: {"m": Path("m"), "ccsr-m": Path("ccsr-m")})
    assert trained_rivals(parsed("--model", "m")) == {"ccsr": "ccsr-m"}
    given = trained_rivals(parsed("--model", "m", "--ccsr", "mine", "--addsr", "too"))
    assert given == {"ccsr": Path("mine"), "addsr": Path("too")}
    assert trained_rivals(parsed("--model", "elsewhere/m")) == {}
