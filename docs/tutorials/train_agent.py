"""# Train and use the paper's agent

The paper's agent sees only the latent. It consists of convolutions, a GRU as its memory, and two linear layers for the probability of a skip and for the value. It is trained with PPO. In this tutorial, it learns on five photographs, is tested on two that it has never seen, and then enlarges one of them. The commands `skipdiff-agent train`, `evaluate` and `export` do the same, with checkpoints and confidence intervals; here, each part is visible.
"""

# %%
# ## Episodes that are recorded once
#
# An episode has ten possible results, so all of them can be computed in advance. `SkipDiffRecorded-v0` does this when it is created, and afterwards, every step is a lookup. Crops of 96 pixels from the middle of each photograph keep the computation short. The reward is 1/LPIPS, as in the paper's Table 6.

# %%
import os
import tempfile

import gymnasium
import numpy as np
import torch
from PIL import Image

import skipdiff_env
from skipdiff_agents import EpisodicPPO, SPNPolicy, as_policy
from skipdiff_agents.vec_env import SkipDiffVecEnv
from skipdiff_env.images import bundled_images, make_pair, open_source
from skipdiff_env.policies import FixedStart
from skipdiff_env.wrappers import RelativeVectorReward

model = skipdiff_env.load_pretrained(os.environ.get("SKIPDIFF_TUTORIAL_MODEL", "natural-4x"))
photographs = list(bundled_images())
unseen = [photographs.pop(5), photographs.pop(2)]  # a flower, a cup of coffee
folder = tempfile.TemporaryDirectory()


def recorded(images, noise_seeds, num_envs):
    return gymnasium.make_vec(
        "SkipDiffRecorded-v0",
        num_envs,
        model=model,
        images=images,
        noise_seeds=noise_seeds,
        metric="lpips",
        image_size=96,
        crop="center",
        step_cost=0.005,
        recordings=folder.name,
        autoreset_mode="Disabled",
    )


envs = recorded(photographs, 3, 16)
print("latents", envs.single_observation_space.shape)

# %%
# The small price per network evaluation matters: without it, denoising and skipping are worth the same whenever a later skip discards the result.
#
# ## Training
#
# Most of a reward depends on the picture itself, which no decision changes. `RelativeVectorReward` therefore subtracts the mean of the episode's ten results. `SkipDiffVecEnv` adapts the batch to Stable-Baselines3, and `EpisodicPPO` is a version of sb3-contrib's RecurrentPPO for episodes of equal length. The settings are those of `agents/skipdiff_agents/configs/recurrent_ppo.yaml`.

# %%
episodes = [(image, noise_seed) for image in range(5) for noise_seed in range(3)]
agent = EpisodicPPO(
    SPNPolicy,
    SkipDiffVecEnv(RelativeVectorReward(envs), episodes),
    policy_kwargs={"memory": "gru", "hidden_size": 128, "norm": "group"},
    n_steps=9,
    batch_size=72,
    n_epochs=4,
    gamma=0.7,
    gae_lambda=1.0,
    ent_coef=0.05,
    seed=0,
)
agent.learn(int(os.environ.get("SKIPDIFF_TUTORIAL_TIMESTEPS", 30000)))
print(f"{agent.num_timesteps} decisions in {agent.num_timesteps // 9} episodes")

# %%
# ## The comparison that matters
#
# If an agent is no better than the best fixed start, that start can replace it. The agent and all fixed starts play the same six episodes on the two photographs that were held out. Recorded episodes also report the regret: how far a return is below that of the best schedule.

# %%
held_out = recorded(unseen, 3, 6)
images, noise_seeds = np.repeat([0, 1], 3), np.tile(range(3), 2)


def play(policy):
    latent, _ = held_out.reset(options={"image": images, "noise_seed": noise_seeds})
    memory, done = None, False
    while not done:
        actions, memory = policy(torch.as_tensor(latent), memory)
        latent, _, ended, _, info = held_out.step(actions)
        done = ended.all()
    means = (info[name].mean() for name in ("metric", "evaluations", "episode_return", "regret"))
    return "LPIPS {:.4f}, {:.1f} evaluations, return {:.3f}, regret {:.3f}".format(*means)


for start in range(10, 0, -1):
    print(f"start {start:2}: {play(FixedStart(start, 10))}")
print(f"the agent: {play(as_policy(agent))}")

# %%
# The return is 1/LPIPS minus the price of the evaluations. The agent begins to denoise at level 8 in most of these episodes. On these two photographs, start 6 would have been better, but the agent did not learn this from five training photographs in a short training run. Agents that learned from a hundred pictures come nearer to the best fixed start, but are not better either; see [What agents learned](../agents.md).
#
# ## Use it
#
# `as_policy` turns an agent of Stable-Baselines3 or sb3-contrib that was trained on latents into a policy, which the sampler runs on pictures of any size:

# %%
sampler = skipdiff_env.SkipDiffSampler(model)
pair = make_pair(open_source(unseen), 0, scale=model.scale, image_size=192)
out = sampler(pair.lr, policy=as_policy(agent), seed=0)
print("decisions", out.trace[0].actions, "evaluations", out.trace[0].evaluations)
bicubic = Image.fromarray(pair.lr).resize((192, 192), Image.Resampling.BICUBIC)
Image.fromarray(np.hstack([bicubic, out.images[0], pair.hr])).save("train_agent.webp", quality=85)

# %%
# ![Bicubic enlargement, the agent's result and the original](train_agent.webp)
#
# (From left to right: the bicubic enlargement, the agent's result and the original. Photograph: vultilion, CC BY 2.0, from scikit-learn.) Once the agent is saved to a file, it no longer needs Stable-Baselines3:

# %%
from skipdiff_agents.export import network_from_weights
from skipdiff_env.policies.file import save_policy

file = save_policy("train_agent.safetensors", network_from_weights(agent.policy.state_dict()))
same = sampler(pair.lr, policy=file, seed=0)
print("the same picture:", np.array_equal(same.images, out.images))
os.remove(file)
folder.cleanup()

# %%
# `skipdiff upscale photo.jpg -o large.png --policy agent.safetensors --model natural-4x` uses such a file. [Train an agent](../train.md) describes the commands for longer runs: they keep the recorded episodes, evaluate on held-out pictures, save checkpoints, and continue where they stopped (`--resume`).
