"""The fast mode: CCSR's and AddSR's chains, students of few levels, refiners."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skipdiff_env.chains import CCSR, AddSR, FewSteps, Refined, usual_coarse_steps
from skipdiff_env.diffusion import NoiseSchedule, load_pretrained, random_model, save_model, tiny_config
from skipdiff_env.diffusion.folder import REFINER, write_weights
from skipdiff_env.diffusion.model import RefinerConfig
from skipdiff_env.diffusion.refiner import Refiner, RefinerNetwork, load_refiner
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.formats.metadata import read_record
from skipdiff_env.images.photo import read_photo
from skipdiff_env.images.tiling import TiledModel
from skipdiff_env.sampler import SkipDiffSampler
from skipdiff_env.upscale import Enlarger

from .conftest import UNET, Upscale

SIZE = 60, 40


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).integers(0, 256, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


@pytest.fixture(scope="module")
def refined_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model ``noisy_folder`` with a refiner that does something."""
    torch.manual_seed(5)
    network = RefinerNetwork(UNET)
    torch.nn.init.normal_(network.unet.final_conv.block[-1].weight, std=0.1)
    config = tiny_config(unet=UNET, refiner=RefinerConfig(UNET))
    folder = save_model(
        tmp_path_factory.mktemp("models") / "refined-4x", random_model(config).network, config
    )
    write_weights(folder / REFINER, network)
    return folder


CHAINS = {"ccsr": CCSR(2), "ccsr:3": CCSR(3), "addsr": AddSR(4), "addsr:1": AddSR(1)}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_a_few_steps(
    name: str, upscale: Upscale, photograph: Path, noisy_folder: Path, tmp_path: Path
) -> None:
    out, chain = tmp_path / "out.png", CHAINS[name]
    arguments = photograph, "-o", out, "--tile", 128
    method = "--policy", name
    ran = upscale(*arguments, "--json", model=noisy_folder, method=method)
    assert (ran.status, ran.err) == (0, "")
    assert np.array_equal(read_photo(out).colour, sampled(noisy_folder, photograph, chain))
    (entry,) = ran.json
    record = read_record(read_photo(out).metadata)
    assert entry["evaluations"] == chain.steps
    for told in (entry, record):
        assert told is not None and told["policy"] == f"{name.split(':')[0]}:{chain.steps}"
        assert "coarse_steps" not in told and "start" not in told
    assert "is there already" in upscale(*arguments, "--resume", model=noisy_folder, method=method).out
    other = upscale(*arguments, "--resume", model=noisy_folder, method=("--policy", "ccsr:4"))
    assert "was made with other settings" in other.err
    (planned,) = upscale(*arguments, "-n", "--json", "--force", model=noisy_folder, method=method).json
    assert planned["tiles"] == 6 and planned["calls"] == 6 * chain.steps


@pytest.mark.parametrize(("policy", "label"), [("ccsr:2", "CCSR, 2 eval"), ("skip", "SkipDiff, 10 eval")])
def test_a_comparison_names_the_chain(
    policy: str, label: str, upscale: Upscale, photograph: Path, plain_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    labels: list[str] = []

    def sheet(panels: list[tuple[str, np.ndarray]]) -> np.ndarray:
        labels.extend(name for name, _ in panels)
        return panels[0][1]

    monkeypatch.setattr("skipdiff_env.upscale.compare.side_by_side", sheet)
    arguments = photograph, "-o", tmp_path / "a.png", "--compare"
    assert upscale(*arguments, method=("--policy", policy)).status == 0
    assert labels[2].startswith(label)


def sampled(
    folder: Path, photograph: Path, policy: FewSteps | int, refiner: Path | None = None
) -> np.ndarray:
    tiled = TiledModel(load_pretrained(folder, "cpu"), 128)
    return SkipDiffSampler(tiled, refiner=refiner)(read_photo(photograph).colour, policy=policy).images[0]


def test_a_student_of_four_levels_needs_no_further_word(
    upscale: Upscale, photograph: Path, tmp_path: Path
) -> None:
    config = tiny_config(unet=UNET, schedule=NoiseSchedule.cosine(4).config)
    folder = save_model(tmp_path / "student-4x", random_model(config).network, config)
    (entry,) = upscale(photograph, "-o", tmp_path / "a.png", "--json", model=folder, method=()).json
    assert (entry["coarse_steps"], entry["evaluations"]) == (4, 4)
    (entry,) = upscale(
        photograph, "-o", tmp_path / "b.png", "--json", model=folder, method=("--policy", "addsr")
    ).json
    assert entry["evaluations"] == 4


def test_coarse_steps_divide_the_levels() -> None:
    assert [usual_coarse_steps(levels) for levels in (100, 2000, 4, 15, 14, 1)] == [10, 10, 4, 5, 7, 1]
    with pytest.raises(SkipDiffError, match="the model's 101 levels have no divisor from 2 to 10"):
        usual_coarse_steps(101)


@pytest.mark.parametrize("method", [("--policy", "ccsr:2"), ("--start", "2")], ids=str)
def test_a_refiner_follows_any_chain(
    method: tuple[str, ...], upscale: Upscale, photograph: Path, refined_folder: Path, tmp_path: Path
) -> None:
    out, tile = tmp_path / "out.png", 256  # the whole image
    arguments = photograph, "-o", out, "--tile", tile, "--refiner", refined_folder
    ran = upscale(*arguments, "--json", model=refined_folder, method=method)
    assert (ran.status, ran.err) == (0, "")
    chain = CCSR(2) if method[0] == "--policy" else 2
    model = load_pretrained(refined_folder, "cpu")
    sampler = SkipDiffSampler(TiledModel(model, tile), refiner=refined_folder)
    colour, found = read_photo(photograph).colour, read_photo(out).colour.astype(int)
    assert np.abs(found - sampler(colour, policy=chain).images[0]).max() <= 1
    plain = SkipDiffSampler(TiledModel(model, tile))(colour, policy=chain).images[0]
    assert np.abs(found - plain).mean() > 2
    (entry,) = ran.json
    assert entry["refiner"] == "refined-4x" and entry["refiner_hash"] == load_refiner(refined_folder).hash
    without = upscale(photograph, "-o", out, "--tile", tile, "--resume", model=refined_folder, method=method)
    assert "was made with other settings" in without.err


@pytest.mark.parametrize(
    ("method", "evaluations", "refined"),
    [
        ((), 2, True),
        (("--start", "3"), 12, False),
        (("--coarse-steps", "5"), None, False),
        (("--policy", "ccsr:1"), 1, True),
        (("--policy", "ccsr:1", "--refiner", "none"), 1, False),
    ],
    ids=str,
)
def test_a_model_with_a_refiner_does_what_that_is_meant_for(
    method: tuple[str, ...], evaluations: int | None, refined: bool,
    upscale: Upscale, photograph: Path, refined_folder: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """Unless the user asks for something."""
    folder = tmp_path / "usual-4x"
    shutil.copytree(refined_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["chain"] = "ccsr:2"
    config["refiner"]["strength"] = 0.5
    (folder / "config.json").write_text(json.dumps(config))
    out = tmp_path / "out.png"
    ran = upscale(photograph, "-o", out, "--tile", 256, "--json", model=folder, method=method)
    assert ran.status == 0, ran.err
    (entry,) = ran.json
    assert ("refiner" in entry) == refined
    assert evaluations in (entry["evaluations"], None)
    if refined:
        assert entry["policy"] == f"ccsr:{evaluations}"
        chosen = "--policy", entry["policy"]
        asked = "--refiner", refined_folder, "--force", "--json"
        (other,) = upscale(
            photograph, "-o", out, "--tile", 256, *asked, model=refined_folder, method=chosen
        ).json
        assert other["refiner_hash"] != entry["refiner_hash"]


def test_strength_is_the_share_of_the_change(refined_folder: Path) -> None:
    x0, condition = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    whole, half, none = (load_refiner(refined_folder, strength=s).network for s in (1.0, 0.5, 0.0))
    assert torch.equal(none(x0, condition), x0)
    assert torch.allclose(half(x0, condition) - x0, 0.5 * (whole(x0, condition) - x0), atol=1e-6)
    assert (half(x0, condition) - x0).abs().mean() > 0.01


def test_a_strength_may_be_asked_for(
    upscale: Upscale, photograph: Path, refined_folder: Path, tmp_path: Path
) -> None:
    """Of a model's refiner by its name, or of the model's own, where that suits the chain."""
    model, out = load_pretrained(refined_folder, "cpu"), tmp_path / "out.png"
    colour = read_photo(photograph).colour
    half = load_refiner(refined_folder, strength=0.5)
    expected = SkipDiffSampler(model, refiner=half)(colour, policy="ccsr:2").images[0]
    words = "--tile", 256, "--refiner", f"{refined_folder}:0.5", "--json"
    ran = upscale(photograph, "-o", out, *words, model=refined_folder, method=("--policy", "ccsr:2"))
    assert (ran.status, ran.err) == (0, "")
    assert np.abs(read_photo(out).colour.astype(int) - expected).max() <= 1
    (entry,) = ran.json
    assert (entry["refiner"], entry["refiner_hash"]) == ("refined-4x:0.5", half.hash)
    own = replace(model.config, chain="ccsr:2")
    save_model(tmp_path / "own-4x", model.network, own)
    shutil.copy(refined_folder / "refiner.safetensors", tmp_path / "own-4x")
    mine = load_pretrained(tmp_path / "own-4x", "cpu")
    for spec in ("own:0.5", half):
        assert np.array_equal(SkipDiffSampler(mine, refiner=spec)(colour).images[0], expected)
    plain = SkipDiffSampler(mine, refiner="own:0.5")(colour, policy=3).images
    assert np.array_equal(plain, SkipDiffSampler(mine, refiner=None)(colour, policy=3).images)


def test_a_strength_beyond_the_whole_is_refused(refined_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(refined_folder, tmp_path / "bad")
    config = json.loads((tmp_path / "bad" / "config.json").read_text())
    config["refiner"]["strength"] = 1.5
    (tmp_path / "bad" / "config.json").write_text(json.dumps(config))
    with pytest.raises(SkipDiffError, match=r"refiner.strength must be from 0 to 1, not 1.5"):
        load_refiner(tmp_path / "bad")


def test_a_refiner_sees_tiles_that_are_blended(refined_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def pointwise(self: Refiner, x0: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x0.shape))
        return 0.5 * x0 + 0.25 * condition

    monkeypatch.setattr(Refiner, "__call__", pointwise)
    chain = Refined(CCSR(1), load_refiner(refined_folder))
    refine = Enlarger(load_pretrained(refined_folder, "cpu"), chain, 0, 128).chain.refine
    x0, condition = torch.rand(2, 1, 3, 160, 240) * 2 - 1
    assert torch.allclose(refine(x0, condition), 0.5 * x0 + 0.25 * condition, atol=1e-6)
    assert len(shapes) == 6 and all(max(shape) <= 128 for shape in shapes)


def test_a_refiner_of_another_scale_is_refused(
    upscale: Upscale, photograph: Path, refined_folder: Path, tmp_path: Path
) -> None:
    config = replace(tiny_config(unet=UNET), scale=2)
    folder = save_model(tmp_path / "other-2x", random_model(config).network, config)
    ran = upscale(photograph, "-o", tmp_path / "a.png", "--refiner", refined_folder, model=folder)
    assert ran.status == 2
    assert ran.err.endswith("is for 4x, but 'other-2x' enlarges 2x: give another refiner\n")
