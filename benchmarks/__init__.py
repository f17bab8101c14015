"""Measurements behind every number of the README; run ``python -m benchmarks --help``."""
