"""What Gymnasium and Stable-Baselines3 demand of every environment."""

import copy
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.wrappers import TimeAwareObservation

from skipdiff_env.envs import SkipDiffusionEnv, SkipDiffusionVectorEnv, register_envs, rendering
from skipdiff_env.envs.options import Options
from skipdiff_env.errors import SkipDiffError

OBSERVATIONS = [
    {},
    {"observation": "dict"},
    {"observation_size": 24},
    {"observation": "dict", "observation_size": 40},
]


@pytest.fixture(autouse=True)
def no_screen(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(rendering, "RENDER_FPS", 1000)


@pytest.mark.parametrize("arguments", OBSERVATIONS)
def test_gymnasium_checker_has_nothing_to_say(make, arguments):
    env = make(**arguments).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)


@pytest.mark.parametrize(
    "arguments, images", [(OBSERVATIONS[0], 1), (OBSERVATIONS[1], 2), (OBSERVATIONS[3], 2)]
)
def test_sb3_checker_has_only_its_image_warnings(make, arguments, images):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    env = make(**arguments).unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checker.check_env(env)
    messages = [str(w.message) for w in caught]
    expected = ("its `dtype` is (float32)", "are not in [0, 255]", "minimal resolution for an image")
    assert all(any(part in message for part in expected) for message in messages), messages
    assert sum(expected[0] in message for message in messages) == images
    assert len(messages) <= 3 * images


def test_registering_twice_is_silent(recwarn):
    register_envs()
    register_envs()
    assert not recwarn.list


def test_the_first_version_is_not_called_out_of_date():
    """v1 is another game and no newer v0, but Gymnasium would say so of every id with a higher number."""
    code = "import gymnasium, skipdiff_env; gymnasium.make('SkipDiff-v0', render_mode=None)"
    ran = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0 and "out of date" not in ran.stderr


def test_make_by_module_name_needs_no_import_and_loads_nothing_heavy():
    code = (
        "import gymnasium, sys; from gymnasium.envs.registration import _find_spec;"
        "print(_find_spec('skipdiff_env:SkipDiff-v0').entry_point);"
        "print([m for m in sys.modules if m.split('.')[0] in ('pyiqa', 'torchvision', 'pygame', 'skimage')"
        " or m == 'skipdiff_env.envs.episodes'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["skipdiff_env.envs.skip_diffusion:SkipDiffusionEnv", "[]"]


def manual(section):
    """The rows of a section's table in the environment's documentation."""
    text = SkipDiffusionEnv.__doc__.split(f"## {section}\n")[1].split("\n    ## ")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_signature_and_manual_are_those_of_the_options():
    options = [(o.name, o.type, o.default) for o in dataclasses.fields(Options)]
    signature = list(inspect.signature(SkipDiffusionEnv).parameters.values())
    assert [(p.name, p.annotation, p.default) for p in signature[:-1]] == options
    assert signature[-1].name == "render_mode"
    meant = [
        [f"`{o.name}`", f"`{json.dumps(o.default)}`", o.metadata["meaning"]]
        for o in dataclasses.fields(Options)
    ]
    python = {"`null`": "`None`", "`false`": "`False`"}
    assert manual("Arguments")[:-1] == [[name, python.get(default, default), m] for name, default, m in meant]


def test_options_are_refused_and_frozen(make):
    with pytest.raises(ValueError, match="unknown crop 'left'"):
        Options(crop="left")
    options = Options(step_cost=[1, 2])
    assert options.step_cost == (1.0, 2.0) and options.priced and not Options().priced
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.step_cost = 0.0


def test_manual_has_gymnasiums_sections():
    sections = (
        "Description",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Starting State",
        "Episode End",
    )
    for section in (*sections, "Arguments", "Info", "Version History"):
        assert f"## {section}\n" in SkipDiffusionEnv.__doc__


def test_spec_survives_json():
    spec = gymnasium.spec("SkipDiff-v0")
    assert EnvSpec.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json())["vector_entry_point"].endswith(":SkipDiffusionVectorEnv")


@pytest.mark.parametrize(
    ("name", "arguments", "actions"),
    [
        ("SkipDiff-v0", {"fine_steps": 4}, [0, 1, 0]),
        ("SkipDiff-v1", {"levels": [50, 20], "budget": 3}, [0, 1, 2]),
        ("SkipDiffRecorded-v0", {"fine_steps": 4, "observation_size": 16}, [0, 1, 0]),
    ],
)
def test_spec_of_a_made_env_makes_it_again(tmp_path, tiny, photos, name, arguments, actions):
    from skipdiff_env.diffusion import save_model
    from skipdiff_env.images import write_image

    model = save_model(tmp_path / "model", tiny.network, tiny.config)
    for i, photo in enumerate(photos):
        write_image(tmp_path / f"{i}.png", photo)
    arguments = {"model": str(model), "images": str(tmp_path), "metric": "psnr", **arguments}
    if name == "SkipDiffRecorded-v0":
        arguments["recordings"] = str(tmp_path / "recordings")
    title, version = name.split("-v")
    env = gymnasium.make(name, **arguments)
    envs = gymnasium.make_vec(name, num_envs=2, autoreset_mode="SameStep", **arguments)
    for first, make in ((env, gymnasium.make), (envs, gymnasium.make_vec)):
        spec = first.spec
        assert (spec.name, spec.version, spec.max_episode_steps) == (title, int(version), 3)
        assert EnvSpec.from_json(spec.to_json()) == spec
        again, once_more = make(EnvSpec.from_json(spec.to_json())), make(spec)
        assert again.spec == once_more.spec == spec
        assert again.metadata == first.metadata
        assert data_equivalence(first.reset(seed=3), again.reset(seed=3), exact=True)
        assert again.unwrapped.process.model is env.unwrapped.process.model  # they share one model
        for action in actions:
            action = [action] * 2 if make is gymnasium.make_vec else action
            (*one, cut, info), (*other, also_cut, told) = first.step(action), again.step(action)
            assert data_equivalence((one, info), (other, told), exact=True)
            assert not np.any(cut)
            if make is gymnasium.make_vec:
                assert not np.any(also_cut)
        assert np.all(one[-1])
        if make is gymnasium.make:
            assert also_cut  # Gymnasium's wrapper limits what is made from a spec to the same length


def test_a_batch_made_again_has_no_limit_but_one_that_was_given(make_vec):
    envs = make_vec(2, autoreset_mode="Disabled")
    assert gymnasium.make_vec(envs.spec).max_episode_steps is None
    short = make_vec(2, max_episode_steps=3)
    again = gymnasium.make_vec(short.spec)
    assert short.max_episode_steps == again.max_episode_steps == again.spec.max_episode_steps == 3
    assert gymnasium.make_vec(short.spec, max_episode_steps=2).spec.max_episode_steps == 2


def test_an_env_made_from_a_spec_has_the_same_model(make):
    env = make()
    assert gymnasium.make(env.spec).unwrapped.process.model is env.unwrapped.process.model


@pytest.mark.parametrize("clone", [lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy])
def test_pickled_env_goes_on_where_it_was(make, clone):
    env = make(metric="psnr", observation="dict", render_mode="human")
    env.reset(seed=5)
    env.step(0)
    other = clone(env)
    for action in (1, 0, 0, 1, 0, 0, 0, 1):
        assert data_equivalence(env.step(action), other.step(action), exact=True)
    assert data_equivalence(env.reset(), other.reset(), exact=True)
    env.close(), other.close()


def test_pickled_vector_env_goes_on_where_it_was(make_vec):
    envs = make_vec(2, metric="psnr")
    envs.reset(seed=5)
    envs.step([0, 1])
    other = pickle.loads(pickle.dumps(envs))
    for _ in range(12):
        assert data_equivalence(envs.step([0, 1]), other.step([0, 1]), exact=True)


def test_two_envs_with_one_seed_agree_to_the_bit(make):
    one, two = make(), make()
    rng = np.random.default_rng(0)
    for env in (one, two):
        env.action_space.seed(1)
    assert data_equivalence(one.reset(seed=7), two.reset(seed=7), exact=True)
    for _ in range(25):
        action = int(rng.integers(2))
        results = one.step(action), two.step(action)
        assert data_equivalence(*results, exact=True)
        if results[0][2]:
            assert data_equivalence(one.reset(), two.reset(), exact=True)


def test_all_that_is_returned_is_plain(make):
    env = make(observation="dict")
    env.reset(seed=0)
    for action in [0] * 9:
        observation, reward, terminated, truncated, info = env.step(action)
        assert type(reward) is float and type(terminated) is bool and type(truncated) is bool
        assert observation["latent"].flags.c_contiguous and observation["latent"].dtype == np.float32
    types = {key: type(value) for key, value in info.items()}
    assert types == {
        "evaluations": int, "actions": np.ndarray, "image": int, "noise_seed": int, "step_cost": float,
        "metric": float, "reward_valid": bool, "psnr": float, "ssim": float,
    }  # fmt: skip


def test_unknown_render_modes_are_refused(make, make_vec):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="unknown render_mode 'ansi': use one of 'human', 'rgb_array'"):
            make(render_mode="ansi")
        with pytest.raises(ValueError, match="unknown render_mode 'human'"):
            make_vec(2, render_mode="human")


def test_vector_env_passes_gymnasiums_own_wrappers(make_vec):
    from gymnasium.wrappers.vector import DictInfoToList, NormalizeReward, RecordEpisodeStatistics

    envs = DictInfoToList(NormalizeReward(RecordEpisodeStatistics(make_vec(3))))
    assert isinstance(envs.unwrapped, SkipDiffusionVectorEnv)
    envs.reset(seed=0)
    for _ in range(9):
        *_, infos = envs.step(envs.action_space.sample())
    assert [info["episode"]["l"] for info in infos] == [9, 9, 9]


@pytest.mark.parametrize("action", [0.7, 1.0, "1", None, 2, -1, [1], np.float32(1), np.array([0, 1])])
def test_what_is_no_action_is_refused(make, action):
    env = make().unwrapped
    env.reset(seed=0)
    with pytest.raises(SkipDiffError, match=r"is not in Discrete\(2\): give an integer from 0 to 1"):
        env.step(action)
    env.step(0)  # the episode is as it was
    assert env._episodes.books.actions[0, :2].tolist() == [0, -1]


@pytest.mark.parametrize("action", [1, np.int64(1), np.uint8(1), np.array(1), torch.tensor(1), True])
def test_integers_of_every_kind_are_actions(make, action):
    env = make().unwrapped
    env.reset(seed=0)
    env.step(action)
    assert env._episodes.books.actions[0, 0] == 1


def test_the_spec_tells_how_long_episodes_are(make):
    env = make(fine_steps=7)
    assert env.spec.max_episode_steps == 6
    timed = TimeAwareObservation(env, flatten=False)
    seen, _ = timed.reset(seed=0)
    for step in range(1, 7):
        seen, _, terminated, truncated, _ = timed.step(1)
        assert seen["time"] == [step] and terminated == (step == 6) and not truncated
    assert make(max_episode_steps=3).spec.max_episode_steps == 3


def test_the_spec_of_a_native_vector_tells_the_same(make_vec):
    assert make_vec(2, fine_steps=7).spec.max_episode_steps == 6
    assert make_vec(2, max_episode_steps=3).spec.max_episode_steps == 3
