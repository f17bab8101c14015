"""A run: its loop, its checkpoints, and the log and plots that it writes."""
