"""The choice of a device."""

from __future__ import annotations

import pytest
import torch

from skipdiff_env.diffusion import load_pretrained
from skipdiff_env.diffusion.device import pick_device
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.training.distributed import training_device


def test_devices_that_are_there() -> None:
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == training_device("cpu")
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "rubbish", "meta", ""])
@pytest.mark.parametrize("use", [pick_device, training_device, lambda name: load_pretrained("face-8x", name)])
def test_a_device_that_is_not_there_is_refused_alike(name, use) -> None:
    with pytest.raises(SkipDiffError, match=f"there is no device '{name}' here: use auto or cpu"):
        use(name)
