"""What other libraries demand of an environment, over every id that the package registers.

``make test-peers``. The checkers are Gymnasium's and Stable-Baselines3's, TorchRL's ``check_env_specs`` and
Minari's collector; the rest is what Gymnasium's own suite asserts of its environments.
"""

import json
import os
import pickle
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence

import skipdiff_env  # noqa: F401  (registers)
from skipdiff_env.diffusion import NoiseSchedule, random_model, save_model, tiny_config
from skipdiff_env.images import write_image

ROOT = Path(__file__).resolve().parents[2]
IDS = sorted(
    name for name, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("skipdiff_env.")
)
VECTORS = [None, "sync", "async"]
"""How ``make_vec`` makes them; None: as one batch."""


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Of an environment of three decisions: plain values, which any process can be sent."""
    folder = tmp_path_factory.mktemp("peers")
    config = tiny_config(image_size=32, schedule=NoiseSchedule.cosine(40).config)
    model = save_model(folder / "tiny", random_model(config).network, config)
    picture = np.random.default_rng(0).integers(0, 256, (36, 44, 3), dtype=np.uint8)
    write_image(folder / "picture.png", picture)
    return {"model": str(model), "images": str(folder / "picture.png"), "metric": "psnr"}


@pytest.fixture
def make(arguments):
    return lambda name, **others: gymnasium.make(name, **arguments | others)


@pytest.fixture
def make_vec(arguments):
    def make_vec(name, mode, **others):
        if mode is None:
            others = {"autoreset_mode": "NextStep"} | others
        return gymnasium.make_vec(name, num_envs=2, vectorization_mode=mode or "vector_entry_point",
                                  **arguments | others)  # fmt: skip

    return make_vec


def test_there_is_something_to_check():
    assert "SkipDiff-v0" in IDS


@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker(make, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(name, render_mode=None).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", IDS)
def test_stable_baselines3s_checker(make, name):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checker.check_env(make(name).unwrapped)
    # A float image is none to it, and it says so thrice.
    assert all("image" in str(w.message) for w in caught), [str(w.message) for w in caught]


def played(env, actions, seed):
    """All that comes back of a few steps; a new episode is begun where one ends."""
    found = [env.reset(seed=seed)]
    for action in actions:
        found.append(env.step(action))
        if not isinstance(found[-1][2], np.ndarray) and found[-1][2]:
            found.append(env.reset())
    return found


@pytest.mark.parametrize("name", IDS)
def test_two_copies_and_a_pickled_one_do_the_same(make, name):
    first, second = make(name), make(name)
    first.action_space.seed(1)
    actions = [first.action_space.sample() for _ in range(7)]
    expected = played(first, actions, seed=5)
    assert data_equivalence(played(second, actions, seed=5), expected, exact=True)
    assert not data_equivalence(played(second, actions, seed=6), expected, exact=True)
    copied = pickle.loads(pickle.dumps(second))
    assert data_equivalence(played(copied, actions, seed=5), expected, exact=True)
    for seen, *_ in expected:
        assert first.observation_space.contains(seen)


@pytest.mark.parametrize("name", IDS)
def test_seeds_are_kept(make, name):
    env = make(name).unwrapped
    env.reset(seed=123)
    assert env.np_random_seed == 123
    env.reset()
    assert env.np_random_seed == 123
    _, info = env.reset(seed=123)
    again, repeated = env.reset(seed=123)
    assert data_equivalence(info, repeated, exact=True)
    assert not data_equivalence(env.reset()[0], again, exact=True)


@pytest.mark.parametrize("name", IDS)
def test_the_spec_is_json_and_makes_it_again(make, name):
    registered = gymnasium.spec(name)
    assert EnvSpec.from_json(registered.to_json()) == registered
    env = make(name)
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec.kwargs == env.spec.kwargs
    assert data_equivalence(again.reset(seed=1), env.reset(seed=1), exact=True)


@pytest.mark.parametrize("name", IDS)
def test_every_render_mode(make, name, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    modes = gymnasium.make(name, **make(name).spec.kwargs).metadata["render_modes"]
    for mode in modes:
        if mode == "human" and find_spec("pygame") is None:
            continue
        env = make(name, render_mode=mode)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        drawn = env.render()
        assert (drawn is None) == (mode == "human")
        if drawn is not None:
            assert drawn.dtype == np.uint8 and drawn.ndim == 3 and drawn.shape[2] == 3
        env.close()


@pytest.mark.parametrize("name", IDS)
def test_vectors_of_every_kind_agree(make, make_vec, name):
    """Two copies as one batch, in one process and in two: the same spaces, and what is played."""
    found = {}
    for mode in VECTORS:
        envs = make_vec(name, mode)
        envs.action_space.seed(3)
        found[mode] = played(envs, [envs.action_space.sample() for _ in range(5)], seed=11)
        for seen, *_ in found[mode]:
            assert envs.observation_space.contains(seen)
        assert envs.single_action_space == make(name).action_space
        envs.close()
    assert data_equivalence(found["sync"], found["async"], exact=True)
    for ours, theirs in zip(found[None], found["sync"], strict=True):
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            parts = [(a[key], b[key]) for key in a] if isinstance(a, dict) else [(a, b)]
            for one, other in parts:
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
        assert set(ours[-1]) == set(theirs[-1])


def run(code, folder, *words):
    """Run code in a process of its own: TorchRL changes how processes start, and jax minds forks."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MINARI_DATASETS_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=600, cwd=folder,
        env=os.environ | own,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TORCHRL = """
import json, sys
import skipdiff_env
from torchrl.envs import GymEnv, check_env_specs

name, arguments = sys.argv[1], json.loads(sys.argv[2])
for more in ({}, {"num_envs": 2}):
    env = GymEnv(name, **more, **arguments)
    env.set_seed(7)
    check_env_specs(env)
    env.close()
    print("checked")
"""


@pytest.mark.skipif(find_spec("torchrl") is None, reason="TorchRL is not installed")
@pytest.mark.parametrize("name", IDS)
def test_torchrls_checker(tmp_path, arguments, name):
    assert run(TORCHRL, tmp_path, f"skipdiff_env:{name}", json.dumps(arguments)).count("checked") == 2


MINARI = """
import json, sys
import gymnasium, minari, skipdiff_env

name, arguments = sys.argv[1], json.loads(sys.argv[2])
env = minari.DataCollector(gymnasium.make(name, **arguments), record_infos=True)
for seed in range(2):
    env.reset(seed=seed)
    over = False
    while not over:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        over = terminated or truncated
made = env.create_dataset(dataset_id="skipdiff/peers-v0", algorithm_name="random", author="tests",
                          author_email="tests@example.org", code_permalink="https://example.org")
env.close()
print(made.total_episodes, made.total_steps)
"""


@pytest.mark.skipif(not all(map(find_spec, ("minari", "jax", "h5py"))), reason="Minari is not installed")
@pytest.mark.parametrize("name", IDS)
def test_minaris_collector(tmp_path, arguments, make, name):
    decisions = make(name).spec.max_episode_steps
    told = run(MINARI, tmp_path, name, json.dumps(arguments)).split()
    assert told[-2:] == ["2", str(2 * decisions)]
