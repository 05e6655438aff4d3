"""The training loop: objectives, optimizers, checkpoints, several processes, progress."""
