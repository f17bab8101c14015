"""Training runs that end within seconds."""

from skipdiff_agents.evaluate import Evaluator
from skipdiff_agents.pairs import UNSEEN, all_pairs
from skipdiff_agents.settings import read_settings
from skipdiff_agents.train import Run


def small(name, timesteps, **changes):
    settings = read_settings(name) | {"timesteps": timesteps, "observation_size": 16} | changes
    settings["policy"]["hidden_size"] = 16
    if "dqn" in name:
        settings["arguments"] |= {"buffer_size": 200, "learning_starts": 32, "batch_size": 16}
    return settings


def run(settings, setting, folder, **others):
    evaluator = Evaluator(setting, all_pairs(len(setting.source), 2, UNSEEN))
    return Run(
        settings, setting, all_pairs(len(setting.source), 3), evaluator, folder, device="cpu", **others
    )
