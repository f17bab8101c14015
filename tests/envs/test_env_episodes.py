"""What an episode is: outcomes, rewards, infos, replay, and what is refused."""

from itertools import product

import gymnasium
import numpy as np
import pytest
import torch

from skipdiff_env.diffusion import NoiseKey, SkipProcess, bicubic, image_key, to_uint8
from skipdiff_env.images import shrink
from skipdiff_env.policies.file import LATENT_BOUND, as_seen


def play(env, actions, **reset):
    """One episode; its observations, rewards and infos, those of the reset first."""
    observation, info = env.reset(**reset)
    observations, rewards, infos = [observation], [], [info]
    for i, action in enumerate(actions):
        observation, reward, terminated, truncated, info = env.step(action)
        assert terminated == (i == env.unwrapped.process.decisions - 1) and not truncated
        observations.append(observation), rewards.append(reward), infos.append(info)
    return observations, rewards, infos


def scored(function, **attributes):
    for name, value in attributes.items():
        setattr(function, name, value)
    return function


@pytest.mark.parametrize("rule, outcomes", [("reset", 6), ("hold", 2**5)])
def test_number_of_outcomes_and_evaluations_under_fixed_noise(make, short, rule, outcomes):
    env = make(model=short, coarse_steps=2, skip_rule=rule, noise="fixed", return_image=True)
    assert env.unwrapped.process.fine_steps == 6
    latents, pictures = set(), set()
    for actions in product((0, 1), repeat=5):
        observations, _, infos = play(env, actions, options={"image": 1})
        latents.add(observations[-1].tobytes())
        pictures.add(infos[-1]["sr_image"].tobytes())
        assert infos[-1]["evaluations"] == 1 + actions.count(0) + 1  # (S - 1) + denoise actions + 1
        assert [info["evaluations"] for info in infos[:-1]] == [1 + actions[:i].count(0) for i in range(5)]
        assert infos[-1]["actions"].tolist() == list(actions)
    assert len(latents) == outcomes and len(pictures) == outcomes


def test_episode_is_the_processs(make, tiny, photos):
    """The environment adds nothing to SkipProcess with the noise key of the LR image."""
    env = make(crop="center", metric="psnr", return_image=True)
    actions = (1, 0, 0, 1, 0, 1, 0, 0, 0)
    observations, rewards, infos = play(env, actions, options={"image": 2, "noise_seed": 11})
    lr = shrink(photos[2][4:36, 8:40], 4)
    condition = tiny.condition(torch.from_numpy(lr).permute(2, 0, 1)[None])
    process = SkipProcess(tiny)
    state = process.start(condition, [NoiseKey(image_key(lr), 11)])
    for observation, action in zip(observations, actions, strict=False):
        np.testing.assert_array_equal(observation, state.latent[0].numpy())
        state = process.step(state, [action])
    state = process.finish(state)
    np.testing.assert_array_equal(observations[-1], tiny.to_latent(state.x0, condition)[0].numpy())
    picture = to_uint8(state.x0)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(infos[-1]["sr_image"], picture)
    assert rewards[:-1] == [0.0] * 8 and rewards[-1] == infos[-1]["metric"] == infos[-1]["psnr"]


def test_metric_sees_the_saved_picture_and_the_original(make, photos):
    seen = []

    def metric(images, references):
        seen.append((images, references))
        return np.full(len(images), 4.0)

    env = make(metric=scored(metric, lower_better=True), crop="center", return_image=True)
    _, rewards, infos = play(env, [0] * 9, options={"image": 0})
    ((images, references),) = seen
    np.testing.assert_array_equal(images[0], infos[-1]["sr_image"])
    np.testing.assert_array_equal(references[0], photos[0][4:36, 8:40])
    assert rewards[-1] == 0.25 and infos[-1]["metric"] == 4.0 and infos[-1]["reward_valid"] is True


@pytest.mark.parametrize("lower_better, expected", [(True, 0.5), (False, 2.0)])
@pytest.mark.parametrize("step_cost", [0.0, 0.01, 1])
def test_reward_direction_and_step_cost(make, lower_better, expected, step_cost):
    metric = scored(lambda images: [2.0] * len(images), lower_better=lower_better)
    env = make(metric=metric, step_cost=step_cost)
    actions = (1, 0, 1, 0, 0, 1, 1, 1, 0)
    _, rewards, infos = play(env, actions)
    # every denoise is charged where it happens, the last step's 1 → 0 with it; CSA's nine are free
    assert rewards[:-1] == pytest.approx([0.0 if action else -step_cost for action in actions[:-1]])
    assert rewards[-1] == pytest.approx(expected - 2 * step_cost)
    assert sum(rewards) == pytest.approx(expected - step_cost * (infos[-1]["evaluations"] - 9))
    assert all(type(reward) is float for reward in rewards) and "-0.0" not in map(str, rewards)


@pytest.mark.parametrize(
    "value, lower_better",
    [
        (np.nan, True),
        (np.nan, False),
        (np.inf, False),
        (-np.inf, False),
        (0.0, True),
        (-3.0, True),
        (-np.inf, True),
    ],
)
def test_scores_that_give_no_reward(make, value, lower_better):
    env = make(metric=scored(lambda images: [value], lower_better=lower_better), step_cost=0.125)
    _, rewards, infos = play(env, [1] * 9)
    assert rewards[-1] == -0.125 and infos[-1]["reward_valid"] is False
    np.testing.assert_equal(infos[-1]["metric"], value)


def test_flat_image_does_not_kill_the_batch(make_vec, interpolation):
    rng = np.random.default_rng(0)
    textured = np.kron(rng.integers(0, 256, (48, 48, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    images = [textured, np.full((192, 192, 3), 90, np.uint8)]
    envs = make_vec(2, model=interpolation(), images=images, image_size=192, metric="niqe")
    envs.reset(options={"image": [0, 1]})
    for _ in range(9):
        _, rewards, terminated, _, infos = envs.step([1, 1])
    assert terminated.all() and infos["reward_valid"].tolist() == [True, False]
    assert rewards[0] == pytest.approx(1 / infos["metric"][0]) and rewards[1] == 0
    assert np.isnan(infos["metric"][1]) and infos["_metric"].all() and np.isinf(infos["psnr"][1])


def test_picture_that_is_not_finite_has_no_valid_score(make, interpolation):
    model = interpolation()
    model.predict = lambda latent, condition, level: torch.full_like(condition, torch.nan)
    env = make(model=model, image_size=32).unwrapped
    _, rewards, infos = play(env, [1] * 9)
    assert rewards[-1] == 0.0 and infos[-1]["reward_valid"] is False
    assert all(np.isnan(infos[-1][name]) for name in ("metric", "psnr", "ssim"))


# --- starting states and replay


def test_infos_replay_every_episode_exactly(make, assert_close):
    env, other = make(observation="dict"), make(observation="dict", noise="fixed")
    rng = np.random.default_rng(3)
    for episode in range(4):
        actions = rng.integers(0, 2, 9).tolist()
        recorded = play(env, actions, seed=21 if episode == 0 else None)
        what = {key: recorded[2][-1][key] for key in ("image", "noise_seed")}
        replayed = play(other, recorded[2][-1]["actions"], seed=episode, options=what)
        for a, b in zip(recorded, replayed, strict=True):
            for x, y in zip(a, b, strict=True):
                assert_close(x, y, 0)


def test_fresh_noise_differs_and_fixed_noise_does_not(make):
    fresh, fixed = make(), make(noise="fixed")
    one = [fresh.reset(seed=0 if i == 0 else None, options={"image": 0}) for i in range(3)]
    two = [fixed.reset(seed=0 if i == 0 else None, options={"image": 0}) for i in range(3)]
    assert len({info["noise_seed"] for _, info in one}) == 3
    assert {info["noise_seed"] for _, info in two} == {0}
    assert len({observation.tobytes() for observation, _ in one}) == 3
    assert len({observation.tobytes() for observation, _ in two}) == 1
    assert fixed.reset(options={"image": 0, "noise_seed": 5})[1]["noise_seed"] == 5


def test_seeds_visit_all_images_and_options_do_not_shift_them(make, assert_close):
    env = make()
    plain = [env.reset(seed=4 if i == 0 else None)[1] for i in range(12)]
    assert {info["image"] for info in plain} == {0, 1, 2}
    env.reset(seed=4, options={"image": 2, "noise_seed": 1})
    for info in plain[1:]:
        assert_close(env.reset()[1], info, 0)


def test_random_crop_follows_image_and_noise_seed(make, photos):
    env = make(observation="dict", low_resolution=True, image_size=64)

    def lr(image, noise_seed):
        return env.reset(options={"image": image, "noise_seed": noise_seed})[0]["lr"]

    def places(image, lr):
        found = np.round(lr.transpose(1, 2, 0) * 255)
        windows = np.lib.stride_tricks.sliding_window_view(photos[image], (16, 16), axis=(0, 1))
        return [tuple(p) for p in np.argwhere((windows.transpose(0, 1, 3, 4, 2) == found).all((2, 3, 4)))]

    crops = [places(1, lr(1, seed)) for seed in range(20)]
    assert all(len(place) == 1 for place in crops)
    assert len({place[0] for place in crops}) > 15  # 25 x 33 places to go
    np.testing.assert_array_equal(lr(1, 3), lr(1, 3))
    centre = make(observation="dict", low_resolution=True, image_size=64, crop="center")
    centred = [centre.reset(options={"image": 1, "noise_seed": seed})[0]["lr"] for seed in range(3)]
    assert [places(1, x) for x in centred] == [[(12, 16)]] * 3


def test_low_resolution_images_have_no_original(make):
    env = make(low_resolution=True)
    assert env.observation_space.shape == (3, 32, 32)  # the model's size: LR crops are 8 x 8
    _, rewards, infos = play(env, [0] * 9)
    assert np.isnan([infos[-1]["psnr"], infos[-1]["ssim"]]).all() and rewards[-1] == infos[-1]["metric"]


def test_bundled_photographs_at_192_pixels(make):
    env = make(images=None)
    assert env.observation_space.shape == (3, 192, 192) and len(env.unwrapped.source) > 1
    observation, info = env.reset(seed=0)
    assert observation in env.observation_space and env.unwrapped.source.name(info["image"])


# --- observations


def test_dict_observation(make):
    env = make(observation="dict")
    same = make()
    actions = (0, 1, 0, 0, 1, 1, 0, 0, 0)
    observations, _, _ = play(env, actions, seed=1)
    latents, _, _ = play(same, actions, seed=1)
    lr = env.unwrapped._episodes.pairs[0].lr
    for i, (observation, latent) in enumerate(zip(observations, latents, strict=True)):
        assert observation in env.observation_space and observation["step"] == i
        np.testing.assert_array_equal(observation["latent"], latent)
        np.testing.assert_array_equal(observation["lr"] * 255, lr.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize("size", [8, 24, 50])
def test_resized_observation(make, size):
    small, _, _ = play(make(observation_size=size), (0, 1, 0), seed=1)
    full, _, _ = play(make(), (0, 1, 0), seed=1)
    for a, b in zip(small, full, strict=True):
        np.testing.assert_array_equal(a, bicubic(torch.from_numpy(b)[None], size, size)[0].numpy())


def test_latents_stay_far_inside_the_box_and_are_clipped_there(make, tiny, interpolation):
    env = make()
    largest = max(np.abs(o).max() for seed in range(5) for o in play(env, [0] * 9, seed=seed)[0])
    assert largest < LATENT_BOUND / 1.5
    wild = interpolation()
    wild.to_latent = lambda image, condition: image * 1000
    env = make(model=wild, image_size=32)
    observations, _, _ = play(env, [0] * 9)
    assert all(o in env.observation_space for o in observations)
    assert np.abs(observations[-1]).max() == LATENT_BOUND


# --- misuse


def test_stepping_without_an_episode(make):
    env = make().unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(0)
    play(env, [1] * 9)
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step(0)
    env.reset()
    with pytest.raises(ValueError, match="give an integer from 0 to 1"):
        env.step(2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"picture": 1}, "unknown reset option 'picture': use 'image', 'noise_seed' or 'step_cost'"),
        ({"image": 3}, "image=3 must be from 0 to 2"),
        ({"image": -1}, "image=-1 must be from 0 to 2"),
        ({"noise_seed": 2**63}, "noise_seed=9223372036854775808 must be from 0 to"),
        ({"image": "cat.png"}, "image='cat.png' must be an integer"),
        ({"noise_seed": 1.5}, "noise_seed=1.5 must be an integer"),
        ({"image": [0, 1]}, r"image=\[0, 1\] must be an integer"),
    ],
)
def test_bad_reset_options(make, assert_close, options, message):
    env = make()
    before = env.reset(seed=0)[1]
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)
    assert_close(env.unwrapped._episodes.books.info(0), before, 0)


FLAT = np.full((64, 64, 3), 128, np.uint8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"fine_steps": 1}, "fine_steps=1 leaves nothing to decide"),
        ({"fine_steps": 0}, "fine_steps=0 leaves nothing to decide"),
        ({"coarse_steps": 100}, "fine_steps=1 leaves nothing to decide"),
        ({"fine_steps": 101}, "fine_steps=101 must be a whole number from 0"),
        ({"coarse_steps": 7}, "coarse_steps=7 must divide"),
        ({"skip_rule": "jump"}, "unknown skip_rule 'jump'"),
        ({"noise": "keyed"}, "unknown noise 'keyed': use one of 'fresh', 'fixed'"),
        ({"observation": "image"}, "unknown observation 'image'"),
        ({"observation_size": 0}, "observation_size=0 must be a whole number of at least 1"),
        ({"crop": "left"}, "unknown crop 'left'"),
        ({"step_cost": -0.1}, "step_cost=-0.1 must be a finite number"),
        ({"step_cost": float("nan")}, "step_cost=nan must be a finite number"),
        ({"metric": "niqe"}, "'niqe' needs images of side 96 or more, but image_size is 32"),
        ({"image_size": 8}, "'ssim' needs images of side 11 or more, but image_size is 8"),
        ({"metric": "no-such-metric"}, "no-such-metric"),
        ({"metric": 3}, "a metric is a name or a function"),
        ({"metric": "lpips", "low_resolution": True}, "'lpips' needs the originals"),
        ({"image_size": 44}, r"images\[0\]: is 48x40 pixels, too small"),
        ({"images": [FLAT, FLAT[:, :40]], "image_size": 64}, r"images\[1\]: is 40x64 pixels, too small"),
        ({"image_size": 30}, "image_size=30 is no positive multiple of the scale 4"),
        ({"images": "no/such/folder"}, "no/such/folder"),
        ({"model": "no-such-model"}, "unknown model 'no-such-model'"),
        ({"device": "cuda"}, "the model is on cpu, not on cuda"),
    ],
)  # fmt: skip
def test_what_is_refused_when_the_env_is_made(make, make_vec, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
    with pytest.raises(ValueError, match=message):
        make_vec(2, **arguments)


def test_model_without_a_size_needs_image_size(make, interpolation):
    with pytest.raises(ValueError, match="has no image_size of its own: give image_size="):
        make(model=interpolation())


def test_later_images_that_are_too_small_are_refused_by_name(make, make_vec, photos):
    images = [*photos[:1] * 40, np.zeros((16, 40, 3), np.uint8)]
    env = make(images=images)
    with pytest.raises(ValueError, match=r"images\[40\]: is 40x16 pixels, too small"):
        env.reset(options={"image": 40})


def test_prices_drawn_for_each_episode(make):
    env = make(metric=lambda images: np.ones(len(images)), step_cost=(0.01, 1.0), observation="dict")
    costs = []
    for seed in range(20):
        observations, rewards, infos = play(env, [0] * 9, seed=seed)
        cost = infos[0]["step_cost"]
        assert observations[0]["step_cost"] == pytest.approx([cost], rel=1e-6)
        assert env.observation_space.contains(observations[0])
        assert rewards == pytest.approx([-cost] * 8 + [1 - 2 * cost])
        costs.append(cost)
    assert 0.01 <= min(costs) < 0.05 and 0.2 < max(costs) <= 1.0
    assert play(env, [0] * 9, options={"step_cost": 0.5})[2][0]["step_cost"] == 0.5
    for bad in (2.0, "dear", float("nan")):
        with pytest.raises(ValueError, match="step_cost"):
            env.reset(options={"step_cost": bad})
    with pytest.raises(ValueError, match="0 < low < high"):
        make(step_cost=(0.0, 1.0))


@pytest.mark.parametrize("rule", ["reset", "hold"])
def test_small_latents_are_the_whole_ones_shrunk(make_vec, rule):
    """Each is shrunk once an episode: not another row's, nor another decision's, nor the episode's before."""
    both = [make_vec(3, skip_rule=rule, observation_size=size) for size in (16, None)]
    decisions = both[0].unwrapped.process.decisions
    for number, actions in enumerate(np.random.default_rng(0).integers(0, 2, (2 * decisions + 3, 3))):
        if number in (0, 2):  # the second time the others are amid their episodes
            mask = np.array([True, number == 0, number == 0])
            seen = [envs.reset(seed=number, options={"reset_mask": mask})[0] for envs in both]
        else:
            seen = [envs.step(actions)[0] for envs in both]
        np.testing.assert_allclose(seen[0], as_seen(torch.from_numpy(seen[1]), 16).numpy(), atol=1e-6)
