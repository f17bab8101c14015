"""Pictures, windows, videos."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo

from skipdiff_env.envs import rendering


def _has(frame, colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
    return int((frame == rgb).all(-1).sum())


def test_frame_shows_lr_estimate_original_and_decisions(make):
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first.dtype == np.uint8 and first.shape[0] % 2 == 0 and first.shape[1] % 2 == 0
    top, side = 8 + 24, 256  # 32-pixel images are shown eight times enlarged
    original = env.unwrapped._episodes.pairs[0].hr
    shown = first[top : top + side, 16 + 2 * (side + 16) :][:, :side]
    np.testing.assert_array_equal(shown[::8, ::8], original)
    small = env.unwrapped._episodes.pairs[0].lr
    np.testing.assert_array_equal(first[top : top + side, 16 : 16 + side][::32, ::32], small)
    before = {name: _has(first, getattr(rendering, name)) for name in ("_SKIP", "_DENOISE", "_OPEN")}
    env.step(1)
    skipped = env.render()
    assert (
        _has(skipped, rendering._SKIP) > before["_SKIP"]
        and _has(skipped, rendering._DENOISE) == before["_DENOISE"]
    )
    env.step(0)
    denoised = env.render()
    assert _has(denoised, rendering._DENOISE) > before["_DENOISE"] and denoised.shape == first.shape
    estimate = denoised[top : top + side, 16 + side + 16 :][:, :side]
    np.testing.assert_array_equal(estimate[::8, ::8], env.unwrapped._episodes.picture(0))
    for _ in range(7):
        env.step(0)
    assert env.render().shape == first.shape


def test_frame_without_original_has_two_panels(make, photos):
    three = make(render_mode="rgb_array")
    two = make(render_mode="rgb_array", low_resolution=True, image_size=32)
    for env in (two, three):
        env.reset(seed=0)
    assert three.render().shape[1] - two.render().shape[1] == 256 + 16


@pytest.mark.parametrize("fine_steps", [2, 100])
def test_any_number_of_decisions_fits(make, fine_steps):
    env = make(render_mode="rgb_array", fine_steps=fine_steps)
    env.reset(seed=0)
    for i in range(fine_steps - 1):
        env.step(i % 2)
    assert env.render().shape == (454, 832, 3)


def test_large_images_are_shrunk_to_fit(interpolation, make):
    picture = np.full((600, 600, 3), 200, np.uint8)
    env = make(model=interpolation(), images=[picture], image_size=600, render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape[1] == 3 * 512 + 4 * 16
    assert (frame[300, [100, 700, 1300]] == 200).all()


def test_long_names_are_cut_in_front(make, photos, tmp_path):
    from skipdiff_env.images import write_image

    write_image(tmp_path / ("x" * 200 + ".png"), photos[0])
    env = make(images=tmp_path, render_mode="rgb_array")
    env.reset(seed=0)
    font = rendering.ImageFont.load_default(16)
    cut = rendering._fitted("x" * 200 + ".png", font, 300)
    assert cut.startswith("...") and cut.endswith("x.png") and font.getlength(cut) <= 300
    assert env.render().shape == (454, 832, 3)


def test_without_render_mode_there_is_advice(make):
    env = make().unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="rgb_array"):
        assert env.render() is None


def test_human_mode_opens_a_window_that_closes(make, monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make(render_mode="human", fine_steps=2)
    env.reset(seed=0)
    env.step(0)
    assert env.render() is None
    screen = pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)
    np.testing.assert_array_equal(screen, rendering.draw_frame(env.unwrapped._episodes, 0))
    env.close()
    assert not pygame.display.get_init()
    env.close()


def test_missing_pygame_gives_one_line_of_advice(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(gymnasium.error.DependencyNotInstalled, match="pip install pygame"):
        make(render_mode="human")


def test_record_video_writes_every_frame(make, tmp_path):
    moviepy = pytest.importorskip("moviepy")
    env = RecordVideo(
        make(render_mode="rgb_array"), str(tmp_path / "videos"), episode_trigger=lambda episode: True
    )
    env.reset(seed=0)
    for i in range(9):
        env.step(i % 2)
    env.close()
    (file,) = tmp_path.glob("videos/*.mp4")
    with moviepy.VideoFileClip(str(file)) as video:
        assert video.size == [832, 454] and video.fps == rendering.RENDER_FPS
        assert video.n_frames == 10


def test_vector_env_draws_every_copy(make_vec):
    envs = make_vec(2, render_mode="rgb_array")
    envs.reset(seed=0)
    first, second = envs.render()
    assert first.shape == second.shape and (first != second).any()
