"""# An algorithm of your own

This tutorial implements REINFORCE in plain torch on the batched environment. The algorithm plays whole episodes as one batch, adds up the log-probabilities of the actions, and reinforces the actions of episodes that did better than others on the same picture.
"""

# %%
import os

import gymnasium
import numpy as np
import torch

import skipdiff_env
from skipdiff_env.policies.file import as_seen, save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig

model = skipdiff_env.load_pretrained(os.environ.get("SKIPDIFF_TUTORIAL_MODEL", "natural-4x"))
envs = gymnasium.make_vec(
    "SkipDiff-v0",
    8,
    model=model,
    crop="center",
    image_size=96,
    metric="lpips",
    autoreset_mode="Disabled",
    tensors=True,
    cache=skipdiff_env.LatentCache(),
)

# %%
# Eight episodes share every network call. Since there are only seven pictures and one noise seed, the same latents occur again and again; with the cache, each is computed once and then looked up. The agent is a small version of the paper's skip proposal network: it sees the latent and carries a memory.

# %%
torch.manual_seed(0)
network = SkipProposalNetwork(SPNConfig(observation_size=32, hidden_size=32, norm="group"))
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
gains = []
for batch in range(int(os.environ.get("SKIPDIFF_TUTORIAL_BATCHES", 63))):
    latent, _ = envs.reset(options={"image": batch % 7, "noise_seed": 0})
    memory, log_probability, done = network.initial(8), 0, False
    while not done:
        logits, memory = network(as_seen(latent, 32), memory)
        choice = torch.distributions.Categorical(logits=logits)
        actions = choice.sample()
        log_probability = log_probability + choice.log_prob(actions)
        latent, reward, ended, _, info = envs.step(actions)
        done = bool(ended.all())
    advantage = (reward - reward.mean()) / (reward.std() + 1e-8)
    loss = -(advantage * log_probability).mean() - 0.01 * choice.entropy().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    gains.append(float(reward.mean()))
third = len(gains) // 3
print(
    f"mean reward in the first third {np.mean(gains[:third]):.3f}, in the last {np.mean(gains[-third:]):.3f}"
)

# %%
# We save the agent to a file that the sampler, `skipdiff upscale` and the web page can use without this script:

# %%
file = save_policy("own_algorithm.safetensors", network.eval())
sampler = skipdiff_env.SkipDiffSampler(model)
out = sampler(np.zeros((24, 24, 3), np.uint8), policy=file, seed=0)
print(out.trace[0].actions, out.trace[0].evaluations)
os.remove(file)

# %%
# `agents/examples/reinforce.py` is a longer version, with more pictures and an evaluation on held-out pictures. [Train an agent](../train.md) describes the commands that train and evaluate the paper's agent.
