"""Benchmarks of the training of models: choices of a recipe, parts of a method, and what each run improved."""
