"""What a model has done since the server started, in the terms of the protocol's statistics."""

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Total:
    """How often something happened and how long it took altogether."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count one more, of ``ns`` nanoseconds."""
        self.count += 1
        self.ns += ns

    def to_json(self) -> dict[str, int]:
        """Return the protocol's form."""
        return {"count": self.count, "ns": self.ns}


@dataclass(frozen=True)
class Timing:
    """Nanoseconds that the parts of one answer took."""

    input: int
    queue: int
    infer: int
    output: int


@dataclass
class Computing:
    """Totals of the parts of computing an answer."""

    input: Total = field(default_factory=Total)
    infer: Total = field(default_factory=Total)
    output: Total = field(default_factory=Total)

    def add(self, timing: Timing) -> None:
        """Count one more."""
        self.input.add(timing.input)
        self.infer.add(timing.infer)
        self.output.add(timing.output)

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return the protocol's form."""
        return {f"compute_{part}": getattr(self, part).to_json() for part in ("input", "infer", "output")}


@dataclass
class Statistics:
    """Totals of one model; written and read by the event loop alone, so there is nothing to lock."""

    success: Total = field(default_factory=Total)
    fail: Total = field(default_factory=Total)
    queue: Total = field(default_factory=Total)
    computing: Computing = field(default_factory=Computing)
    batches: dict[int, Computing] = field(default_factory=dict)
    """By the number of images."""
    images: int = 0
    last_ms: int = 0
    """When the last inference ended, in milliseconds since 1970."""

    def add_execution(self, batch: int, timing: Timing) -> None:
        """Count one run of the model over ``batch`` images."""
        self.images += batch
        self.last_ms = time.time_ns() // 1_000_000
        self.queue.add(timing.queue)
        self.computing.add(timing)
        self.batches.setdefault(batch, Computing()).add(timing)

    def expected_ns(self, batch: int) -> float | None:
        """Return the mean of what ``batch`` images took so far, in nanoseconds; None before there were any."""
        known = self.batches.get(batch)
        return None if known is None else known.infer.ns / known.infer.count

    def to_json(self, name: str, version: str) -> dict[str, Any]:
        """Return the protocol's form."""
        unused = Total().to_json()
        return {
            "name": name,
            "version": version,
            "last_inference": self.last_ms,
            "inference_count": self.images,
            "execution_count": self.computing.infer.count,
            "inference_stats": {
                "success": self.success.to_json(),
                "fail": self.fail.to_json(),
                "queue": self.queue.to_json(),
                **self.computing.to_json(),
                "cache_hit": unused,
                "cache_miss": unused,
            },
            "batch_stats": [
                {"batch_size": size, **computing.to_json()} for size, computing in sorted(self.batches.items())
            ],
        }
