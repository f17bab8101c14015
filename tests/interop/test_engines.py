"""Infos of fixed keys and shapes go where a growing list does not: TorchRL, Minari, worker processes."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv

import skipdiff_env  # noqa: F401  (registers SkipDiff-v0)
from skipdiff_env.diffusion import NoiseSchedule, random_model, save_model, tiny_config
from skipdiff_env.images import write_image

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "evaluations", "actions", "image", "noise_seed", "step_cost", "metric", "reward_valid", "psnr", "ssim",
}  # fmt: skip


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Of an environment of three decisions: plain values, which any process can be sent."""
    folder = tmp_path_factory.mktemp("engines")
    config = tiny_config(image_size=32, schedule=NoiseSchedule.cosine(40).config)
    model = save_model(folder / "tiny", random_model(config).network, config)
    picture = np.random.default_rng(0).integers(0, 256, (36, 44, 3), dtype=np.uint8)
    write_image(folder / "picture.png", picture)
    return {"model": str(model), "images": str(folder / "picture.png"), "metric": "psnr", "step_cost": 0.5}


def run(code, folder, arguments):
    """Run code that reads its arguments as JSON, in a process of its own: TorchRL changes how processes
    start, and jax minds forks."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MINARI_DATASETS_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True, timeout=600,
        cwd=folder, env=os.environ | own,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


TORCHRL = """
import json, sys
import gymnasium, skipdiff_env, torch
from torchrl.envs import GymEnv, GymWrapper

arguments = json.loads(sys.argv[1])
batch = gymnasium.make_vec("SkipDiff-v0", 3, autoreset_mode="Disabled", **arguments)
for name, env in (
    ("processes", GymEnv("skipdiff_env:SkipDiff-v0", num_envs=3, **arguments)),
    ("batch", GymWrapper(batch).auto_register_info_dict()),
):
    env.set_seed(7)
    played = env.rollout(6, break_when_any_done=False)
    torch.save({"action": played["action"].argmax(-1), **played["next"].to_dict()}, name)
    env.close()
"""


@pytest.mark.skipif(find_spec("torchrl") is None, reason="TorchRL is not installed")
def test_torchrl_reads_the_infos_of_three_environments(tmp_path, arguments):
    run(TORCHRL, tmp_path, arguments)
    for name in ("processes", "batch"):
        played = torch.load(tmp_path / name)
        assert set(played) >= KEYS
        assert played["actions"].shape == (3, 6, 3) and played["actions"].dtype == torch.int8
        assert played["done"][..., 0].tolist() == [[False, False, True] * 2] * 3
        for step in (0, 1, 3, 4):
            told, chosen = played["actions"][:, step], played["action"][:, step - step % 3 : step + 1]
            assert (
                torch.equal(told[:, : step % 3 + 1].long(), chosen) and (told[:, step % 3 + 1 :] == -1).all()
            )
            assert (played["metric"][:, step] == -1).all() and not played["reward_valid"][:, step].any()
    # Of the last step, GymEnv's processes have the reward alone; the batch has everything.
    last = played["reward_valid"]
    assert torch.equal(last, played["done"][..., 0]) and torch.equal(played["metric"], played["psnr"])
    costs = 0.5 * (1 + (played["action"] == 0)[last])
    torch.testing.assert_close(played["reward"][..., 0][last], (played["metric"][last] - costs).float())


MINARI = """
import json, sys
import gymnasium, minari, skipdiff_env

env = gymnasium.make("SkipDiff-v0", return_image=True, **json.loads(sys.argv[1]))
env = minari.DataCollector(env, record_infos=True)
for seed in range(2):
    env.reset(seed=seed)
    for action in (0, 1, seed):
        env.step(action)
env.create_dataset("skipdiff/random-v0", num_episodes_average_score=1)
env.close()
"""


@pytest.mark.skipif(
    not all(map(find_spec, ("minari", "jax", "h5py"))), reason="Minari, jax or h5py is not installed"
)
def test_minari_records_infos(tmp_path, arguments):
    import h5py

    run(MINARI, tmp_path, arguments)
    (file,) = tmp_path.rglob("main_data.hdf5")
    env = gymnasium.make("SkipDiff-v0", return_image=True, **arguments)
    with h5py.File(file) as data:
        for seed in range(2):
            told = [env.reset(seed=seed)[1], *(env.step(action)[4] for action in (0, 1, seed))]
            recorded = data[f"episode_{seed}"]["infos"]
            assert set(recorded) == KEYS | {"sr_image"}
            for key in recorded:
                column = np.stack([info[key] for info in told])
                assert recorded[key].dtype == column.dtype
                np.testing.assert_array_equal(recorded[key][:], column)


def test_worker_processes_with_shared_memory_tell_what_a_batch_tells(arguments):
    """Spawned: a process in which torch has run threads must not be forked."""
    workers = AsyncVectorEnv(
        [lambda: gymnasium.make("skipdiff_env:SkipDiff-v0", **arguments)] * 2,
        shared_memory=True,
        context="spawn",
    )
    try:
        batch = gymnasium.make_vec("SkipDiff-v0", num_envs=2, **arguments)
        results = [[envs.reset(seed=3)] for envs in (workers, batch)]
        for actions in ([0, 1], [1, 1], [0, 0], [0, 0], [1, 0]):
            for envs, result in zip((workers, batch), results, strict=True):
                result.append(envs.step(np.array(actions)))
    finally:
        workers.close()
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_allclose(theirs[0], ours[0], atol=1e-5)
        assert set(theirs[-1]) == set(ours[-1]) == KEYS | {f"_{key}" for key in KEYS}
        for key in ours[-1]:
            assert theirs[-1][key].dtype == ours[-1][key].dtype
            np.testing.assert_allclose(theirs[-1][key], ours[-1][key], rtol=1e-3)
