"""Recorded episodes as an environment: they are SkipDiff-v0's, whichever way they are asked for."""

import dataclasses
import inspect
import re

import gymnasium
import numpy as np
import pytest
import torch

from skipdiff_env.diffusion import random_model, tiny_config
from skipdiff_env.envs import RecordedEnv
from skipdiff_env.envs.options import RecordedOptions
from skipdiff_env.envs.recordings import Recordings, cache_folder
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.wrappers import RelativeReward, RelativeVectorReward

NAME = "SkipDiffRecorded-v0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture
def arguments(tiny, photos):
    """Of SkipDiff-v0 and of its recorded stand-in alike; F = 5."""
    return {"model": tiny, "images": photos, "metric": "psnr", "fine_steps": 5, "observation_size": 16}


@pytest.fixture
def recorded(arguments, folder):
    return lambda **others: gymnasium.make(NAME, **arguments | {"recordings": folder} | others)


@pytest.fixture
def recorded_vec(arguments, folder):
    def make_vec(num_envs=4, **others):
        return gymnasium.make_vec(NAME, num_envs=num_envs, **arguments | {"recordings": folder} | others)

    return make_vec


@pytest.mark.parametrize("rule", ["reset", "hold"])
@pytest.mark.parametrize("crop", ["random", "center"])
def test_a_batch_plays_what_skipdiff_plays(arguments, recorded_vec, rule, crop):
    """Observations, rewards and ends, the last observation too; noise seeds that are not drawn as well."""
    same = {"skip_rule": rule, "crop": crop, "step_cost": 0.25, "autoreset_mode": "Disabled"}
    live = gymnasium.make_vec("SkipDiff-v0", num_envs=4, **arguments | same)
    quick = recorded_vec(**same)
    options = {"image": [0, 1, 2, 0], "noise_seed": [0, 1, 5, 1]}
    (seen, told), (recorded, info) = live.reset(options=options), quick.reset(options=options)
    for actions in np.random.default_rng(0).integers(0, 2, (4, 4)):
        np.testing.assert_allclose(recorded, seen, rtol=1e-3, atol=1e-3)  # half precision
        assert told.keys() <= info.keys()
        (seen, *rest, told), (recorded, *others, info) = live.step(actions), quick.step(actions)
        for one, other in zip(rest, others, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_allclose(recorded, seen, rtol=1e-3, atol=1e-3)
    assert others[1].all()
    for name in told:
        np.testing.assert_allclose(told[name].astype(float), info[name].astype(float), rtol=1e-5)
    np.testing.assert_allclose(info["episode_return"], rest[0] - 0.25 * (told["evaluations"] - 9) + 0.25 * (
        actions == 0) + 0.25)  # fmt: skip


def test_one_plays_what_the_batch_plays(recorded, recorded_vec):
    env, envs = recorded(observation="dict"), recorded_vec(2, observation="dict", autoreset_mode="SameStep")
    seen, _ = env.reset(seed=3)
    many, _ = envs.reset(seed=2)
    assert seen.keys() == {"latent", "step"}  # there is no LR image
    for action in (0, 1, 1, 0):
        for name, part in seen.items():
            np.testing.assert_array_equal(part, many[name][1])
        assert env.observation_space.contains(seen)
        seen, reward, over, _, info = env.step(action)
        many, rewards, ends, _, infos = envs.step([1, action])
        assert (reward, over) == (rewards[1], ends[1])
    assert over and info["episode_return"] == infos["final_info"]["episode_return"][1]
    np.testing.assert_array_equal(seen["latent"], infos["final_obs"][1]["latent"])


def test_rows_may_be_at_different_levels(recorded_vec):
    envs = recorded_vec(2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step([0, 1])
    envs.reset(options={"reset_mask": np.array([True, False]), "image": 1, "noise_seed": 0})
    for taken in (2, 3, 4):
        _, _, ends, _, infos = envs.step([0, 0])
        assert ends.tolist() == [False, taken == 4]
        assert (infos["actions"] >= 0).sum(axis=1).tolist() == [taken - 1, taken]
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs.step([0, 0])


def test_episodes_are_recorded_once_and_that_is_told(recorded, tmp_path, capsys):
    env = recorded(recordings=tmp_path, noise_seeds=3)
    told = capsys.readouterr().err
    assert f"recording into {tmp_path}, once (episodes: 9, network calls for each: 24)" in told
    assert re.search(r"^recording: 1 of 9, [\d.]+ (s|min) left$", told, re.MULTILINE)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert len(files) == 9
    again = recorded(recordings=tmp_path, noise_seeds=3)
    assert capsys.readouterr().err == ""
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")} == files
    drawn = {(info["image"], info["noise_seed"]) for info in (again.reset(seed=i)[1] for i in range(200))}
    assert len(drawn) == 9 and max(seed for _, seed in drawn) == 2
    env.reset(options={"noise_seed": 7, "image": 0})  # recorded when it is asked for
    assert len([*tmp_path.rglob("*.safetensors")]) == 10


def test_they_lie_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "skipdiff" / "recordings"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().is_absolute() and cache_folder().parts[-3:] == (".cache", "skipdiff", "recordings")


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("model", {"model": random_model(tiny_config(image_size=32), seed=9)}),
        ("coarse_steps", {"coarse_steps": 4}),
        ("fine_steps", {"fine_steps": 4}),
        ("skip_rule", {"skip_rule": "hold"}),
        ("metrics", {"metric": "brisque"}),
    ],
)
def test_a_recording_of_something_else_is_refused_by_name(arguments, tmp_path, name, others):
    """Files are named by what they hold; one that was given another's name says what it is."""
    first, second = (RecordedEpisodeFile(arguments | more, tmp_path) for more in ({}, others))
    first.make()
    second.path.parent.mkdir(exist_ok=True)
    first.path.rename(second.path)
    with pytest.raises(SkipDiffError, match=f"is a recording with {name} = .*, not .*: delete it"):
        second.recordings.values(0, 0)
    first.make()
    first.path.write_bytes(first.path.read_bytes()[:-7])
    with pytest.raises(SkipDiffError, match="is damaged .*: delete it"):
        first.recordings.latents(0, 0, 16)


class RecordedEpisodeFile:
    """The recording of the first image under the first noise seed."""

    def __init__(self, arguments, folder):
        from skipdiff_env.diffusion import SkipProcess
        from skipdiff_env.images import make_pair, open_source

        steps = (
            arguments.get("coarse_steps", 10),
            arguments["fine_steps"],
            arguments.get("skip_rule", "reset"),
        )
        process = SkipProcess(arguments["model"], *steps)
        source = open_source(arguments["images"])
        self.recordings = Recordings(
            process, lambda image, seed: make_pair(source, image, scale=4, image_size=32),
            arguments["metric"], folder, sizes=(16,),
        )  # fmt: skip
        self.path = self.recordings.file(0, 0)

    def make(self):
        assert self.recordings.record([(0, 0)]) == self.recordings.calls


def test_what_cannot_be_recorded_is_refused(recorded, bright):
    with pytest.raises(SkipDiffError, match="found by the name of their metric: give a name"):
        recorded(metric=bright)
    with pytest.raises(SkipDiffError, match="noise_seeds=0 must be a whole number of at least 1"):
        recorded(noise_seeds=0)
    with pytest.raises(SkipDiffError, match="1048584 network calls, more than max_calls=2000"):
        recorded(fine_steps=20, skip_rule="hold")
    with pytest.raises(SkipDiffError, match="unknown render_mode"):
        recorded(render_mode="rgb_array")
    with pytest.warns(UserWarning, match="recorded episodes are not rendered: make SkipDiff-v0"):
        assert recorded().unwrapped.render() is None


def test_rewards_relative_to_the_episodes_mean(recorded, recorded_vec):
    """Under ``reset`` the starts are all outcomes: what they are paid averages 0, and spreads by 1."""
    episodes = [(image, seed) for image in range(3) for seed in range(2)]
    options = dict(zip(("image", "noise_seed"), np.array(episodes).T, strict=True))
    paid = []
    for start in range(1, 6):
        envs = RelativeVectorReward(recorded_vec(6, autoreset_mode="SameStep"))
        env = RelativeReward(recorded())
        assert env.scale == envs.scale
        envs.reset(options=options)
        env.reset(options={"image": 2, "noise_seed": 1})
        for level in range(5, 1, -1):
            _, rewards, ends, _, infos = envs.step([int(level > start)] * 6)
            _, reward, over, _, info = env.step(int(level > start))
            assert reward == rewards[5] and (over == ends).all()
        told = infos["final_info"]
        assert told["episode_return"] == pytest.approx(rewards * envs.scale + told["mean_reward"])
        assert info["episode_return"] == told["episode_return"][5]
        paid.append(rewards)
    assert np.mean(paid, axis=0) == pytest.approx(np.zeros(6), abs=1e-6)
    assert np.std(paid, axis=0).mean() == pytest.approx(1)


def test_relative_rewards_are_made_again_from_their_spec(recorded):
    wrapped = RelativeReward(recorded(), scale=0.5)
    again = gymnasium.make(wrapped.spec)
    assert isinstance(again, RelativeReward) and again.scale == 0.5
    paid = []
    for env in (wrapped, again):
        env.reset(seed=1)
        paid.append([float(env.step(action)[1]) for action in (1, 0, 1, 0)])
    assert paid[0] == paid[1] and paid[0][-1] != 0


@pytest.mark.parametrize("scale", [0, -1, np.inf, np.nan, "1"])
def test_scales_that_are_none_are_refused(recorded, recorded_vec, scale):
    for wrapped in (
        lambda: RelativeReward(recorded(), scale),
        lambda: RelativeVectorReward(recorded_vec(), scale),
    ):
        with pytest.raises(SkipDiffError, match="scale=.* must be a finite number above 0"):
            wrapped()


def test_relative_rewards_of_tensors_are_tensors(recorded_vec):
    given = {"image": [0, 1, 2, 0], "noise_seed": [0, 1, 0, 1]}
    plain, tensors = (RelativeVectorReward(recorded_vec(tensors=kind)) for kind in (False, True))
    plain.reset(options=given)
    tensors.reset(options=given)
    for actions in ([0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1]):
        rewards, same = plain.step(np.array(actions))[1], tensors.step(np.array(actions))[1]
        assert same.dtype == torch.float32
        np.testing.assert_allclose(same.numpy(), rewards, atol=1e-3)
    assert rewards.dtype == np.float64 and rewards.any()


def test_recordings_of_other_pictures_are_refused_by_name(arguments, recorded, photos):
    held = recorded().unwrapped._episodes.recordings
    assert recorded(recordings=held).reset(seed=0)[1].keys() == recorded().reset(seed=0)[1].keys()
    for name, others in (
        ("other pictures: give the same images= and crop=", {"images": photos[::-1]}),
        ("other pictures: give the same images= and crop=", {"crop": "center"}),
        ("image_size=32, not 36", {"image_size": 36}),
    ):
        with pytest.raises(SkipDiffError, match=name):
            recorded(recordings=held, **others)


def test_other_environments_have_no_mean(make, make_vec):
    for wrapped in (lambda: RelativeReward(make()), lambda: RelativeVectorReward(make_vec(2))):
        with pytest.raises(SkipDiffError, match="make SkipDiffRecorded-v0, not SkipDiffusion"):
            wrapped()


def test_the_manual_is_the_options():
    rows = re.findall(r"\| `(\w+)` \| `(.+?)` \| (.+) \|", inspect.getdoc(RecordedEnv))
    table = [(name, default.strip('"'), meaning) for name, default, meaning in rows]
    fields = dataclasses.fields(RecordedOptions)
    assert table[: len(fields)] == [(f.name, str(f.default), f.metadata["meaning"]) for f in fields]
    parameters = inspect.signature(RecordedEnv.__init__).parameters
    assert [*parameters] == ["self", *(f.name for f in fields), "render_mode"]
    assert all(parameters[f.name].default == f.default for f in fields)
