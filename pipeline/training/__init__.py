"""The training loop and all around it: objectives, optimizers, checkpoints, several processes, compiling, progress."""
