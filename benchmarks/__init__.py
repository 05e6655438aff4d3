"""Measurements: of this pipeline beside what others have, of its server, of what deploys; and comparisons of methods.

``measuring.py`` holds the turns that they take and the results that they write, ``networks.py`` what several of them
measure; every other file is a command of its own, ``python -m benchmarks.NAME --help``.
"""
