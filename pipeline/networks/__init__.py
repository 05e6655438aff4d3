"""Weights of any origin, networks rebuilt, and what they cost."""
