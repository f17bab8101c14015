"""Benchmarks on inputs as people have them: how well models and other programs cope with degradations."""
