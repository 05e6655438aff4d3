"""Serve a package."""

import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import click

from pipeline.core.errors import require_extra
from pipeline.package.requirements import SERVE_FILE
from pipeline.serving.access import VARIABLE
from stages.commands.options import FiniteRange, package_option, session_options
from stages.exit_codes import exit_codes

POSITIVE = click.IntRange(min=1)
PORT = click.IntRange(0, 65535)
FILE = click.Path(path_type=Path)


def _end_at_once(number: int, _: object) -> NoReturn:
    """End a server that has not accepted anything yet."""
    raise SystemExit(128 + number)


@click.command(short_help="Serve a package over HTTP and gRPC.")
@package_option
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("fp32",),
    show_default=True,
    help="Which of the package's files; may be repeated.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--http-port", type=PORT, default=8000, show_default=True, help="HTTP, and /metrics; 0: any.")
@click.option("--grpc-port", type=PORT, default=8001, show_default=True, help="gRPC; 0: any.")
@session_options
@click.option("--workers", type=POSITIVE, help="Inferences at a time.  [default: as many as the CPUs allow]")
@click.option("--max-batch", type=POSITIVE, default=32, show_default=True, help="Images in a request.")
@click.option("--max-bytes", type=POSITIVE, help="Bytes of a request.  [default: a full batch as JSON, or a picture]")
@click.option(
    "--max-picture-bytes", type=POSITIVE, default=20 * 2**20, show_default=True, help="Bytes of an image file."
)
@click.option(
    "--max-megapixels",
    type=FiniteRange(min=0, min_open=True),
    default=40.0,
    show_default=True,
    help="Millions of pixels of a picture; each takes up to 16 bytes of a worker.",
)
@click.option(
    "--max-json-bytes", type=POSITIVE, help="Bytes of a request's JSON.  [default: one image as JSON, or 2 MiB]"
)
@click.option("--max-connections", type=POSITIVE, default=512, show_default=True, help="Of each transport.")
@click.option("--max-queue", type=click.IntRange(min=0), default=64, show_default=True, help="Requests that may wait.")
@click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds that a request may take.",
)
@click.option("--grace", type=FiniteRange(min=0), default=30.0, show_default=True, help="Seconds to end within.")
@click.option(
    "--drain-seconds",
    type=FiniteRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds before that in which the server says that it is not ready, and still takes what comes.",
)
@click.option(
    "--token-file", type=FILE, help=f"File with the token that requests must carry; or the variable {VARIABLE}."
)
@click.option(
    "--without-token", is_flag=True, help="Serve at an address that others reach, and ask nobody for a token."
)
@click.option("--tls-certificate", type=FILE, help="Certificate chain as PEM: both transports are encrypted.")
@click.option("--tls-key", type=FILE, help="Its key as PEM, without a password.")
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help="How it writes its log.",
)
@exit_codes
def serve(**settings: Any) -> None:
    """Serve a package over HTTP and gRPC by the Open Inference Protocol, until SIGTERM or SIGINT."""
    if os.getpid() == 1:  # as in a container: what has no handler is not delivered, and loading takes its time
        signal.signal(signal.SIGTERM, _end_at_once)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would write to a log that nobody may read, and wait for that
    with require_extra(f"pip install -r {SERVE_FILE} of the package, or make install in a checkout"):
        from pipeline.serving.server import Settings, run_server

    run_server(Settings(**settings))
