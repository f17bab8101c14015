"""The restorer: its arithmetic, pictures of any size, its file, and its place in a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skipdiff_env import SkipDiffSampler, load_pretrained
from skipdiff_env.chains import parse
from skipdiff_env.diffusion import FrozenModel, bicubic, random_model, restorer, save_model, tiny_config
from skipdiff_env.diffusion.resize import to_arrays, to_planes, to_signed, to_uint8
from skipdiff_env.diffusion.restorer import Restorer, RestorerConfig, RestorerNetwork
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.raster import Photo
from skipdiff_env.upscale.enlarge import Enlarger

SMALL = RestorerConfig(channels=4, blocks=2)


def shaken(config: RestorerConfig = SMALL, seed: int = 0) -> Restorer:
    """A restorer whose weights do something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RestorerNetwork(config)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.1)
    return Restorer(network, config, hash=f"shaken {seed}")


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    draws = np.random.default_rng(seed)
    return to_planes(draws.integers(0, 256, (height, width, 3), np.uint8))


def write(folder: Path, made: Restorer | None, seed: int = 0) -> Path:
    config = replace(tiny_config(), restorer=made.config if made else None)
    return save_model(folder, random_model(config, seed).network, config, restorer=made)


def test_an_untrained_restorer_is_the_identity() -> None:
    lr = picture(13, 9)
    assert torch.equal(Restorer(RestorerNetwork(SMALL), SMALL)(lr), lr)


def test_it_computes_what_its_formula_says() -> None:
    made = shaken()
    w = {key: tensor.double() for key, tensor in made.network.state_dict().items()}
    x = lr = to_signed(picture(11, 12)).double()
    x = F.conv2d(x, w["head.weight"], w["head.bias"], padding=1)
    for i in range(SMALL.blocks):
        first, second = (
            (w[f"blocks.{i}.{name}.weight"], w[f"blocks.{i}.{name}.bias"]) for name in ("first", "second")
        )
        inner = F.conv2d(x, *first, padding=1)
        x = x + F.conv2d(inner * torch.sigmoid(inner), *second, padding=1)
    wanted = lr + F.conv2d(x, w["tail.weight"], w["tail.bias"], padding=1)
    torch.testing.assert_close(made.network(lr.float()).double(), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (50, 33), (1, 70), (3, 2)])
def test_parts_of_a_picture_meet_without_a_seam(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, lr = shaken(), picture(*size)
    whole = made.network(to_signed(lr))
    monkeypatch.setattr(restorer, "TILE", 16)
    assert made(lr).shape == lr.shape and made(lr).dtype == torch.uint8
    # a value within rounding of a half may fall to either side
    assert (made(lr).int() - to_uint8(whole).int()).abs().max() <= 1
    assert (made(lr) == to_uint8(whole)).float().mean() > 0.99


def test_its_reach_is_the_distance_that_it_sees() -> None:
    made = shaken()
    plain = torch.zeros(1, 3, 31, 31)
    dotted = plain.clone()
    dotted[..., 15, 15] = 1
    changed = (made.network(dotted) != made.network(plain)).any(1)[0].nonzero()
    assert made.network.reach == int((changed - 15).abs().max()) == 2 * SMALL.blocks + 2


def test_a_model_sees_what_its_restorer_makes(tmp_path: Path) -> None:
    made = shaken()
    model = load_pretrained(write(tmp_path / "model", made), "cpu")
    assert model.restorer is not None
    lr = picture(6, 7)
    restored = model.restored(lr)
    assert (restored.int() - made(lr).int()).abs().max() <= 1  # its file is in half precision
    assert not torch.equal(restored, lr)
    enlarged = bicubic(to_signed(restored), 24, 28).clamp(-1, 1)
    assert torch.equal(model.condition(lr), enlarged)
    plain = load_pretrained(write(tmp_path / "plain", None), "cpu")
    assert plain.restorer is None and plain.restored(lr) is lr


def test_sampler_and_enlarger_use_the_restorer(tmp_path: Path) -> None:
    behind = load_pretrained(write(tmp_path / "behind", shaken()), "cpu")
    bare = FrozenModel(behind.network, behind.config)
    photo = Photo(to_arrays(picture(8, 8))[0])
    sampled, plain = (SkipDiffSampler(model)(photo.colour, 3).images[0] for model in (behind, bare))
    enlarger = Enlarger(behind, parse(3, behind), seed=0, tile=256)
    enlarged = enlarger(photo, (32, 32)).photo.colour
    assert np.abs(enlarged.astype(int) - sampled).max() <= 1
    assert np.abs(plain.astype(int) - sampled).max() > 3
    further = enlarger(photo, (128, 128)).photo.colour  # in two runs, of which the first is restored
    last = Enlarger(bare, parse(3, bare), seed=0, tile=256)(Photo(enlarged), (128, 128))
    assert np.array_equal(further, last.photo.colour)


def test_the_restorer_is_part_of_the_models_identity(tmp_path: Path) -> None:
    hashes = {
        load_pretrained(write(tmp_path / str(seed), made), "cpu").hash
        for seed, made in enumerate([None, shaken(), shaken(seed=1)])
    }
    assert len(hashes) == 3


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    first = load_pretrained(write(tmp_path / "a", shaken()), "cpu")
    again = save_model(tmp_path / "b", first.network, first.config, restorer=first.restorer)
    second = load_pretrained(again, "cpu")
    assert first.restorer is not None and second.restorer is not None
    assert second.hash == first.hash and second.restorer.hash == first.restorer.hash
    with pytest.raises(SkipDiffError, match="describes a restorer: give it too"):
        save_model(tmp_path / "c", first.network, first.config)
    assert not (tmp_path / "c").exists()


def test_a_missing_or_damaged_restorer_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", shaken())
    weights, config = folder / "restorer.safetensors", folder / "config.json"
    content, about = weights.read_bytes(), json.loads(config.read_text())
    about["restorer"]["channels"] = 5
    config.write_text(json.dumps(about))
    with pytest.raises(SkipDiffError, match=r"restorer\.safetensors: 'head\.weight' has shape"):
        load_pretrained(folder, "cpu")
    for field, value in (("channels", 0), ("blocks", 1.5), ("blocks", True), ("depth", 3)):
        changed = {**about, "restorer": {"channels": 4, "blocks": 2, field: value}}
        config.write_text(json.dumps(changed))
        with pytest.raises(SkipDiffError, match=rf"config\.json.*restorer.*{field}"):
            load_pretrained(folder, "cpu")
    about["restorer"]["channels"] = 4
    config.write_text(json.dumps(about))
    weights.write_bytes(content[:100])
    with pytest.raises(SkipDiffError, match=r"restorer\.safetensors is damaged"):
        load_pretrained(folder, "cpu")
    weights.unlink()
    with pytest.raises(SkipDiffError, match=r"restorer\.safetensors is missing"):
        load_pretrained(folder, "cpu")
