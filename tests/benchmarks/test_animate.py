"""The pictures of README and the manual, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.paper.animate import CALLS, ENLARGED, SIDE, WIDTH
from skipdiff_env.diffusion import random_model, save_model, tiny_config
from skipdiff_env.images import make_pair, open_source


def test_a_photograph_before_and_after_and_two_episodes(tmp_path: Path) -> None:
    tiny = random_model(tiny_config())
    folder = save_model(tmp_path / "tiny-4x", tiny.network, tiny.config)
    assert main(["animate", "--model", str(folder), "--out", str(tmp_path / "results")]) == 0
    made = tmp_path / "results" / "tiny-4x"
    for name, decisions in (("skipdiff-v0", 9), ("skipdiff-v1", CALLS)):
        with Image.open(made / f"{name}.webp") as episode:
            assert episode.n_frames == decisions + 1 and episode.width == WIDTH  # type: ignore[attr-defined]
    with Image.open(made / "before-after.webp") as opened:
        strip = np.asarray(opened.convert("RGB")).astype(float)
    assert strip.shape[0] > SIDE and strip.shape[1] >= 3 * SIDE
    first = strip[-SIDE:, :SIDE].reshape(SIDE // 4, 4, SIDE // 4, 4, 3).mean(axis=(1, 3))
    lr = make_pair(open_source(), ENLARGED, scale=4, image_size=SIDE).lr
    assert np.abs(first - lr).mean() < 4, "the left panel is the input, but for WebP's losses"
