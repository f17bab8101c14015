"""``python -m benchmarks paper`` from end to end on a tiny model: every table, every figure, and resuming."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.measure.drawing import made_of
from benchmarks.measure.tables import CONTENTS
from benchmarks.paper import cost, pictures
from skipdiff_env.diffusion import FrozenModel, NoiseSchedule, UNet, random_model, tiny_config
from skipdiff_env.diffusion.folder import save_model
from skipdiff_env.policies.file import save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    config = SPNConfig(observation_size=16, hidden_size=8, norm="group")
    return save_policy(tmp_path_factory.mktemp("agent") / "a.safetensors", SkipProposalNetwork(config).eval())


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    """A model of another kind: noise prediction of the residual."""
    config = tiny_config(prediction="noise", target="residual", schedule=NoiseSchedule.cosine(20).config)
    model = random_model(config, seed=1)
    return save_model(tmp_path_factory.mktemp("models") / "other", model.network, model.config)


@pytest.fixture(scope="module")
def run_all(model_folder, image_folder, agent, variant, source, tmp_path_factory):
    """Everything, with small pictures; returns the folder and the arguments."""
    out = tmp_path_factory.mktemp("results")
    arguments = [
        "paper", "--model", str(model_folder), "--images", str(image_folder), "--out", str(out),
        "--agent", f"NIQE={agent}", "--variants", str(variant), "--repeats", "1", "--seeds", "2",
        "--addsr", str(variant),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "SIZE", 32)
        patch.setattr(cost, "AUTHORS", tiny_config().unet)
        patch.setattr(pictures, "BUNDLED_IMAGE_SIZE", 32)
        patch.setattr(pictures, "bundled_images", lambda: source)
        assert main(arguments) == 0
    return out / "tiny" / image_folder.name, arguments


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_table_is_there_in_both_forms(run_all):
    folder, _ = run_all
    agent = next(r for r in table(folder / "table2.csv") if r["sampler"].startswith("agent"))
    spent = round(float(agent["evaluations"]))  # rivals are there at 11, the fixed start's, and at these
    keys = [row["sampler"] for row in table(folder / "table2.csv")]
    assert {f"{kind}-{spent}" for kind in ("ddim", "dpm", "ancestral", "ccsr")} < {*keys}
    for name, lines in (
        ("table2", 50 + 3 * (spent != 11)),
        ("table4", 5),
        ("table5", 5),
        ("table6", 1),
        ("ablation", 11),
    ):
        rows = table(folder / f"{name}.csv")
        assert len(rows) == lines, (name, [row["sampler"] for row in rows])
        known = [r for r in rows if r["sampler"] != "hr"]  # the originals' PSNR is infinite
        assert all(float(r["psnr_low"]) <= float(r["psnr"]) <= float(r["psnr_high"]) for r in known), name
        text = (folder / f"{name}.md").read_text()
        assert text.count("\n|") >= lines + 2 and "2 images, 2 noise seeds each" in text
        assert "the paper" not in text  # these are not its pictures
        assert "Made by `python -m benchmarks paper --model tiny --images photographs0 --agent" in text
    assert [row["label"] for row in table(folder / "table5.csv")][2:] == [
        "agent (NIQE)",
        "full chain (20 steps)",
        "HR",
    ]
    assert "No agent trained on LPIPS" in (folder / "table6.md").read_text()
    originals = next(row for row in table(folder / "table2.csv") if row["sampler"] == "hr")
    assert float(originals["ssim"]) == pytest.approx(1) and float(originals["lpips"]) < 1e-6
    assert float(originals["evaluations"]) == 0 < float(originals["niqe"])
    labels = [row["label"] for row in table(folder / "ablation.csv")]
    assert any("unclamped" in label for label in labels) and any("rebuilt" in label for label in labels)
    assert sum("other (noise-prediction of the residual)" in label for label in labels) == 3


def test_means_are_those_of_the_rows(run_all):
    folder, _ = run_all
    rows = [r for r in table(folder / "rows.csv") if r["sampler"] == "csa-10"]
    ours = [r for r in rows if r["model"] == rows[0]["model"]]
    assert len(ours) == 4 and len(rows) == 8
    line = next(r for r in table(folder / "table2.csv") if r["sampler"] == "csa-10")
    for column in ("psnr", "niqe_full", "lpips", "consistency"):
        assert float(line[column]) == pytest.approx(np.mean([float(r[column]) for r in ours]))


def test_table_3_has_the_authors_network(run_all):
    folder, _ = run_all
    names = [row["model"] for row in table(folder / "table3.csv")]
    assert len(names) == 4 and names[2] == names[3] == cost.AUTHORS_NAME
    lines = [line for line in (folder / "table3.md").read_text().splitlines() if line.startswith("| ")]
    assert [line.split("|")[-2].strip() for line in lines[1:]] == [
        "", "", "4.17 s, 17,799 GMAC", "0.69 s, 2,848 GMAC",
    ]  # fmt: skip


def test_the_authors_network_has_their_weights():
    assert sum(p.numel() for p in UNet(cost.AUTHORS).parameters()) == 92_556_931


def test_table_3_counts_arithmetic(run_all, model):
    folder, _ = run_all
    full, fast = table(folder / "table3.csv")[:2]
    call = cost.network_gmac(model, 32)
    assert float(full["gmac"]) == pytest.approx(20 * call) and float(full["evaluations"]) == 20
    assert float(fast["gmac"]) > call * float(fast["evaluations"]) and fast["policy"] == "a.safetensors"
    assert float(fast["seconds"]) > 0 and 0 < float(fast["policy_share"]) < 1
    # A call on 8x8 patches of 2x2, by hand: one 3x3 convolution from 24 to 8 channels is the first.
    assert call > 16 * 16 * 9 * 24 * 8 / 1e9


def test_every_figure_is_a_picture_of_what_there_is(run_all, model):
    folder, _ = run_all
    plots = [folder / f"{name}.png" for name in ("figure1", "figure5", "starts")]
    pictures = [folder / f"{name}.webp" for name in ("figure6", "samples", "rivals")]
    for file in plots + pictures:
        with Image.open(file) as image:
            assert min(image.size) > 60 and len(image.convert("RGB").getcolors(2**24)) > 20, file
            assert (image.mode == "P") == (file in plots)
    for file in pictures:
        assert made_of(file).split()[0] == table(folder / "rows.csv")[0]["model"]
    figure1 = table(folder / "figure1.csv")
    assert [row["S"] for row in figure1] == ["2", "4", "5", "10", "20", "Spearman's ρ with S"]
    assert all(float(row["psnr_low"]) <= float(row["psnr"]) <= float(row["psnr_high"]) for row in figure1)
    assert len(table(folder / "figure5.csv")) > 20 and "2 images" in (folder / "figure5.md").read_text()
    counts = table(folder / "starts.csv")
    assert all(int(row["1"]) + int(row["2"]) == 4 for row in counts) and len(counts) == 3


def test_the_page_says_what_was_done(run_all, image_folder):
    folder, _ = run_all
    text = (folder / "README.md").read_text()
    for words in (
        "2 images, noise seeds 0, 1",
        "in float32 on cpu; this page was made on",
        "torch ",
        "fixed start 2",
        "Better PSNR",
        "NIQE-full",
        "other weights: AddSR (`",
        "variant other (`",
        "Table 5: manual starts (2 images, 2 noise seeds each)",
        "--seeds 2 --variants other --repeats 1",
    ):
        assert words in text, words
    assert str(folder) not in text and str(image_folder.parent) not in text
    images = table(folder / "images.csv")
    assert [row["image"] for row in images] == ["photo0.png", "photo1.png"]
    assert all(len(row["sha256"]) == 64 and row["width"] == "96" for row in images)
    assert f"[{image_folder.name}]" in (folder.parent / "README.md").read_text()
    assert all(file.name in text for file in folder.iterdir() if file.name not in ("README.md", CONTENTS))


def test_a_second_run_computes_nothing(run_all, monkeypatch):
    folder, arguments = run_all
    before = {file: file.read_bytes() for file in folder.iterdir()}

    def never(*_):
        raise AssertionError("the network was called")

    monkeypatch.setattr(FrozenModel, "predict_unclamped", never)
    monkeypatch.setattr(cost, "SIZE", 32)
    monkeypatch.setattr(cost, "AUTHORS", tiny_config().unet)
    assert main(arguments) == 0
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_what_a_page_says_of_rows_outlives_a_run_without_any(run_all, model_folder, tmp_path, monkeypatch):
    folder, arguments = run_all
    out = tmp_path / "results"
    shutil.copytree(folder.parents[1], out)
    monkeypatch.setattr(cost, "SIZE", 32)
    monkeypatch.setattr(cost, "AUTHORS", tiny_config().unet)
    page = out / folder.parent.name / folder.name / "README.md"
    before = page.read_text()
    page.write_text(before.replace("- Table 3: cost", "- something old"))
    changed = [*arguments, "--out", str(out), "--tables", "3", "--seeds", "1", "--limit", "1"]
    assert main(changed) == 0
    assert page.read_text() == before


def test_quick_in_a_process_of_its_own(model_folder, image_folder, tmp_path):
    command = [sys.executable, "-m", "benchmarks", "paper", "--model", str(model_folder), "--quick"]
    command += ["--images", str(image_folder), "--tables", "5", "--limit", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 images, 4 rows, 4 of them missing: at most 32 network calls" in done.stdout
    folder = tmp_path / "tiny" / f"{image_folder.name}-quick"
    assert len(table(folder / "table5.csv")) == 4 and "too few images" in (folder / "README.md").read_text()


def test_bad_arguments_are_one_line(model_folder, image_folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "paper",
        "--model",
        str(model_folder),
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run([*command, "--agent", "NIQE=none"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: --agent NIQE=none: give NAME=FILE")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
