"""The frozen diffusion model and SkipDiff's process. Importing this package needs only torch, NumPy and
safetensors."""

from .calls import Call, CallProcess, CallState
from .folder import save_model
from .model import FrozenModel, ModelConfig, random_model, tiny_config
from .noise import NoiseKey, image_key, keyed_normal
from .pretrained import available_models, load_pretrained
from .process import DENOISE, SKIP, SkipProcess, SkipState, start_actions
from .protocol import DiffusionModel, as_model
from .resize import bicubic, degrade, to_signed, to_uint8
from .schedule import NoiseSchedule
from .unet import UNet, UNetConfig

__all__ = [
    "DENOISE",
    "SKIP",
    "Call",
    "CallProcess",
    "CallState",
    "DiffusionModel",
    "FrozenModel",
    "ModelConfig",
    "NoiseKey",
    "NoiseSchedule",
    "SkipProcess",
    "SkipState",
    "UNet",
    "UNetConfig",
    "as_model",
    "available_models",
    "bicubic",
    "degrade",
    "image_key",
    "keyed_normal",
    "load_pretrained",
    "random_model",
    "save_model",
    "start_actions",
    "tiny_config",
    "to_signed",
    "to_uint8",
]
