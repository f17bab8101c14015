"""Independent float64 forward pass of SR3's U-Net from a bare dictionary of weights, one image at a time.

Written from the description of the network in SR3 (Saharia et al., TPAMI 2022) and of its PyTorch
re-implementation: plain numpy loops over named weights, no modules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Array = np.ndarray


def swish(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def conv(x: Array, weight: Array, bias: Array | None, stride: int = 1) -> Array:
    """Convolution of (C, H, W) with zero padding that keeps the size at stride 1."""
    _, inputs, k, _ = weight.shape
    assert x.shape[0] == inputs
    pad = k // 2
    height, width = x.shape[1:]
    padded = np.zeros((inputs, height + 2 * pad, width + 2 * pad))
    padded[:, pad : pad + height, pad : pad + width] = x
    out = 0.0
    for dy in range(k):
        for dx in range(k):
            shifted = padded[:, dy : dy + height : stride, dx : dx + width : stride]
            out = out + np.tensordot(weight[:, :, dy, dx], shifted, axes=(1, 0))
    return out if bias is None else out + bias[:, None, None]


def group_norm(x: Array, groups: int, weight: Array, bias: Array) -> Array:
    out = np.empty_like(x)
    size = len(x) // groups
    for g in range(groups):
        part = x[g * size : (g + 1) * size]
        out[g * size : (g + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    return out * weight[:, None, None] + bias[:, None, None]


def attention(x: Array, weights: Mapping[str, Array], prefix: str, groups: int) -> Array:
    """Single head over all pixels, scale 1/√C."""
    channels, height, width = x.shape
    normed = group_norm(x, groups, weights[f"{prefix}.norm.weight"], weights[f"{prefix}.norm.bias"])
    qkv = conv(normed, weights[f"{prefix}.qkv.weight"], None).reshape(3, channels, height * width)
    query, key, value = qkv
    scores = query.T @ key / math.sqrt(channels)  # (pixel, pixel)
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    attended = (value @ scores.T).reshape(channels, height, width)
    return x + conv(attended, weights[f"{prefix}.out.weight"], weights[f"{prefix}.out.bias"])


def level_features(level: float, width: int, kind: str = "signal") -> Array:
    """Half sines, half cosines."""
    position = level
    if kind == "log_snr":
        power = min(max(level * level, 1e-9), 1 - 1e-6)
        position = 8 * math.log(power / (1 - power))
    angles = [position * math.exp(-math.log(1e4) * i / (width // 2)) for i in range(width // 2)]
    return np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def residual_block(
    x: Array, features: Array, weights: Mapping[str, Array], prefix: str, groups: int
) -> Array:
    w = {key[len(prefix) + 1 :]: value for key, value in weights.items() if key.startswith(prefix + ".")}
    h = swish(group_norm(x, groups, w["block1.block.0.weight"], w["block1.block.0.bias"]))
    h = conv(h, w["block1.block.3.weight"], w["block1.block.3.bias"])
    shift = w["noise_func.noise_func.0.weight"] @ features + w["noise_func.noise_func.0.bias"]
    h = h + shift[:, None, None]
    h = swish(group_norm(h, groups, w["block2.block.0.weight"], w["block2.block.0.bias"]))
    h = conv(h, w["block2.block.3.weight"], w["block2.block.3.bias"])
    return h + (conv(x, w["res_conv.weight"], w["res_conv.bias"]) if "res_conv.weight" in w else x)


def fold(x: Array, patch: int) -> Array:
    """(C, H, W) → (C·p·p, H/p, W/p): channel c·p² + i·p + j holds pixel (i, j) of every block."""
    cells = [x[c, i::patch, j::patch] for c in range(len(x)) for i in range(patch) for j in range(patch)]
    return np.stack(cells)


def unfold(x: Array, patch: int) -> Array:
    channels, height, width = len(x) // patch**2, x.shape[1] * patch, x.shape[2] * patch
    out = np.empty((channels, height, width))
    for c in range(channels):
        for i in range(patch):
            for j in range(patch):
                out[c, i::patch, j::patch] = x[c * patch**2 + i * patch + j]
    return out


def unet(x: Array, level: float, weights: Mapping[str, Array], config: Mapping[str, object]) -> Array:
    """(6, H, W) = [condition, latent] and √ᾱ → (3, H, W); H and W multiples of the network's."""
    groups, patch, width = config["norm_groups"], config["patch_size"], config["channels"]
    e = level_features(level, width, config["level_embedding"])
    e = weights["noise_level_mlp.1.weight"] @ e + weights["noise_level_mlp.1.bias"]
    e = weights["noise_level_mlp.3.weight"] @ swish(e) + weights["noise_level_mlp.3.bias"]

    def layer(name: str, x: Array) -> Array:
        if f"{name}.res_block.block1.block.0.weight" not in weights:
            if name == "downs.0":
                return conv(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
            if name.startswith("ups"):
                x = x.repeat(2, axis=1).repeat(2, axis=2)
            stride = 2 if name.startswith("downs") else 1
            return conv(x, weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"], stride)
        x = residual_block(x, e, weights, f"{name}.res_block", groups)
        return attention(x, weights, f"{name}.attn", groups) if f"{name}.attn.qkv.weight" in weights else x

    x = fold(x, patch)
    skips = []
    for i in range(1 + max(int(k.split(".")[1]) for k in weights if k.startswith("downs."))):
        x = layer(f"downs.{i}", x)
        skips.append(x)
    for i in range(2):
        x = layer(f"mid.{i}", x)
    for i in range(1 + max(int(k.split(".")[1]) for k in weights if k.startswith("ups."))):
        if f"ups.{i}.res_block.block1.block.0.weight" in weights:
            x = np.concatenate([x, skips.pop()])
        x = layer(f"ups.{i}", x)
    x = swish(group_norm(x, groups, weights["final_conv.block.0.weight"], weights["final_conv.block.0.bias"]))
    return unfold(conv(x, weights["final_conv.block.3.weight"], weights["final_conv.block.3.bias"]), patch)
