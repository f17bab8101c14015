"""Model folders: the round trip, every way to be broken, atomic writing, the cache."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from skipdiff_env.diffusion import available_models, load_pretrained, random_model, save_model, tiny_config
from skipdiff_env.diffusion import pretrained as module
from skipdiff_env.errors import SkipDiffError


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "tiny", random_model().network, tiny_config(), card="# A model\n")


def test_round_trip(folder):
    source = random_model()
    model = load_pretrained(folder)
    assert model.name == "tiny" and model.config == tiny_config() and len(model.hash) >= 16
    assert (folder / "README.md").read_text() == "# A model\n"
    stored = load_file(folder / "ddpm.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    for key, weight in source.network.state_dict().items():
        loaded = model.network.state_dict()[key]
        assert loaded.dtype == torch.float32 and torch.equal(loaded, weight.half().float())
    latent, condition, level = torch.randn(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.tensor([0.9, 0.1])
    source.network.half().float()
    torch.testing.assert_close(
        model.predict(latent, condition, level), source.predict(latent, condition, level), atol=1e-6, rtol=0
    )
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "ddpm.safetensors"]


def test_saving_leaves_the_network_alone(tmp_path):
    network = random_model().network
    before = {k: v.clone() for k, v in network.state_dict().items()}
    save_model(tmp_path, network, tiny_config())
    assert all(
        torch.equal(v, before[k]) and v.dtype == torch.float32 for k, v in network.state_dict().items()
    )
    assert not (tmp_path / "README.md").exists()


def edit_config(folder, **changes):
    path = folder / "config.json"
    data = json.loads(path.read_text())
    for key, value in changes.items():
        place = data
        *parents, last = key.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(data))


def edit_weights(folder, change):
    path = folder / "ddpm.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def cut(folder, keep):
    path = folder / "ddpm.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


KEY = "downs.1.res_block.block1.block.3.weight"
BROKEN = {
    "no configuration": (lambda f: (f / "config.json").unlink(), ["config.json"]),
    "configuration is no JSON": (lambda f: (f / "config.json").write_text("{"), ["config.json"]),
    "configuration is no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), ["config.json"]),
    "configuration is a list": (lambda f: (f / "config.json").write_text("[1, 2]"), ["config.json"]),
    "configuration is null": (lambda f: (f / "config.json").write_text("null"), ["config.json"]),
    "unknown field": (lambda f: edit_config(f, flavour=1), ["config.json", "flavour"]),
    "unknown network field": (lambda f: edit_config(f, unet__wings=1), ["config.json", "wings"]),
    "unknown schedule field": (lambda f: edit_config(f, schedule__offset=1), ["config.json", "offset"]),
    "scale is text": (lambda f: edit_config(f, scale="4"), ["config.json"]),
    "network is null": (lambda f: edit_config(f, unet=None), ["config.json"]),
    "groups do not divide": (lambda f: edit_config(f, unet__norm_groups=3), ["config.json"]),
    "unknown embedding": (
        lambda f: edit_config(f, unet__level_embedding="x"),
        ["config.json", "level_embedding"],
    ),
    "width is text": (lambda f: edit_config(f, unet__channels="8"), ["config.json"]),
    "patch of nothing": (lambda f: edit_config(f, unet__patch_size=0), ["config.json"]),
    "unknown coarse rule": (lambda f: edit_config(f, coarse_levels="x"), ["config.json", "coarse_levels"]),
    "no weights": (lambda f: (f / "ddpm.safetensors").unlink(), ["ddpm.safetensors"]),
    "empty weights": (lambda f: cut(f, 0), ["ddpm.safetensors"]),
    "header cut": (lambda f: cut(f, 0.01), ["ddpm.safetensors"]),
    "half the weights": (lambda f: cut(f, 0.5), ["ddpm.safetensors"]),
    "a pickle": (
        lambda f: torch.save(random_model().network.state_dict(), f / "ddpm.safetensors"),
        ["ddpm.safetensors", "not a safetensors file"],
    ),
    "a text file": (lambda f: (f / "ddpm.safetensors").write_text("hello" * 99), ["ddpm.safetensors"]),
    "missing key": (lambda f: edit_weights(f, lambda w: w.pop(KEY)), ["ddpm.safetensors", KEY]),
    "wrong shape": (
        lambda f: edit_weights(f, lambda w: w.update({KEY: torch.zeros(8, 8, 1, 1)})),
        ["ddpm.safetensors", KEY, "(8, 8, 1, 1)", "(8, 8, 3, 3)"],
    ),
    "unknown key": (
        lambda f: edit_weights(f, lambda w: w.update({"wings.weight": torch.zeros(2)})),
        ["ddpm.safetensors", "wings.weight"],
    ),
    "another architecture": (lambda f: edit_config(f, unet__channels=12), ["ddpm.safetensors", "shape"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_refused_naming_file_and_key(folder, name):
    spoil, mentions = BROKEN[name]
    spoil(folder)
    with pytest.raises(SkipDiffError) as caught:
        load_pretrained(folder)
    message = str(caught.value)
    assert "\n" not in message
    for mention in (*mentions, "tiny"):
        assert mention in message


def test_a_mended_folder_loads(folder):
    whole = (folder / "ddpm.safetensors").read_bytes()
    cut(folder, 0.5)
    with pytest.raises(SkipDiffError):
        load_pretrained(folder)
    (folder / "ddpm.safetensors").write_bytes(whole)
    assert load_pretrained(folder).name == "tiny"


def test_unknown_names_are_refused_with_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "available_models", lambda: {"cats-4x": tmp_path, "dogs-8x": tmp_path})
    for wrong, why in [("natural-5x", "no such folder"), (str(tmp_path), "holds no config.json")]:
        with pytest.raises(SkipDiffError) as caught:
            load_pretrained(wrong)
        message = str(caught.value)
        assert wrong in message and why in message and "cats-4x, dogs-8x" in message


def test_shipped_names_are_folders_with_a_configuration(tmp_path, monkeypatch):
    save_model(tmp_path / "b-4x", random_model().network, tiny_config())
    save_model(tmp_path / "a-4x", random_model().network, tiny_config())
    (tmp_path / "notes").mkdir()
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(module, "pretrained_folder", lambda: tmp_path)
    assert available_models() == {"a-4x": tmp_path / "a-4x", "b-4x": tmp_path / "b-4x"}
    assert load_pretrained("b-4x").name == "b-4x"
    monkeypatch.setattr(module, "pretrained_folder", lambda: tmp_path / "nowhere")
    assert available_models() == {}


def test_paths_may_be_relative_or_have_a_tilde(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_pretrained("tiny") is load_pretrained(folder) is load_pretrained("~/tiny")


def test_the_same_arguments_give_the_same_object(folder):
    model = load_pretrained(folder)
    assert load_pretrained(folder) is model
    assert load_pretrained(str(folder), device="cpu", dtype=torch.float32) is model
    assert load_pretrained(folder, dtype=torch.float16) is not model
    assert load_pretrained(shutil.copytree(folder, folder.parent / "copy")) is not model


def test_a_changed_folder_is_read_again(folder):
    first = load_pretrained(folder)
    save_model(folder, random_model(seed=1).network, tiny_config())
    second = load_pretrained(folder)
    assert second is not first and second.hash != first.hash
    edit_config(folder, start=7)
    third = load_pretrained(folder)
    assert third.config.start == 7 and second.config.start is None


def test_a_file_put_in_place_with_the_old_date_is_read_again(folder):
    """Copies that keep dates (cp -p, rsync, tar) replace a file without changing its time."""
    first = load_pretrained(folder)
    stamps = {path.name: path.stat() for path in folder.iterdir()}
    save_model(folder, random_model(seed=1).network, tiny_config())
    for name, stamp in stamps.items():
        os.utime(folder / name, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert load_pretrained(folder).hash != first.hash


def test_the_hash_covers_all_that_changes_a_latent(folder):
    """Caches of latents are keyed by it: equal weights under another target are another model."""
    first = load_pretrained(folder).hash
    edit_config(folder, residual_scale=2.0, target="residual")
    second = load_pretrained(folder).hash
    assert first != second
    copy = shutil.copytree(folder, folder.parent / "elsewhere")
    assert load_pretrained(copy).hash == second


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_devices_that_do_not_exist_are_refused_in_one_line(folder, device):
    with pytest.raises(SkipDiffError, match="device") as caught:
        load_pretrained(folder, device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_model_whole(folder, monkeypatch, failing, error):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(module.os, failing, fail)
    with pytest.raises(type(error)):
        save_model(folder, random_model(seed=1).network, tiny_config(), card="# Another\n")
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert load_pretrained(folder).config == tiny_config()


def test_weights_that_fp16_cannot_hold_are_refused(folder):
    network = random_model(seed=1).network
    with torch.no_grad():
        network.final_conv.block[3].weight.fill_(1e6)
    before = (folder / "ddpm.safetensors").read_bytes()
    with pytest.raises(ValueError, match="final_conv.block.3.weight"):
        save_model(folder, network, tiny_config())
    assert (folder / "ddpm.safetensors").read_bytes() == before
