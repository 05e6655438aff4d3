"""Containers, manifests, the bill of materials, the documentation site."""
