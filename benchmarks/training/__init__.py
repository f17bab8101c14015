"""Benchmarks of training: choices of a recipe, parts of a method, and what each run improved."""
