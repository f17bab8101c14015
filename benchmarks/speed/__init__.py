"""Measures ratios of running times, and memory: of the sampler, the environment, training and tiling."""
