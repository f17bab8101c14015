"""The U-Net: the authors' configurations, the arithmetic of every part in float64, any input size."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from skipdiff_env.diffusion import NoiseSchedule, UNet, UNetConfig, random_model, tiny_config
from skipdiff_env.diffusion.unet import ResidualBlock, SelfAttention, SinusoidalEmbedding, pad_to_multiple
from tests.reference import unet64

AUTHORS = [(128, 97_807_491, 362), (256, 97_807_491, 362), (160, 92_556_931, 337)]


def on_meta(config):
    with torch.device("meta"):
        return UNet(config)


def published_layout(attending):
    """Every key and shape of SR3's network (64; 1 2 4 8 8; two blocks a level), spelled out by hand."""
    found = {}

    def add(name, shape):
        found[f"{name}.weight"], found[f"{name}.bias"] = shape, (shape[0],)

    def stage(name, inputs, outputs, attend):
        block = f"{name}.res_block"
        add(f"{block}.noise_func.noise_func.0", (outputs, 64))
        add(f"{block}.block1.block.0", (inputs,))
        add(f"{block}.block1.block.3", (outputs, inputs, 3, 3))
        add(f"{block}.block2.block.0", (outputs,))
        add(f"{block}.block2.block.3", (outputs, outputs, 3, 3))
        if inputs != outputs:
            add(f"{block}.res_conv", (outputs, inputs, 1, 1))
        if attend:
            add(f"{name}.attn.norm", (outputs,))
            found[f"{name}.attn.qkv.weight"] = (3 * outputs, outputs, 1, 1)
            add(f"{name}.attn.out", (outputs, outputs, 1, 1))

    add("noise_level_mlp.1", (256, 64))
    add("noise_level_mlp.3", (64, 256))
    add("downs.0", (64, 6, 3, 3))
    downs = [
        *((64, 64, 0), (64, 64, 0), 64),
        *((64, 128, 1), (128, 128, 1), 128),
        *((128, 256, 2), (256, 256, 2), 256),
        *((256, 512, 3), (512, 512, 3), 512),
        *((512, 512, 4), (512, 512, 4)),
    ]
    ups = [
        *((1024, 512, 4), (1024, 512, 4), (1024, 512, 4), 512),
        *((1024, 512, 3), (1024, 512, 3), (768, 512, 3), 512),
        *((768, 256, 2), (512, 256, 2), (384, 256, 2), 256),
        *((384, 128, 1), (256, 128, 1), (192, 128, 1), 128),
        *((192, 64, 0), (128, 64, 0), (128, 64, 0)),
    ]
    for side, first, layers in (("downs", 1, downs), ("ups", 0, ups)):
        for i, layer in enumerate(layers, first):
            if isinstance(layer, int):
                add(f"{side}.{i}.conv", (layer, layer, 3, 3))
            else:
                stage(f"{side}.{i}", layer[0], layer[1], layer[2] == attending)
    stage("mid.0", 512, 512, True)
    stage("mid.1", 512, 512, False)
    add("final_conv.block.0", (64,))
    add("final_conv.block.3", (3, 64, 3, 3))
    return found


@pytest.mark.parametrize("image_size, weights, tensors", AUTHORS)
def test_the_authors_configurations(image_size, weights, tensors):
    network = on_meta(UNetConfig(image_size=image_size))
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == weights
    assert len(state) == tensors
    attending = {128: 3, 256: 4, 160: None}[image_size]  # the level that is 16 wide
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == published_layout(attending)


@pytest.mark.parametrize(
    "image_size, side, operators, gmac",
    [
        (128, 128, ("addmm", "convolution", "bmm"), 46.18),
        (160, 256, ("addmm", "convolution"), 177.98),  # the paper's figure leaves attention's products out
    ],
)
def test_multiply_adds_a_call(image_size, side, operators, gmac):
    network = on_meta(UNetConfig(image_size=image_size))
    with FlopCounterMode(display=False) as counter:
        out = network(torch.empty(1, 6, side, side, device="meta"), torch.empty(1, device="meta"))
    assert out.shape == (1, 3, side, side)
    counts = counter.get_flop_counts()["Global"]
    total = sum(n for op, n in counts.items() if any(str(op).endswith(f".{name}") for name in operators))
    assert round(total / 2e9, 2) == gmac


CONFIGS = {
    "patch 1, attention at one level": UNetConfig(
        channels=8, multipliers=(1, 2, 3), norm_groups=4, dropout=0.3, image_size=16, attention_sizes=(8,)
    ),
    "patch 2, log SNR": UNetConfig(
        channels=8, multipliers=(1, 2), res_blocks=1, norm_groups=2, image_size=16, attention_sizes=(16, 8),
        middle_attention=False, patch_size=2, level_embedding="log_snr",
    ),
    "patch 4, one level": UNetConfig(
        channels=12, multipliers=(2,), res_blocks=3, norm_groups=3, image_size=16, attention_sizes=(),
        patch_size=4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_whole_network_in_float64(config):
    torch.manual_seed(0)
    network = UNet(config).eval()
    x, level = torch.randn(2, 6, 16, 8), torch.tensor([0.9, 0.05])
    weights = {k: v.double().numpy() for k, v in network.state_dict().items()}
    with torch.no_grad():
        got = network(x, level)
        column = network(x, level[:, None])
    assert torch.equal(got, column)
    for row in range(2):
        wanted = unet64.unet(x[row].double().numpy(), level[row].double().item(), weights, vars(config))
        np.testing.assert_allclose(got[row].numpy(), wanted, atol=2e-5)
    assert abs(got).mean() > 0.01


@pytest.mark.parametrize("outputs", [8, 12])
def test_residual_block(outputs):
    torch.manual_seed(0)
    block = ResidualBlock(8, outputs, 6, groups=4, dropout=0.5).eval()
    with torch.no_grad():
        for parameter in block.parameters():  # norms too must differ from the identity
            parameter.add_(0.3 * torch.randn_like(parameter))
        x, embedding = torch.randn(2, 8, 5, 7), torch.randn(2, 6)
        got = block(x, embedding)
    weights = {f"b.{k}": v.double().numpy() for k, v in block.state_dict().items()}
    for row in range(2):
        wanted = unet64.residual_block(
            x[row].double().numpy(), embedding[row].double().numpy(), weights, "b", 4
        )
        np.testing.assert_allclose(got[row].numpy(), wanted, atol=2e-5)


def test_attention():
    torch.manual_seed(0)
    layer = SelfAttention(8, groups=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(2).add_(0.3 * torch.randn_like(parameter))
        x = torch.randn(2, 8, 5, 3)
        got = layer(x)
    weights = {f"a.{k}": v.double().numpy() for k, v in layer.state_dict().items()}
    for row in range(2):
        np.testing.assert_allclose(
            got[row], unet64.attention(x[row].double().numpy(), weights, "a", 2), atol=2e-5
        )


@pytest.mark.parametrize("kind", ["signal", "log_snr"])
def test_level_embedding(kind):
    levels = torch.tensor([1.0, 0.99968431, 0.5, 0.00049280547])
    got = SinusoidalEmbedding(10, kind)(levels)
    wanted = [unet64.level_features(level.item(), 10, kind) for level in levels]
    np.testing.assert_allclose(got.numpy(), wanted, atol=2e-5)
    assert got.dtype == torch.float32
    if kind == "signal":  # unscaled: the level itself is the fastest angle
        assert got[2, 0].item() == pytest.approx(math.sin(0.5), abs=1e-6)


def test_log_snr_tells_the_last_levels_apart():
    """√ᾱ of neighbouring low levels is almost the same; what is embedded must not be."""
    levels = torch.from_numpy(NoiseSchedule.cosine().noise_level(np.arange(1, 101)))
    gaps = {
        k: SinusoidalEmbedding(32, k)(levels).diff(dim=0).norm(dim=1).min() for k in ("signal", "log_snr")
    }
    assert gaps["log_snr"] > 0.1 > gaps["signal"]


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (2, 31), (17, 16), (8, 16), (40, 9)])
def test_any_input_size(patch_size, size):
    config = replace(tiny_config().unet, patch_size=patch_size, attention_sizes=(32,), middle_attention=True)
    network = random_model(tiny_config(unet=config)).network
    x = torch.randn(2, 6, *size)
    out = network(x, torch.tensor([0.5, 0.9]))
    assert out.shape == (2, 3, *size) and out.isfinite().all()
    padded = pad_to_multiple(x, config.multiple)
    assert all(side % config.multiple == 0 for side in padded.shape[-2:])
    whole = network(padded, torch.tensor([0.5, 0.9]))
    torch.testing.assert_close(out, whole[..., : size[0], : size[1]], atol=1e-6, rtol=0)


def test_padding_reflects_where_it_can_and_repeats_the_edge_where_not():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert pad_to_multiple(x, 1) is x
    for multiple, bottom, right, mode in [(4, 1, 0, "reflect"), (5, 2, 1, "reflect"), (16, 13, 12, "edge")]:
        wanted = np.pad(x[0, 0].numpy(), ((0, bottom), (0, right)), mode)
        np.testing.assert_array_equal(pad_to_multiple(x, multiple)[0, 0], wanted)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_zero_initialised_networks_say_nothing(patch_size):
    config = replace(CONFIGS["patch 1, attention at one level"], patch_size=patch_size, zero_init=True)
    network = UNet(config)
    x = torch.randn(2, 6, 16, 16)
    assert (network(x, torch.tensor([0.5, 0.9])) == 0).all()
    features, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 8)
    block = network.downs[1]
    assert torch.equal(block(features, embedding), features)  # a fresh block is the identity
    deep = torch.randn(2, 24, 4, 4)
    assert torch.equal(network.mid[0](deep, embedding), deep)
    (network(x, torch.tensor([0.5, 0.9])) - 1).square().sum().backward()  # … and still learns
    assert network.final_conv.block[-1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_attention_sizes_count_pixels_whatever_the_patch_size(patch_size):
    """Level i of a 32-pixel network is 32 >> i pixels wide, however many of them make a cell."""
    config = replace(
        tiny_config().unet, image_size=32, patch_size=patch_size, multipliers=(1, 1, 1), attention_sizes=(16,)
    )
    attending = {key.split(".attn")[0] for key in on_meta(config).state_dict() if "qkv" in key}
    assert attending == {"downs.3", "ups.3", "ups.4"}


def test_padding_multiple():
    assert UNetConfig().multiple == 16
    assert replace(tiny_config().unet, patch_size=4, multipliers=(1, 2, 3)).multiple == 16


def test_dropout_sits_in_the_second_half_of_a_block_and_acts_in_training_only():
    network = UNet(CONFIGS["patch 1, attention at one level"])
    found = [name for name, m in network.named_modules() if isinstance(m, torch.nn.Dropout)]
    assert found and all(name.endswith("block2.block.2") for name in found)
    x, level = torch.randn(1, 6, 16, 16), torch.tensor([0.5])
    assert not torch.equal(network(x, level), network(x, level))
    network.eval()
    assert torch.equal(network(x, level), network(x, level))


def test_unknown_embeddings_are_refused():
    with pytest.raises(ValueError, match="unknown level_embedding 'sigma'"):
        UNet(replace(tiny_config().unet, level_embedding="sigma"))
