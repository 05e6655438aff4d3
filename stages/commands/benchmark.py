"""``fmkt benchmark``: latency of all that the student can deploy as."""

from pathlib import Path

import click

from pipeline.core.errors import require_extra
from pipeline.runtimes.provider import PROVIDER_NAMES
from stages.commands.options import package_option
from stages.exit_codes import exit_codes
from stages.output import say

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)


@click.command(short_help="Time each file of a package on this host.")
@package_option
@click.option(
    "--student", type=PATH, help="Folder of the student (artifacts/student): adds PyTorch and the plain student."
)
@click.option(
    "--batch",
    "batch_sizes",
    type=COUNT,
    multiple=True,
    default=(1, 32),
    show_default=True,
    help="Images of a call; may be repeated.",
)
@click.option(
    "--provider",
    "providers",
    type=click.Choice(PROVIDER_NAMES),
    multiple=True,
    default=("cpu",),
    show_default=True,
    help="What of ONNX Runtime computes; may be repeated.",
)
@click.option("--num-threads", type=COUNT, default=1, show_default=True, help="CPU threads of each runtime.")
@click.option("--compiled/--no-compiled", default=True, show_default=True, help="Also time torch.compile (a minute).")
@click.option("--warmup", type=COUNT, default=10, show_default=True, help="Calls before those that are timed.")
@click.option("--iterations", type=click.IntRange(min=10), default=100, show_default=True, help="Calls that are timed.")
@exit_codes
def benchmark(
    package: Path,
    student: Path | None,
    batch_sizes: tuple[int, ...],
    providers: tuple[str, ...],
    num_threads: int,
    *,
    compiled: bool,
    warmup: int,
    iterations: int,
) -> None:
    """Time each file of the package, in turns, at each batch size and provider."""
    from pipeline.package.benchmark import fastest_lines, latency_table, measure_latency
    from pipeline.package.proof import open_runtime
    from pipeline.package.reader import Package
    from pipeline.runtimes.base import Runtime
    from pipeline.runtimes.latency import describe_protocol

    opened = Package.open(package)
    runtimes: dict[str, Runtime] = {}
    for provider in providers:
        for precision in opened.files:
            name = f"{precision}, {provider}"
            runtimes[name] = open_runtime(opened, precision, provider=provider, num_threads=num_threads)
    files = {
        f"{precision}, {provider}": path.name if len(providers) == 1 else f"{path.name} on {provider}"
        for precision, path in opened.files.items()
        for provider in providers
    }
    baseline = None
    if student is not None:
        with require_extra("--student needs PyTorch and a checkout of the project: make install"):
            from pipeline.evaluation.latency_baselines import PLAIN, baseline_runtimes

        baseline = PLAIN
        runtimes = baseline_runtimes(opened, student, num_threads=num_threads, compiled=compiled) | runtimes
    timings = measure_latency(
        runtimes,
        baseline=baseline,
        image_size=opened.image_size,
        batch_sizes=batch_sizes,
        warmup=warmup,
        iterations=iterations,
    )
    say(latency_table(timings, baseline=baseline))
    say(f"{num_threads} CPU thread(s), all in turns; {describe_protocol(warmup=warmup, iterations=iterations)}")
    say("\n".join(fastest_lines(timings, files)))
