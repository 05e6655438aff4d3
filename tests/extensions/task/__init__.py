"""The task ``hits``: which of several things an image shows."""
