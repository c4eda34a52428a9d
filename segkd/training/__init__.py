"""The training loop, its checkpoints and exact resume."""
