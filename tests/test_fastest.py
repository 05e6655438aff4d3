"""Which file is called the fastest: by more than the spread of its calls, else the most exact one."""

import pytest

from pipeline.package.benchmark import Timing, fastest_lines
from pipeline.runtimes.fastest import fastest, fastest_in_words


def timed(**files: tuple[float, float]) -> dict[str, dict[str, float]]:
    """Return the median and the 95th percentile of each of ``files``."""
    return {name: {"p50": p50, "p95": p95} for name, (p50, p95) in files.items()}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (timed(plain=(1.0, 1.1)), "plain (1.000 ms)"),
        (timed(plain=(1.0, 1.1), int8=(1.5, 1.6)), "plain (1.000 ms)"),
        (timed(plain=(1.02, 1.1), int8=(1.0, 1.08)), "plain (1.020 ms, not to be told from int8, 1.000 ms)"),
        (timed(plain=(1.0, 1.1), int8=(0.8, 1.0)), "plain (1.000 ms, not to be told from int8, 0.800 ms)"),
        (timed(plain=(1.0, 1.1), int8=(0.8, 0.99)), "int8 (0.800 ms, 1.25 times as fast as plain)"),
        (
            timed(plain=(1.0, 1.1), half=(0.5, 0.6), int8=(0.48, 0.55)),
            "half (0.500 ms, 2.00 times as fast as plain, not to be told from int8, 0.480 ms)",
        ),
        (
            timed(plain=(1.0, 1.1), half=(0.95, 1.02), int8=(0.92, 0.97)),
            "int8 (0.920 ms, 1.09 times as fast as plain)",
        ),
    ],
)
def test_a_file_is_the_fastest_where_its_calls_tell_it(files: dict[str, dict[str, float]], words: str) -> None:
    assert fastest_in_words(files) == words
    assert words.startswith(f"{fastest(files)} (")


def test_a_line_for_each_batch_size_of_the_files_of_the_package() -> None:
    medians = {"bare": (0.1, 0.1), "fp32, cpu": (1.0, 9.0), "int8, cpu": (0.9, 4.0)}
    timings = [
        Timing(name, size, p50, p50 + 0.3, p50 + 0.4, images_per_second=1, ratio=None)
        for number, size in enumerate((1, 32))
        for name, p50 in ((name, values[number]) for name, values in medians.items())
    ]
    assert fastest_lines(timings, {"fp32, cpu": "model.onnx", "int8, cpu": "model.8.onnx"}) == [
        "fastest file on this host at batch 1: model.onnx (1.000 ms, not to be told from model.8.onnx, 0.900 ms)",
        "fastest file on this host at batch 32: model.8.onnx (4.000 ms, 2.25 times as fast as model.onnx)",
    ]
