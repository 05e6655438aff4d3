"""The task detection: boxes around things, with their classes."""
