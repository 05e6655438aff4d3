"""Prometheus metrics of a server, in a registry of its own."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.serving.statistics import Statistics, Timing

SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Upper ends of the buckets of the latency histograms."""
TRITON: dict[str, tuple[str, Callable[[Statistics], float]]] = {
    "nv_inference_request_success": ("Requests answered", lambda s: s.success.count),
    "nv_inference_request_failure": ("Requests refused or failed", lambda s: s.fail.count),
    "nv_inference_count": ("Images inferred", lambda s: s.images),
    "nv_inference_exec_count": ("Runs of the model", lambda s: s.computing.infer.count),
    "nv_inference_request_duration_us": ("Microseconds of answered requests", lambda s: s.success.ns / 1000),
    "nv_inference_queue_duration_us": ("Microseconds of waiting", lambda s: s.queue.ns / 1000),
    "nv_inference_compute_infer_duration_us": ("Microseconds of inference", lambda s: s.computing.infer.ns / 1000),
}
"""Triton's names, so that what watches a Triton server watches this one."""


class TritonCollector(Collector):
    """The models' statistics under Triton's names, read when they are asked for."""

    def __init__(self, statistics: dict[str, Statistics], version: str) -> None:
        self.statistics = statistics
        self.version = version

    def collect(self) -> Iterable[Metric]:
        """Yield one metric for each of ``TRITON``; untyped, since a counter's name would have to end in _total."""
        for name, (meaning, value) in TRITON.items():
            metric = Metric(name, meaning, "unknown")
            for model, statistics in self.statistics.items():
                metric.add_sample(name, {"model": model, "version": self.version}, value(statistics))
            yield metric


class Gauges(Collector):
    """Numbers that go up and down, read when they are asked for."""

    def __init__(self, **gauges: tuple[str, Callable[[], float]]) -> None:
        self.gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Yield each as it is now."""
        for name, (meaning, value) in self.gauges.items():
            yield GaugeMetricFamily(name, meaning, value=value())


class Meters:
    """What is counted and timed."""

    def __init__(self, statistics: dict[str, Statistics], version: str, **gauges: tuple[str, Callable[[], float]]):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fmkt_requests", "Inference requests", ("model", "transport", "outcome"), registry=self.registry
        )
        self.images = Counter("fmkt_images", "Images inferred", ("model",), registry=self.registry)
        self.queue = self._histogram("fmkt_queue_seconds", "Waiting for a worker")
        self.compute = self._histogram("fmkt_compute_seconds", "Inference")
        for collector in (TritonCollector(statistics, version), Gauges(**gauges)):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(name, meaning, ("model",), registry=self.registry, buckets=SECONDS)

    def add_execution(self, model: str, batch: int, timing: Timing) -> None:
        """Count one run of ``model`` over ``batch`` images."""
        self.images.labels(model).inc(batch)
        self.queue.labels(model).observe(timing.queue / 1e9)
        self.compute.labels(model).observe(timing.infer / 1e9)

    def add_request(self, model: str, transport: str, outcome: str) -> None:
        """Count one request; ``model`` is empty where there is none of the name that was asked for."""
        self.requests.labels(model, transport, outcome).inc()

    def exposition(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self.registry)
