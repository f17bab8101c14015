"""Diffusers model folders, against diffusers itself: its networks, its scheduler's steps, its loop."""

import json
import shutil
import sys

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from skipdiff_env.diffusion import (
    NoiseKey,
    NoiseSchedule,
    SkipProcess,
    keyed_normal,
    load_pretrained,
    pretrained,
    random_model,
    save_model,
    tiny_config,
)
from skipdiff_env.diffusion.interop import hub
from skipdiff_env.errors import SkipDiffError

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")

STEPS = 20
WEIGHTS = "diffusion_pytorch_model.safetensors"


def make(folder, *, channels=6, flat=True, extras=None, network=None, **scheduler):
    """A tiny random UNet2DModel and a scheduler, written by diffusers; returns both."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**{
        "sample_size": 16, "in_channels": channels, "out_channels": 3, "layers_per_block": 1,
        "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 4, "attention_head_dim": 4,
        **(network or {}),
    }).eval()  # fmt: skip
    steps = diffusers.DDPMScheduler(num_train_timesteps=STEPS, **scheduler)
    unet.save_pretrained(folder if flat else folder / "unet")
    steps.save_pretrained(folder if flat else folder / "scheduler")
    if not flat:
        (folder / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    if extras is not None:
        (folder / "skipdiff.json").write_text(json.dumps(extras))
    return unet, steps


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "theirs")
    return tmp_path / "theirs"


SCHEDULES = [
    {"beta_schedule": "linear"},
    {"beta_schedule": "scaled_linear", "beta_start": 1e-3, "beta_end": 0.3},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "sigmoid"},
    {"trained_betas": np.linspace(0.01, 0.4, STEPS).tolist()},
]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("channels", [6, 3])
@pytest.mark.parametrize("flat", [True, False])
def test_steps_are_those_of_its_own_scheduler(tmp_path, prediction, channels, flat):
    unet, steps = make(tmp_path, channels=channels, flat=flat, prediction_type=prediction)
    model = load_pretrained(tmp_path)
    latent, condition = torch.randn(2, 3, 16, 16), torch.rand(2, 3, 16, 16) * 2 - 1
    given = torch.cat([condition, latent], dim=1) if channels == 6 else latent
    for t in (1, 7, STEPS):
        with torch.no_grad():
            output = unet(given, t - 1).sample
        wanted = steps.step(output, t - 1, latent, generator=torch.manual_seed(t))
        noise = torch.randn(latent.shape, generator=torch.manual_seed(t))
        level = torch.full((2,), float(model.schedule.noise_level(t)))
        x0, j = model.predict(latent, condition, level), model.schedule.jump(t, t - 1)
        torch.testing.assert_close(x0, wanted.pred_original_sample, atol=1e-5, rtol=0)
        got = float(j.x0_coef) * x0 + float(j.xt_coef) * latent + float(j.std) * noise
        torch.testing.assert_close(got, wanted.prev_sample, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scheduler", SCHEDULES, ids=range(len(SCHEDULES)))
def test_the_whole_chain_is_its_own_loop(tmp_path, monkeypatch, scheduler):
    """diffusers' loop with the same draws: x_T, and one when a level is reached."""
    unet, steps = make(tmp_path, **scheduler)
    model, key = load_pretrained(tmp_path), NoiseKey(1, 2)
    condition = torch.rand(1, 3, 16, 16) * 2 - 1
    x, reached = keyed_normal([key], [STEPS], (3, 16, 16)), STEPS
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor",
        lambda shape, **_: keyed_normal([key], [reached], tuple(shape[1:])),
    )
    for t in steps.timesteps:
        reached = int(t)
        with torch.no_grad():
            x = steps.step(unet(torch.cat([condition, x], dim=1), t).sample, t, x).prev_sample
    process = SkipProcess(model, STEPS, 0)
    got = process.finish(process.start(condition, [key])).x0
    torch.testing.assert_close(got, x, atol=2e-4, rtol=0)  # diffusers' tables are float32
    assert model.schedule.steps == STEPS and 0.1 < x.std() < 1


def test_the_config_describes_it(tmp_path):
    make(tmp_path, extras={"scale": 8, "image_size": 48, "start": 2, "coarse_levels": "rebuilt"})
    model = load_pretrained(tmp_path)
    assert (model.scale, model.image_size, model.config.start) == (8, 48, 2)
    assert model.config.coarse_levels == "rebuilt" and model.config.unet.multiple == 2
    assert model.condition(torch.zeros(1, 3, 4, 5, dtype=torch.uint8)).shape == (1, 3, 32, 40)
    assert NoiseSchedule.from_config(model.config.schedule).steps == STEPS
    odd = model.predict(torch.randn(1, 3, 15, 13), torch.zeros(1, 3, 15, 13), torch.tensor([0.9]))
    assert odd.shape == (1, 3, 15, 13) and odd.isfinite().all()


def test_without_a_condition_it_is_ignored(tmp_path):
    make(tmp_path, channels=3)
    model, latent, level = load_pretrained(tmp_path), torch.randn(1, 3, 16, 16), torch.tensor([0.95])
    one, other = (model.predict(latent, torch.full_like(latent, c), level) for c in (-1.0, 1.0))
    assert torch.equal(one, other) and model.scale == 4


def test_the_latent_may_come_first(tmp_path):
    unet, _ = make(tmp_path, extras={"latent_first": True})
    x = torch.randn(1, 6, 16, 16)
    got = load_pretrained(tmp_path).network(x, torch.tensor([1.0]))
    torch.testing.assert_close(got, unet(x[:, [3, 4, 5, 0, 1, 2]], 0).sample, atol=1e-5, rtol=0)


def test_timesteps(tmp_path):
    """Level t is timestep t - 1; between levels the nearest, a fraction, or √ᾱ itself."""
    schedule = None
    for kind in ("integer", "continuous", "level"):
        make(tmp_path / kind, extras={"timesteps": kind})
        model = load_pretrained(tmp_path / kind)
        schedule = schedule or model.schedule
        levels = torch.from_numpy(schedule.noise_level(np.arange(STEPS + 1))).float()
        between = levels[3:5] @ torch.tensor([0.75, 0.25])
        asked = torch.cat([levels[1:], between[None], torch.tensor([0.0, 1.0])])
        told = model.network.timestep(asked)
        exact = torch.arange(STEPS, dtype=torch.float32)
        ends = torch.tensor([STEPS - 1.0, 0.0])
        if kind == "integer":
            assert told.dtype == torch.int64
            assert told.tolist() == [*range(STEPS), 2, STEPS - 1, 0]
        elif kind == "continuous":
            wanted = torch.cat([exact, torch.tensor([2.25]), ends])
            torch.testing.assert_close(told, wanted, atol=2e-3, rtol=0)
        else:
            assert torch.equal(told, asked)


def test_a_fractional_timestep_reaches_the_network(tmp_path):
    unet, _ = make(tmp_path, extras={"timesteps": "continuous"})
    model, x = load_pretrained(tmp_path), torch.randn(1, 6, 16, 16)
    signal = model.schedule.noise_level([10, 11]).mean()
    got = model.network(x, torch.tensor([signal], dtype=torch.float32))
    torch.testing.assert_close(got, unet(x, torch.tensor([9.5])).sample, atol=1e-4, rtol=0)
    assert (got - unet(x, 9).sample).abs().max() > 1e-3


def test_old_names_of_attention_load(folder):
    """What diffusers before 0.11 wrote: query, key, value and proj_attn."""
    before = load_pretrained(folder)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    weights = {}
    for key, tensor in load_file(folder / WEIGHTS).items():
        for new, name in old.items():
            key = key.replace(new, name)
        weights[key] = tensor
    assert any(".proj_attn." in key for key in weights)
    save_file(weights, folder / WEIGHTS)
    x, level = torch.randn(1, 6, 16, 16), torch.tensor([0.9])
    after = load_pretrained(folder)
    assert torch.equal(before.network(x, level), after.network(x, level))


def test_it_is_loaded_once_and_known_by_what_it_computes(folder):
    first = load_pretrained(folder)
    assert load_pretrained(str(folder)) is first and len(first.hash) == 16
    seen = {first.hash}
    edit(folder / "scheduler_config.json", prediction_type="v_prediction")
    seen.add(load_pretrained(folder).hash)
    (folder / "skipdiff.json").write_text('{"latent_first": true}')
    seen.add(load_pretrained(folder).hash)
    assert len(seen) == 3


def brightness(images):
    return images.mean((1, 2, 3)) + 1


def test_an_episode(folder):
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    env = gymnasium.make("skipdiff_env:SkipDiff-v0", model=str(folder), images=[picture], metric=brightness)
    observation, info = env.reset(seed=0)
    assert observation.shape == (3, 16, 16) and info["evaluations"] == 9
    _, reward, done, _, info = env.step(0)
    assert done and info["evaluations"] == 11 and reward == info["metric"] > 1


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, change):
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


KEY = "mid_block.attentions.0.to_q.weight"
CONFIG, SCHEDULER = "config.json", "scheduler_config.json"
BROKEN = {
    "another network": (lambda f: edit(f / CONFIG, _class_name="Transformer"), [CONFIG, "UNet2DModel"]),
    "channels": (lambda f: edit(f / CONFIG, in_channels=4), [CONFIG, "in_channels", "4", "6 or 3"]),
    "learned variance": (lambda f: edit(f / CONFIG, out_channels=6), [CONFIG, "out_channels"]),
    "classes": (lambda f: edit(f / CONFIG, num_class_embeds=10), [CONFIG, "num_class_embeds"]),
    "fourier": (lambda f: edit(f / CONFIG, time_embedding_type="fourier"), [CONFIG, "fourier"]),
    "no such block": (lambda f: edit(f / CONFIG, down_block_types=["X", "Y"]), [CONFIG, "X"]),
    "another width": (lambda f: edit(f / CONFIG, block_out_channels=[8, 24]), [WEIGHTS, "shape"]),
    "no scheduler": (lambda f: (f / SCHEDULER).unlink(), [SCHEDULER, "missing"]),
    "another scheduler": (lambda f: edit(f / SCHEDULER, _class_name="EulerScheduler"), [SCHEDULER, "Euler"]),
    "prediction": (lambda f: edit(f / SCHEDULER, prediction_type="flow"), [SCHEDULER, "flow"]),
    "betas": (lambda f: edit(f / SCHEDULER, beta_schedule="round"), [SCHEDULER, "round"]),
    "zero signal": (lambda f: edit(f / SCHEDULER, rescale_betas_zero_snr=True), [SCHEDULER, "stay above 0"]),
    "no JSON": (lambda f: (f / SCHEDULER).write_text("{"), [SCHEDULER, "not JSON"]),
    "no object": (lambda f: (f / SCHEDULER).write_text("[]"), [SCHEDULER, "no JSON object"]),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), [WEIGHTS, "missing"]),
    "damaged": (lambda f: (f / WEIGHTS).write_bytes(b"no"), [WEIGHTS, "damaged"]),
    "missing key": (lambda f: edit_weights(f, lambda w: w.pop(KEY)), [WEIGHTS, KEY]),
    "unknown key": (lambda f: edit_weights(f, lambda w: w.update(wings=torch.zeros(1))), [WEIGHTS, "wings"]),
    "unknown extra": (lambda f: (f / "skipdiff.json").write_text('{"wings": 2}'), ["skipdiff.json", "wings"]),
    "bad extra": (lambda f: (f / "skipdiff.json").write_text('{"scale": 0}'), ["skipdiff.json", "scale"]),
    "bad timesteps": (lambda f: (f / "skipdiff.json").write_text('{"timesteps": "no"}'), ["skipdiff.json"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_other_folders_are_refused_naming_file_and_field(folder, name):
    spoil, words = BROKEN[name]
    spoil(folder)
    with pytest.raises(SkipDiffError) as caught:
        load_pretrained(folder)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_pickled_weights_are_not_opened(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(SkipDiffError, match=r"\.bin\) are never opened.*safe_serialization=True"):
        load_pretrained(folder)


def test_a_learned_embedding_knows_integers_alone(tmp_path):
    network = {"time_embedding_type": "learned", "num_train_timesteps": STEPS}
    make(tmp_path, network=network, extras={"timesteps": "continuous"})
    with pytest.raises(SkipDiffError, match="learned time embedding"):
        load_pretrained(tmp_path)


def test_without_the_package_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(SkipDiffError, match=r"pip install 'skipdiff\[diffusers\]'"):
        load_pretrained(folder)


def test_ids_of_the_hub(folder, tmp_path, monkeypatch):
    ours = save_model(tmp_path / "ours", random_model().network, tiny_config())
    asked = []

    def download(name, allow_patterns):
        asked.append(name)
        assert {"config.json", WEIGHTS, "ddpm.safetensors", "README.md"} <= set(allow_patterns)
        return {"someone/theirs": str(folder), "some-one/ours.1": str(ours)}[name]

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    try:
        assert load_pretrained("someone/theirs") is load_pretrained(folder)
        assert load_pretrained("some-one/ours.1") is load_pretrained(ours)
        env = gymnasium.make("skipdiff_env:SkipDiff-v0", model="someone/theirs", metric=brightness)
        assert env.unwrapped.process.model is load_pretrained(folder)
    finally:
        pretrained.fetched.cache_clear()
    assert asked == ["someone/theirs", "some-one/ours.1"]
    (tmp_path / "someone").mkdir()
    shutil.copytree(ours, tmp_path / "someone/theirs")
    assert load_pretrained("someone/theirs").name == "theirs" and len(asked) == 2  # a folder comes first


def test_offline_the_folder_to_fill_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SkipDiffError) as caught:
        load_pretrained("google/ddpm-cat-256")
    message = str(caught.value)
    with pytest.raises(SkipDiffError, match="put its files into"):
        gymnasium.make("skipdiff_env:SkipDiff-v0", model="google/ddpm-cat-256")
    assert str(tmp_path / "google" / "ddpm-cat-256") in message and "the tests have no network" in message
    make(tmp_path / "google" / "ddpm-cat-256")
    assert load_pretrained("google/ddpm-cat-256").name == "ddpm-cat-256"


def test_an_empty_repository_and_a_missing_package(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(tmp_path))
    with pytest.raises(SkipDiffError, match=r"holds no config\.json"):
        load_pretrained("some/thing")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SkipDiffError, match="huggingface_hub is missing"):
        load_pretrained("some/thing")


@pytest.mark.parametrize("name", ["natural-5x", "./a/b", "/a/b", "a/b/c", "../b", "a/", "a b/c"])
def test_what_is_no_id_is_not_looked_for(name):
    assert not hub.looks_like_hub_id(name)
