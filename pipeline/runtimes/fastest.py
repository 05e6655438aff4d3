"""Which of several files is the fastest on this host, as far as their timings can tell."""

from collections.abc import Mapping

Timings = Mapping[str, Mapping[str, float]]
"""From the names of files, the most exact first, to the percentiles of their calls in milliseconds: p50 and p95."""


def fastest(timed: Timings) -> str:
    """Return the name of the fastest file; of files that cannot be told apart the most exact one.

    A file is told to be faster than another where 95 of 100 of its calls took less than the median one of the other:
    what lies nearer is within the spread of the calls, and may be the other way round in the next measurement.
    """
    best, *others = timed
    for name in others:
        if timed[name]["p95"] < timed[best]["p50"]:
            best = name
    return best


def fastest_in_words(timed: Timings) -> str:
    """Return the fastest file with its median, its gain over the most exact one, and what cannot be told from it."""
    best, plain, first = fastest(timed), next(iter(timed)), min(timed, key=lambda name: timed[name]["p50"])
    words = f"{timed[best]['p50']:.3f} ms"
    if best != plain:
        words += f", {timed[plain]['p50'] / timed[best]['p50']:.2f} times as fast as {plain}"
    if first != best:
        words += f", not to be told from {first}, {timed[first]['p50']:.3f} ms"
    return f"{best} ({words})"
