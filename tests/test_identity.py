"""What is kept between runs, or shared between models, is told apart by the model's hash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import skipdiff_env
from skipdiff_env import SkipDiffError, SkipDiffSampler
from skipdiff_env.chains import CSA, SkipDiff, with_detail
from skipdiff_env.diffusion import NoiseKey, NoiseSchedule, random_model, tiny_config
from skipdiff_env.envs.recordings import Recordings
from skipdiff_env.latent_cache import CachedProcess, LatentCache
from skipdiff_env.planning import PlanSearch
from skipdiff_env.policies.base import FixedStart

IMAGES = [np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8) for i in range(2)]


class Nameless:
    """A model of one's own, without a hash."""

    schedule, scale, image_size = NoiseSchedule.cosine(20), 4, 32

    def predict(self, latent: torch.Tensor, condition: torch.Tensor, noise_level: torch.Tensor) -> Any:
        return condition


def test_a_model_without_a_hash_keeps_nothing(tmp_path: Path) -> None:
    whole = {"model": Nameless(), "images": IMAGES, "metric": "psnr", "coarse_steps": 5, "fine_steps": 4}
    match = "needs a model with a hash, .* give Nameless an attribute hash"
    with pytest.raises(SkipDiffError, match="a recording " + match):
        gymnasium.make("SkipDiffRecorded-v0", **whole, recordings=tmp_path)
    with pytest.raises(SkipDiffError, match="a latent cache " + match):
        gymnasium.make("SkipDiff-v0", **whole, cache=LatentCache())
    with pytest.raises(SkipDiffError, match="a study " + match):
        PlanSearch(Nameless(), IMAGES, "psnr", image_size=32, study=tmp_path / "a.study")
    PlanSearch(Nameless(), IMAGES, "psnr", image_size=32)
    env = gymnasium.make("SkipDiff-v0", **whole)
    env.reset(seed=0)
    assert env.step(0)[1] == 0


def test_a_policy_may_change_what_it_sees_but_not_the_picture() -> None:
    """Nor what a cache holds."""
    model, cache = random_model(tiny_config(image_size=32)), LatentCache()
    condition = model.condition(torch.from_numpy(IMAGES[0][:8, :8]).permute(2, 0, 1)[None])
    keys = [NoiseKey(1, 0)]

    class Careless:
        def __init__(self) -> None:
            self.plan = FixedStart(7, 10)

        def __call__(self, latent: torch.Tensor, memory: Any) -> Any:
            chosen = self.plan(latent, memory)
            latent.clamp_(-0.1, 0.1)
            return chosen

    def cached(*arguments: Any) -> CachedProcess:
        return CachedProcess(*arguments, cache=cache)

    expected = SkipDiff(FixedStart(7, 10))(model, condition, keys).x0
    assert torch.equal(SkipDiff(Careless(), process=cached)(model, condition, keys).x0, expected)
    other = SkipDiff(FixedStart(9, 10), process=cached)(model, condition, keys)
    assert torch.equal(other.x0, SkipDiff(FixedStart(9, 10))(model, condition, keys).x0)


def test_a_warm_chain_tells_the_same_levels_and_states() -> None:
    model, cache = random_model(tiny_config(image_size=32)), LatentCache()
    condition = torch.zeros(2, 3, 32, 32)
    keys = [NoiseKey(1, 0), NoiseKey(2, 0)]

    def cached(*arguments: Any) -> CachedProcess:
        return CachedProcess(*arguments, cache=cache)

    cold = SkipDiff(FixedStart(7, 10))(model, condition, keys)
    for _ in range(2):
        states: list[Any] = []
        warm = SkipDiff(FixedStart(7, 10), process=cached)(model, condition, keys, states.append)
        seen = [(int(state.level[0]), len(state.x0)) for state in states]
        assert warm.levels == cold.levels == (100, 90, 80, 70, 60, 50, 40, 30, 20, 10, *range(9, -1, -1))
        assert [level for level, _ in seen] == [*warm.levels[1:]] and {rows for _, rows in seen} == {2}
    assert CSA(10)(model, condition, keys).levels == tuple(range(100, -1, -10))


def test_no_mean_is_told_where_the_noise_is_predicted() -> None:
    config = replace(tiny_config(image_size=32), prediction="noise")
    model = random_model(config)
    with pytest.raises(SkipDiffError, match=r"detail=0\.5: .* predicts the noise, .* use detail 1"):
        SkipDiffSampler(model, detail=0.5)(IMAGES[0][:8, :8])
    assert with_detail(CSA(5), 1, model) == CSA(5)


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"metric": "ssim"}, "metric"), ({"fine_steps": 5}, "fine_steps"), ({"skip_rule": "hold"}, "skip_rule"),
     ({"model": random_model(tiny_config(image_size=32), seed=5)}, "model")],
)  # fmt: skip
def test_open_recordings_must_be_of_what_is_asked_for(
    changes: dict[str, Any], name: str, tmp_path: Path
) -> None:
    model = random_model(tiny_config(image_size=32))
    whole = {"model": model, "images": IMAGES, "metric": "psnr", "fine_steps": 3, "noise_seeds": 1}
    process = skipdiff_env.diffusion.SkipProcess(model, 10, 3)
    pair = gymnasium.make(
        "SkipDiffRecorded-v0", **whole, recordings=tmp_path
    ).unwrapped._episodes.recordings.pair
    open_ = Recordings(process, pair, "psnr", tmp_path)
    made = gymnasium.make("SkipDiffRecorded-v0", **whole, recordings=open_)
    assert made.reset(seed=0)[0] is not None
    with pytest.raises(SkipDiffError, match=f"the recordings were made with {name}="):
        gymnasium.make("SkipDiffRecorded-v0", **whole | changes, recordings=open_)


def test_seeds_and_pictures_of_wrong_types_are_named() -> None:
    model = random_model(tiny_config(image_size=32))
    for seed in (1.0, "1", [0.5]):
        with pytest.raises(SkipDiffError, match=r"seed=.* must be a whole number"):
            SkipDiffSampler(model)(IMAGES[0][:8, :8], 1, seed=seed)
    with pytest.raises(SkipDiffError, match="the image"):
        skipdiff_env.find_optimum(model, IMAGES[0] / 255, metric="psnr", fine_steps=2)
    with pytest.raises(SkipDiffError, match="step_cost"):
        gymnasium.make("SkipDiff-v0", model=model, images=IMAGES, metric="psnr", step_cost=("a", "b"))
