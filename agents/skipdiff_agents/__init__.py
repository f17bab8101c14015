"""The Stable-Baselines3 side of SkipDiff: agents that learn when to skip."""
