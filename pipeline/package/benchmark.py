"""Latency of all that a student can deploy as, timed in turns and compared with the plain network."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipeline.core.text_table import aligned
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.fastest import fastest_in_words
from pipeline.runtimes.latency import percentiles, random_pixels, time_in_turns


class Timing(NamedTuple):
    """One runtime at one batch size."""

    name: str
    batch_size: int
    p50: float
    p95: float
    p99: float
    """Milliseconds of a call."""
    images_per_second: float
    """At the median."""
    ratio: float | None
    """Of the median to that of the baseline; None: there is none."""


def measure_latency(
    runtimes: Mapping[str, Runtime],
    *,
    baseline: str | None,
    image_size: tuple[int, int],
    batch_sizes: Sequence[int],
    warmup: int,
    iterations: int,
) -> list[Timing]:
    """Return the timing of each of ``runtimes`` at each of ``batch_sizes``; ``baseline`` names what ratios refer to."""
    timings = []
    for size in batch_sizes:
        pixels = random_pixels(size, image_size)
        seconds = time_in_turns(list(runtimes.values()), pixels, warmup=warmup, iterations=iterations)
        figures = {name: percentiles(spent) for name, spent in zip(runtimes, seconds, strict=True)}
        for name, figure in figures.items():
            ratio = None if baseline is None else figure["p50"] / figures[baseline]["p50"]
            timings.append(Timing(name, size, **figure, images_per_second=1000 * size / figure["p50"], ratio=ratio))
    return timings


def latency_table(timings: Sequence[Timing], *, baseline: str | None) -> str:
    """Return ``timings`` for a terminal."""
    header = ["", "batch", "p50 ms", "p95 ms", "p99 ms", "images/s", *([f"x {baseline}"] if baseline else [])]
    rows = [
        [
            timing.name,
            str(timing.batch_size),
            *(f"{value:.3f}" for value in (timing.p50, timing.p95, timing.p99)),
            f"{timing.images_per_second:,.0f}",
            *([] if timing.ratio is None else [f"{timing.ratio:.2f}"]),
        ]
        for timing in timings
    ]
    return "\n".join(aligned(header, rows))


def fastest_lines(timings: Sequence[Timing], files: Mapping[str, str]) -> list[str]:
    """Return a line for each batch size: the file that is the fastest here, beside the most exact one.

    Args:
        files: from the names of timings that are of a package's file to what they are called, the most exact first; no
            others count.
    """
    lines = []
    for size in dict.fromkeys(timing.batch_size for timing in timings):
        found = {timing.name: {"p50": timing.p50, "p95": timing.p95} for timing in timings if timing.batch_size == size}
        words = fastest_in_words({title: found[name] for name, title in files.items()})
        lines.append(f"fastest file on this host at batch {size}: {words}")
    return lines
