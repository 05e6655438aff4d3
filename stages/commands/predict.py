"""``fmkt predict``: what is seen on images, from a package alone."""

import contextlib
import csv
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.core.errors import GateError, UserError, written_file
from pipeline.core.files import csv_cell
from pipeline.core.printable import printable
from stages.commands.options import package_option, session_options
from stages.common import exit_codes

if TYPE_CHECKING:
    from pipeline.tasks.base import Prediction, Task

    Write = Callable[[Prediction], None]

logger = logging.getLogger(__name__)

TOP, TOP_IN_TABLE = 3, 1


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path())
@package_option
@click.option("--precision", default="fp32", show_default=True, help="Which of the package's files.")
@session_options
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help=f"How much to say of an image, the surest first.  [default: {TOP}; {TOP_IN_TABLE} in a table]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="CSV file to write, with a row for each thing that is seen."
)
@exit_codes
def predict(
    images: tuple[str, ...],
    package: Path,
    precision: str,
    provider: str,
    num_threads: int,
    top: int | None,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print what the package's network sees on IMAGES: files, folders and archives of such, as soon as it is known."""
    from pipeline.package.predict import image_files, open_runtime, predict_files
    from pipeline.package.reader import Package

    if out is not None and as_json:
        raise UserError("--out writes CSV, --json prints; give one of them")
    if "" in images:  # of a variable that is not set; as a path it would be this folder
        raise UserError("an empty path was given; give files, folders or archives, or . for this folder")
    opened = Package.open(package)
    runtime = open_runtime(opened, precision, provider=provider, num_threads=num_threads)
    failures = []
    with image_files([Path(image) for image in images]) as files, _writing(out, opened.task, as_json=as_json) as write:
        predictions = predict_files(opened, runtime, files, top=top or (TOP if out is None else TOP_IN_TABLE))
        for found in _with_progress(predictions, len(files), printed=out is None):
            if isinstance(found, UserError):
                failures.append(str(found))
            else:
                write(found)
    answered = len(files) - len(failures)
    if out is not None:
        logger.info("%d of %d images answered, in %s", answered, len(files), out)
    if failures:
        raise GateError("\n".join([*failures, f"{len(failures)} of {len(files)} images not read, {answered} answered"]))


@contextlib.contextmanager
def _writing(out: Path | None, task: "Task", *, as_json: bool) -> "Iterator[Write]":
    """Yield what writes a prediction to the table ``out``, or prints it where that is None."""
    if out is None:
        yield _print_json if as_json else _print_text
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    # not put in place when it is whole: a long run can be followed, and leaves what it had found
    with written_file(out), out.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.DictWriter(file, ["file", *task.prediction_columns], lineterminator="\n")
        table.writeheader()

        def write(found: "Prediction") -> None:
            rows = ({"file": found.image, **row} for row in found.rows)
            table.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
            file.flush()

        yield write


def _print_json(found: "Prediction") -> None:
    click.echo(json.dumps({"image": found.image, **found.found}))


def _print_text(found: "Prediction") -> None:
    click.echo(f"{printable(found.image)}: {found.text}")


def _with_progress(
    predictions: "Iterator[Prediction | UserError]", count: int, *, printed: bool
) -> "Iterator[Prediction | UserError]":
    """Yield ``predictions``, with a bar where the terminal does not show them themselves."""
    if not sys.stderr.isatty() or (printed and sys.stdout.isatty()):
        yield from predictions
        return
    with click.progressbar(predictions, count, "images", show_pos=True, file=sys.stderr) as shown:
        yield from shown
