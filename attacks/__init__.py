"""Attacks on this project by its own means: damaged files, hostile requests, kills, full disks and power cuts.

``make attack`` runs them all and prints what became of each kind; ``table.py`` lists them, one file holds each.
"""
