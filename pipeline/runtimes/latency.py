"""Latency and throughput of runtimes."""

import os
import platform
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Pixels
from pipeline.core.files import Json
from pipeline.runtimes.base import Runtime, to_input

Seconds = NDArray[np.float64]
TURN = 10
"""Calls of one runtime before the next has its turn."""


def benchmark(
    runtime: Runtime, *, image_size: tuple[int, int], batch_sizes: Sequence[int], warmup: int, iterations: int
) -> Json:
    """Return ``latency_ms`` (p50, p95, p99 per batch), ``throughput`` (images/s at the median) and the ``protocol``.

    A call counts from images in host memory to outputs in host memory.
    """
    latency: Json = {}
    throughput: Json = {}
    for size in batch_sizes:
        pixels = random_pixels(size, image_size)
        figures = percentiles(time_in_turns([runtime], pixels, warmup=warmup, iterations=iterations)[0])
        latency[str(size)] = figures
        throughput[str(size)] = round(1000 * size / figures["p50"], 1)
    protocol = f"{runtime.describe()}; {describe_protocol(warmup=warmup, iterations=iterations)}"
    return {"latency_ms": latency, "throughput": throughput, "protocol": protocol}


def random_pixels(count: int, image_size: tuple[int, int]) -> Pixels:
    """Return ``count`` images (count, 3, H, W) of random pixels, the same in every run."""
    return np.random.default_rng(0).integers(256, size=(count, 3, *image_size), dtype=np.uint8)


def time_in_turns(runtimes: Sequence[Runtime], pixels: Pixels, *, warmup: int, iterations: int) -> Seconds:
    """Return the wall-clock seconds of each call, (len(runtimes), iterations), for ``pixels``.

    The runtimes take turns of ``TURN`` calls, so that what slows the host down for a while slows all of them, and their
    ratios stay right. The first call of a turn, which finds the caches full of the others' weights, does not count.
    """
    inputs = [to_input(pixels, runtime.input_dtype) for runtime in runtimes]
    for runtime, images in zip(runtimes, inputs, strict=True):
        for _ in range(warmup):
            runtime.infer(images)
    seconds = np.empty((len(runtimes), iterations))
    for start in range(0, iterations, TURN):
        for row, (runtime, images) in enumerate(zip(runtimes, inputs, strict=True)):
            runtime.infer(images)
            for i in range(start, min(start + TURN, iterations)):
                began = time.perf_counter()
                runtime.infer(images)
                seconds[row, i] = time.perf_counter() - began
    return seconds


def percentiles(seconds: Seconds) -> dict[str, float]:
    """Return the median and the 95th and 99th percentile of ``seconds`` (N,), in milliseconds."""
    values = np.percentile(1000 * seconds, [50, 95, 99])
    return {name: round(float(value), 4) for name, value in zip(("p50", "p95", "p99"), values, strict=True)}


def describe_protocol(*, warmup: int, iterations: int) -> str:
    """Return in words how calls were timed, and where."""
    return (
        f"images of the input's type in host memory to outputs in host memory, one call at a time; {iterations} calls "
        f"after {warmup}; "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    )
