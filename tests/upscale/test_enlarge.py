"""From one photograph to a larger one: sizes, depth, grey, transparency, repeated runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skipdiff_env.chains import parse, with_detail
from skipdiff_env.diffusion import FrozenModel, bicubic, random_model, tiny_config
from skipdiff_env.diffusion.resize import fix_colours, to_planes, to_signed
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images.photo import Photo
from skipdiff_env.policies.file import save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig
from skipdiff_env.sampler import SkipDiffSampler
from skipdiff_env.upscale import Comparison, Enlarger, Scaling, side_by_side
from skipdiff_env.upscale.enlarge import MIN_SIDE, passes
from tests.images.photo_files import scene

from .conftest import enlarged


@pytest.mark.parametrize(
    ("scaling", "size", "target"),
    [
        (Scaling(), (100, 50), (400, 200)),
        (Scaling(2), (101, 51), (202, 102)),
        (Scaling(2.5), (101, 51), (252, 128)),
        (Scaling(width=1920), (640, 480), (1920, 1440)),
        (Scaling(height=1080), (640, 480), (1440, 1080)),
        (Scaling(width=1920, height=1080), (640, 480), (1440, 1080)),
        (Scaling(width=1000, height=9000), (640, 480), (1000, 750)),
        (Scaling(width=1920), (1000, 4), (1920, 8)),
    ],
)
def test_target_sizes(scaling: Scaling, size: tuple[int, int], target: tuple[int, int]) -> None:
    assert scaling.target(size, 4) == target


@pytest.mark.parametrize(
    ("scaling", "size", "message"),
    [
        (Scaling(1), (100, 50), "which is not larger"),
        (Scaling(1.004), (100, 50), "100x50 would become 100x50, which is not larger"),
        (Scaling(width=100), (100, 50), "which is not larger"),
        (Scaling(width=900, height=40), (100, 50), "100x50 would become 80x40, which is not larger"),
        (Scaling(), (1, 1), "1x1 is too small"),
        (Scaling(), (500, MIN_SIDE - 1), "too small"),
    ],
)
def test_what_is_no_enlargement(scaling: Scaling, size: tuple[int, int], message: str) -> None:
    with pytest.raises(SkipDiffError, match=message):
        scaling.target(size, 4)


@given(
    st.tuples(st.integers(4, 500), st.integers(4, 500)), st.floats(1.13, 40), st.integers(2, 8)
)  # fmt: skip
def test_runs_reach_the_target_and_not_much_more(size: tuple[int, int], factor: float, scale: int) -> None:
    target = Scaling(factor).target(size, scale)
    steps = passes(size, target, scale)
    assert steps[0] == size
    assert all(side * scale >= goal for side, goal in zip(steps[-1], target, strict=True))
    for before, after in zip(steps, steps[1:], strict=False):
        assert all(b <= a * scale for a, b in zip(before, after, strict=True))  # shrunk, never stretched
    for later in steps[1:]:
        assert all(side <= goal for side, goal in zip(later, target, strict=True))
    if len(steps) > 1:
        assert all((side - 1) * scale < goal for side, goal in zip(steps[-1], target, strict=True))


def photo(dtype: type = np.uint8, grey: bool = False, alpha: bool = False) -> Photo:
    white = np.iinfo(dtype).max
    colour = np.rint(scene() * white).astype(dtype)[..., : 1 if grey else 3]
    plane = np.rint(scene()[..., 1] * white).astype(dtype) if alpha else None
    return Photo(np.ascontiguousarray(colour), plane)


def enlarger(
    model: FrozenModel, start: int | str | None = 1, seed: int = 0, tile: int = 128, coarse_steps: int = 2,
    on_tile: Callable[[int], None] | None = None, clean: float = 1.0, detail: float = 1.0,
    colour_fix: bool = False,
) -> Enlarger:  # fmt: skip
    chain = with_detail(parse(start, model, coarse_steps), detail, model)
    return Enlarger(model, chain, seed, tile, on_tile=on_tile, clean=clean, colour_fix=colour_fix)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("target", [(56, 40), (28, 20), (20, 15), (200, 143)], ids=str)
@pytest.mark.parametrize("grey", [False, True])
def test_a_model_that_adds_nothing_gives_the_bicubic_enlargement(
    plain: FrozenModel, dtype: type, target: tuple[int, int], grey: bool
) -> None:
    source = photo(dtype, grey, alpha=True)
    made = enlarger(plain)(source, target).photo
    white = np.iinfo(dtype).max
    assert made.colour.dtype == dtype
    assert made.size == target
    assert made.colour.shape[2] == (1 if grey else 3)
    expected = enlarged(scene()[..., : made.colour.shape[2]], target)
    error = np.abs(made.colour - expected * white)
    if target == (56, 40):
        assert error.max() <= 1.2
    else:  # resized twice, which at the borders is not the same as once
        assert error[4:-4, 4:-4].max() <= max(1.6, 0.004 * white)
    assert made.alpha is not None
    assert made.alpha.dtype == dtype
    assert np.abs(made.alpha - enlarged(scene()[..., 1:2], target)[..., 0] * white).max() <= 1.01


def test_16_bits_are_no_8_bits_in_disguise(plain: FrozenModel) -> None:
    """A slope too gentle for 8 bits: nine steps become hundreds."""
    slope = np.linspace(30000, 32000, 24).astype(np.uint16)
    source = Photo(np.broadcast_to(slope[None, :, None], (8, 24, 3)))
    made = enlarger(plain)(source, (96, 32)).photo.colour
    assert len(np.unique(made)) > 80
    assert np.abs(np.diff(made[16, :, 0].astype(int))).max() < 60


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_has_no_colour_gets_none(noisy: FrozenModel, dtype: type) -> None:
    grey = photo(dtype, grey=True)
    rgb = Photo(np.repeat(grey.colour, 3, axis=2))
    made_grey, made_rgb = (enlarger(noisy)(source, (56, 40)).photo.colour for source in (grey, rgb))
    assert made_grey.shape == (40, 56, 1)
    assert (made_rgb == made_rgb[..., :1]).all()
    np.testing.assert_array_equal(made_rgb[..., :1], made_grey)
    coloured = enlarger(noisy)(photo(dtype), (56, 40)).photo.colour
    assert not (coloured == coloured[..., :1]).all()


def test_it_is_the_samplers_picture(noisy: FrozenModel) -> None:
    source = photo()
    made = enlarger(noisy, start=3, seed=5)(source, (56, 40))
    out = SkipDiffSampler(noisy, 2)(np.array(source.colour), policy=3, seed=5)
    np.testing.assert_array_equal(made.photo.colour, out.images[0])
    assert made.levels == [out.trace[0].levels]
    assert made.evaluations == out.trace[0].evaluations == 1 + 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_nothing_removed_agrees_with_the_input(noisy: FrozenModel, dtype: type) -> None:
    source, white = photo(dtype), np.iinfo(dtype).max
    kept, half, given = (
        enlarger(noisy, clean=c)(source, (56, 40)).photo.colour.astype(float) for c in (1, 0.5, 0)
    )
    np.testing.assert_array_equal(kept, enlarger(noisy)(source, (56, 40)).photo.colour)

    def shrunk(pixels: np.ndarray) -> np.ndarray:
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        return bicubic(planes, 10, 14)[0].permute(1, 2, 0).numpy()

    inside = (given > 0) & (given < white)  # what had to be cut off agrees with nothing
    assert inside.mean() > 0.75
    off = [np.abs(shrunk(pixels) - source.colour).mean() / white for pixels in (given, half, kept)]
    assert off[0] < 0.2 * off[2] and off[0] < off[1] < off[2]
    middle = (kept + given) / 2
    assert np.abs(half - middle)[inside & (kept > 0) & (kept < white)].max() <= 1.01


@pytest.mark.parametrize("clean", [1.0, 0.5])
def test_the_colour_fix_is_the_sampler_s(noisy: FrozenModel, clean: float) -> None:
    source = photo()
    made = enlarger(noisy, clean=clean, colour_fix=True)
    assert made.settings == enlarger(noisy, clean=clean).settings | {"colour_fix": True}
    sampler = SkipDiffSampler(noisy, 2, clean=clean, colour_fix=True)
    out = sampler(np.array(source.colour), policy=1)
    np.testing.assert_array_equal(made(source, (56, 40)).photo.colour, out.images[0])
    plain = SkipDiffSampler(noisy, 2, clean=clean)(np.array(source.colour), policy=1).x0
    lr = to_signed(to_planes(source.colour))
    if clean == 1:
        assert torch.allclose(out.x0, fix_colours(plain, lr).clamp(-1, 1), atol=1e-6)
    assert not torch.equal(out.x0, plain)


def test_clean_and_detail_are_settings_where_they_are_unusual(noisy: FrozenModel) -> None:
    usual = enlarger(noisy).settings
    assert enlarger(noisy, clean=0.5, detail=0.25).settings == {**usual, "clean": 0.5, "detail": 0.25}
    assert {"clean", "detail"} & set(usual) == set()
    assert enlarger(noisy, detail=0).settings["policy"] == "100>0"
    source = photo()
    both = SkipDiffSampler(noisy, 2, clean=0.5, detail=0.25)(np.array(source.colour), policy=1)
    made = enlarger(noisy, clean=0.5, detail=0.25)(source, (56, 40))
    np.testing.assert_array_equal(made.photo.colour, both.images[0])
    assert made.evaluations == both.trace[0].evaluations == 3


def test_the_same_bits_again_and_others_for_another_seed(noisy: FrozenModel) -> None:
    first, again, other = (enlarger(noisy, seed=s)(photo(), (100, 70)).photo.colour for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_hidden_colour_does_not_bleed_into_the_edges(plain: FrozenModel) -> None:
    """A red disc on transparent black, as icons have: no dark rim."""
    y, x = np.mgrid[:24, :24]
    disc = (x - 12) ** 2 + (y - 12) ** 2 < 64
    colour = np.where(disc[..., None], (200, 10, 10), (0, 0, 0)).astype(np.uint8)
    source = Photo(colour, np.where(disc, 255, 0).astype(np.uint8))
    made = enlarger(plain)(source, (96, 96)).photo
    assert made.alpha is not None
    seen = made.alpha > 0
    assert np.abs(made.colour[seen].astype(int) - (200, 10, 10)).max() <= 1
    assert 0.2 < seen.mean() < 0.5
    for everything in (0, 255):
        same = enlarger(plain)(replace(source, alpha=np.full((24, 24), everything, np.uint8)), (96, 96)).photo
        assert same.alpha is not None
        assert (same.alpha == everything).all()
        assert (same.colour[0, 0] == 0).all()


def test_no_detail_is_kept_where_nothing_is_seen(noisy: FrozenModel) -> None:
    source = photo()
    plane = np.zeros(source.colour.shape[:2], np.uint8)
    plane[:, :4] = 255
    made = enlarger(noisy)(replace(source, alpha=plane), (56, 40)).photo
    assert made.alpha is not None
    edge = int((made.alpha[0] > 0).sum())
    assert 14 <= edge <= 24
    assert len(np.unique(made.colour[:, :edge], axis=0)) > 30
    # each hidden pixel repeats the nearest of the last column that is seen
    np.testing.assert_array_equal(made.colour[:, edge:], made.colour[:, edge - 1 : edge].repeat(56 - edge, 1))


def test_the_start_is_the_models_own_unless_given(noisy: FrozenModel) -> None:
    def start(made: Enlarger) -> int:
        return made.settings["start"]

    assert start(enlarger(noisy, None)) == 35  # 0.7 of 50 fine levels
    assert start(enlarger(noisy, None, coarse_steps=10)) == 7
    own = random_model(replace(tiny_config(), start=9))
    assert start(enlarger(own, None, coarse_steps=10)) == 9
    assert start(enlarger(own, 4, coarse_steps=10)) == 4
    with pytest.raises(ValueError, match="start=11 must be a whole number from 1"):
        enlarger(own, 11, coarse_steps=10)
    with pytest.raises(ValueError, match="coarse_steps=3 must divide"):
        enlarger(own, None, coarse_steps=3)
    with pytest.raises(SkipDiffError, match="does not enlarge"):
        enlarger(random_model(tiny_config(scale=1)), None, coarse_steps=10)


@pytest.mark.parametrize("target", [(56, 40), (90, 66), (400, 300)], ids=str)
def test_work_is_what_is_done(noisy: FrozenModel, target: tuple[int, int]) -> None:
    seen: list[int] = []
    made = enlarger(noisy, 2, coarse_steps=2, on_tile=seen.append)
    work = made.work((14, 10), target)
    result = made(photo(), target)
    assert work.calls == len(seen)
    assert work.pixels == sum(seen)
    assert work.runs == len(result.levels)
    assert result.evaluations == work.runs * made.most_evaluations == work.runs * 3


def test_comparison(noisy: FrozenModel) -> None:
    seen: list[int] = []
    made = enlarger(noisy, 2, coarse_steps=10, on_tile=seen.append)
    source = photo(alpha=True)
    result = made(source, (56, 40))
    seen.clear()
    compare = Comparison(made)
    sheet = compare(source, result.photo, result.evaluations)
    assert len(seen) == compare.work((14, 10), (56, 40)).calls == 100  # the full chain
    height, width = sheet.shape[:2]
    assert width > 3 * 56 - 1
    assert height > 40
    third = sheet[-40:, -56:]
    share = result.photo.alpha[..., None] / 255  # type: ignore[index]
    over_white = result.photo.colour * share + 255 * (1 - share)
    assert np.abs(third - over_white).max() <= 0.51
    assert (sheet[: height - 40] < 128).any()  # labels


def test_large_results_are_compared_by_their_centres(
    plain: FrozenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skipdiff_env.upscale.compare.PANEL", 40)
    made = enlarger(plain, 1, coarse_steps=50)
    source = photo()
    result = made(source, (56, 40))
    sheet = Comparison(made)(source, result.photo, 1)
    panels = sheet[-40:]
    np.testing.assert_array_equal(panels[:, -40:], result.photo.colour[:, 8:48])
    # the full chain of a model that adds nothing is bicubic, too, but for the borders of the cut
    assert np.abs(panels[8:-8, :40].astype(int) - panels[8:-8, -40:]).max() <= 12


def test_side_by_side() -> None:
    panels = [("one", np.full((30, 50, 3), 10, np.uint8)), ("two", np.full((30, 50, 3), 200, np.uint8))]
    sheet = side_by_side(panels)
    assert sheet.dtype == np.uint8
    assert (sheet[-30:, :50] == 10).all()
    assert (sheet[-30:, -50:] == 200).all()
    assert 100 < sheet.shape[1] < 120


@pytest.fixture
def agent(tmp_path: Path) -> str:
    torch.manual_seed(0)
    network = SkipProposalNetwork(SPNConfig(observation_size=16, hidden_size=8, norm="group"))
    return str(save_policy(tmp_path / "agent.safetensors", network.eval()))


def test_an_exported_agent_decides(noisy: FrozenModel, agent: str) -> None:
    seen: list[int] = []
    made = enlarger(noisy, agent, coarse_steps=10, on_tile=seen.append)
    result = made(photo(), (56, 40))
    out = SkipDiffSampler(noisy, 10)(np.array(photo().colour), policy=agent)
    np.testing.assert_array_equal(result.photo.colour, out.images[0])
    assert result.evaluations == out.trace[0].evaluations
    assert made.settings["policy"] == "agent.safetensors"
    assert len(made.settings["policy_hash"]) == 16
    # what it saves counts as done, so that progress ends at 100 %
    assert len(seen) == made.work((14, 10), (56, 40)).calls == 9 + 10
