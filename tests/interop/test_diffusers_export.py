"""Our models as diffusers model folders, which diffusers itself reads."""

import numpy as np
import pytest
import torch

from skipdiff_env.cli import main
from skipdiff_env.diffusion import (
    FrozenModel,
    ModelConfig,
    NoiseSchedule,
    UNet,
    UNetConfig,
    load_pretrained,
    random_model,
    save_model,
)
from skipdiff_env.diffusion.interop.diffusers_export import _describe, _translate, export_diffusers
from skipdiff_env.diffusion.restorer import Restorer, RestorerConfig, RestorerNetwork
from skipdiff_env.errors import SkipDiffError

from .test_diffusers import make

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")

OURS = UNetConfig(
    channels=16, multipliers=(1, 2, 2), res_blocks=2, norm_groups=4, image_size=32, attention_sizes=(8,)
)


@pytest.mark.parametrize(
    "changes",
    [
        {"prediction": "noise"},
        {"prediction": "v", "target": "residual", "residual_scale": 3.0, "start": 7},
        {"unet": UNetConfig(16, (1, 1), 1, 8, 0.0, 32, (32,), False, level_embedding="log_snr"), "scale": 2},
        {"schedule": NoiseSchedule.linear(50, 1e-4, 0.1).config, "coarse_levels": "rebuilt"},
    ],
)
def test_an_exported_model_computes_the_same(tmp_path, changes):
    model = random_model(ModelConfig(**{"scale": 4, "image_size": 32, "unet": OURS, **changes}))
    folder = export_diffusers(model, tmp_path / "out")
    back = load_pretrained(folder)
    unet = diffusers.UNet2DModel.from_pretrained(folder).eval()
    steps = diffusers.DDPMScheduler.from_pretrained(folder)
    top = model.schedule.steps
    assert steps.config.num_train_timesteps == top == back.schedule.steps
    np.testing.assert_allclose(back.schedule.alpha_bar, model.schedule.alpha_bar, rtol=1e-9)
    for name in ("scale", "image_size", "prediction", "target", "residual_scale", "start", "coarse_levels"):
        assert getattr(back.config, name) == getattr(model.config, name)
    latent, condition = torch.randn(2, 3, 32, 32), torch.rand(2, 3, 32, 32) * 2 - 1
    x = torch.cat([condition, latent], dim=1)
    for t in (1, top // 2, top):
        level = torch.full((2,), float(model.schedule.noise_level(t)))
        wanted = model.network(x, level)
        torch.testing.assert_close(back.network(x, level), wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(unet(x, t - 1).sample, wanted, atol=1e-5, rtol=0)
    if model.config.target == "image":
        wanted = model.predict(latent, condition, level.fill_(float(model.schedule.noise_level(5))))
        got = steps.step(unet(x, 4).sample, 4, latent).pred_original_sample
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    assert model.network.state_dict()["downs.0.weight"].shape == (16, 6, 3, 3)  # untouched


def test_the_layout_of_the_full_network(tmp_path):
    for size in (128, 256, 160):
        config = UNetConfig(image_size=size)
        with torch.device("meta"):
            ours, theirs = UNet(config), diffusers.UNet2DModel(**_describe(config, 100))
        wanted = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
        levels = torch.from_numpy(NoiseSchedule.cosine().noise_level(np.arange(1, 101)))
        assert {key: tuple(value.shape) for key, value in _translate(ours, levels)} == wanted


@pytest.mark.parametrize(
    "unet, word",
    [
        ({"patch_size": 2}, "patch_size 1, not 2"),
        ({"multipliers": (2, 4)}, "multipliers to begin with 1"),
    ],
)
def test_what_diffusers_cannot_express_is_refused(tmp_path, unet, word):
    config = UNetConfig(**{**vars(OURS), **unet})
    model = random_model(ModelConfig(scale=4, image_size=32, unet=config))
    with pytest.raises(SkipDiffError, match=word):
        export_diffusers(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_behind_a_restorer_is_refused(tmp_path):
    model = random_model(ModelConfig(scale=4, image_size=32, unet=OURS))
    restorer = Restorer(RestorerNetwork(RestorerConfig(4, 1)), RestorerConfig(4, 1))
    behind = FrozenModel(model.network, model.config, restorer=restorer)
    with pytest.raises(SkipDiffError, match="a diffusers model folder has no restorer"):
        export_diffusers(behind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_ours_is_refused(tmp_path):
    make(tmp_path / "theirs")
    with pytest.raises(SkipDiffError, match="not a network of SkipDiff"):
        export_diffusers(tmp_path / "theirs", tmp_path / "out")


def test_a_model_is_not_exported_over_itself(tmp_path):
    model = random_model(ModelConfig(scale=4, image_size=32, unet=OURS))
    ours = save_model(tmp_path / "ours", model.network, model.config)
    with pytest.raises(SkipDiffError, match="ours holds a model already"):
        export_diffusers(ours, ours)
    assert sorted(path.name for path in ours.iterdir()) == ["config.json", "ddpm.safetensors"]


def test_the_command(tmp_path, capsys):
    model = random_model(ModelConfig(scale=4, image_size=32, unet=OURS))
    save_model(tmp_path / "ours", model.network, model.config, dtype=torch.float32)
    assert main(["export-diffusers", str(tmp_path / "ours"), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {0o644}
    x, level = torch.randn(1, 6, 32, 32), torch.tensor([model.schedule.noise_level(9)], dtype=torch.float32)
    got = load_pretrained(tmp_path / "out").network(x, level)
    torch.testing.assert_close(got, model.network(x, level), atol=1e-5, rtol=0)
    tiny = random_model()
    save_model(tmp_path / "tiny", tiny.network, tiny.config)
    assert main(["export-diffusers", str(tmp_path / "tiny"), "-o", str(tmp_path / "no")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("skipdiff: error: ") and "patch_size" in error and not (tmp_path / "no").exists()
