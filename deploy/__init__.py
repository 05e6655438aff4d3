"""Containers, manifests, and what says of what an installation consists."""
