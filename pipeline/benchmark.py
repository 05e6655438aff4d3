"""Latency and throughput of a runtime."""

import os
import platform
import time
from collections.abc import Sequence

import numpy as np

from pipeline.files import Json
from pipeline.runtimes.base import Runtime


def benchmark(
    runtime: Runtime, *, image_size: tuple[int, int], batch_sizes: Sequence[int], warmup: int, iterations: int
) -> Json:
    """Return ``latency_ms`` (p50, p95, p99 per batch), ``throughput`` (images/s at the median) and the ``protocol``.

    A call counts from images in host memory to logits in host memory.
    """
    latency: Json = {}
    throughput: Json = {}
    generator = np.random.default_rng(0)
    for size in batch_sizes:
        images = generator.random((size, 3, *image_size), dtype=np.float32)
        seconds = _time_calls(runtime, images, warmup=warmup, iterations=iterations)
        p50, p95, p99 = np.percentile(1000 * seconds, [50, 95, 99])
        latency[str(size)] = {"p50": round(p50, 4), "p95": round(p95, 4), "p99": round(p99, 4)}
        throughput[str(size)] = round(1000 * size / p50, 1)
    protocol = (
        f"{runtime.describe()}; images in host memory to logits in host memory, one call at a time; "
        f"{iterations} calls after {warmup}; {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    )
    return {"latency_ms": latency, "throughput": throughput, "protocol": protocol}


def _time_calls(runtime: Runtime, images: np.ndarray, *, warmup: int, iterations: int) -> np.ndarray:
    """Return the wall-clock seconds of each of ``iterations`` calls, (iterations,)."""
    for _ in range(warmup):
        runtime.run(images)
    stamps = np.empty(iterations + 1)
    stamps[0] = time.perf_counter()
    for i in range(iterations):
        runtime.run(images)
        stamps[i + 1] = time.perf_counter()
    return np.diff(stamps)
