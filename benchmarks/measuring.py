"""What measurements share: the turns that is compared takes, and results that say how and where they were made."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pipeline.core.host import cpu_facts, cpu_flags, version_of

PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime-gpu", "numpy", "pillow", "simplejpeg", "dvc")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16")
"""Flags of CPUs that figures depend on."""
Seconds = dict[str, NDArray[np.float64]]
"""From each thing that was timed to the seconds of its calls, (turns, repeat)."""

output_option = click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write besides."
)


def there_and_back(ways: Iterable[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield the number of each of ``rounds`` with each of ``ways``, every other round the other way round: A B B A.

    So what slows the host slows all ways, and none of them is always the first or always behind another.
    """
    there = list(ways)
    for number in range(rounds):
        for way in reversed(there) if number % 2 else there:
            yield number, way


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    repeat: int = 1,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Seconds:
    """Return the seconds of each of ``calls``, which take turns, there and back.

    The first ``warmup`` rounds do not count.

    Args:
        repeat: calls of one before the next has its turn.
    """
    seconds = {name: np.empty((warmup + turns, repeat)) for name in calls}
    for turn, name in there_and_back(calls, warmup + turns):
        for number in range(repeat):
            began = clock()
            calls[name]()
            seconds[name][turn, number] = clock() - began
    return {name: spent[warmup:] for name, spent in seconds.items()}


def ratios(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many times as long ``one`` took as ``other``, turn by turn, (turns,)."""
    found: NDArray[np.float64] = one.sum(axis=1) / other.sum(axis=1)
    return found


def spread(name: str, values: NDArray[np.float64]) -> dict[str, Any]:
    """Return the median of ``values`` (N,) as ``name``, with their quartiles and their range beside it."""
    low, first, median, third, high = (round(float(value), 3) for value in np.percentile(values, [0, 25, 50, 75, 100]))
    return {name: median, f"{name}_quartiles": [first, third], f"{name}_range": [low, high]}


def host() -> dict[str, Any]:
    """Return what figures depend on besides the code: CPU, system and versions."""
    facts = cpu_facts()
    flags = cpu_flags(facts)
    return {
        "cpu": facts.get("model name", platform.machine()),
        "cpus": os.cpu_count(),
        "instructions": [flag for flag in INSTRUCTIONS if flag in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := version_of(name)) is not None},
    }


def write_result(path: Path | None, **found: Any) -> None:
    """Write what was ``found``, and on which host, to ``path`` where there is one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"host": host(), **found}, indent=2) + "\n", encoding="utf-8")
