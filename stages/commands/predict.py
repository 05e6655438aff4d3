"""``fmkt predict``: what is seen on images, from a package alone."""

import contextlib
import csv
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.core.errors import GateError, UserError, written_file
from pipeline.core.files import csv_cell
from pipeline.core.printable import printable
from stages.commands.options import FiniteRange, package_option, session_options
from stages.exit_codes import exit_codes
from stages.output import say

if TYPE_CHECKING:
    from pipeline.tasks.base import Prediction, Task

    Write = Callable[[Prediction], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the command was given."""

    images: tuple[str, ...]
    package: Path
    precision: str
    provider: str
    num_threads: int
    proof_seconds: float
    top: int | None
    min_score: float | None
    as_json: bool
    out: Path | None
    drawn: Path | None


@click.command(short_help="What the network sees on images.")
@click.argument("images", nargs=-1, required=True, type=click.Path())
@package_option
@click.option("--precision", default="fp32", show_default=True, help="Which of the package's files.")
@session_options
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="How much to say of an image, the surest first.  [default: of classes 3, in a table 1; of detections all]",
)
@click.option(
    "--min-score",
    type=FiniteRange(0, 1),
    help="Score from which on a detection counts.  [default: that with which the package was exported]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="CSV file to write, with a row for each thing that is seen."
)
@click.option(
    "--draw",
    "drawn",
    type=click.Path(path_type=Path),
    help="New folder to write the images into with what is detected on them drawn in.",
)
@exit_codes
def predict(**options: Any) -> None:
    """Print what the package's network sees on IMAGES: files, folders and archives of such, as soon as it is known.

    A terminal shows each detection, and more than three classes, on lines of their own; in a pipe or a file an image is
    one line.
    """
    from pipeline.package.drawn import DrawnImages, required_painter
    from pipeline.package.pictures import image_files
    from pipeline.package.predict import predict_files, require_min_score
    from pipeline.package.proof import open_runtime
    from pipeline.package.reader import Package

    given = Options(**options)
    if given.out is not None and given.as_json:
        raise UserError("--out writes CSV, --json prints; give one of them")
    if "" in given.images:  # of a variable that is not set; as a path it would be this folder
        raise UserError("an empty path was given; give files, folders or archives, or . for this folder")
    opened = Package.open(given.package)
    task = opened.task
    require_min_score(task, given.min_score)
    painter = None if given.drawn is None else required_painter(task)
    runtime = open_runtime(
        opened,
        given.precision,
        provider=given.provider,
        num_threads=given.num_threads,
        seconds=given.proof_seconds,
    )
    failures, num_without = [], 0
    with image_files([Path(image) for image in given.images]) as files, contextlib.ExitStack() as stack:
        copies = None if given.drawn is None or painter is None else DrawnImages(given.drawn, painter, files)
        write = stack.enter_context(_writing(given.out, task, as_json=given.as_json))
        predictions = predict_files(
            opened,
            runtime,
            files,
            top=given.top or (task.top if given.out is None else task.top_in_table),
            min_score=given.min_score,
        )
        shown = _with_progress(predictions, len(files), printed=given.out is None)
        for file, found in zip(files, shown, strict=True):
            if isinstance(found, UserError):
                failures.append(str(found))
                continue
            write(found)
            num_without += not found.rows
            if copies is not None:
                copies.write(file, found)
    answered = len(files) - len(failures)
    if given.out is not None:
        without = f"; {num_without} show nothing and have no row" if num_without else ""
        logger.info("%d of %d images answered, in %s%s", answered, len(files), given.out, without)
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
    say(json.dumps({"image": found.image, **found.found}))


def _print_text(found: "Prediction") -> None:
    """Print a line for each image; on a terminal a line for each thing where they are too many for one."""
    if found.lines and sys.stdout.isatty():
        say("\n".join([printable(f"{found.image}:"), *(f"  {line}" for line in found.lines)]))
    else:
        say(printable(f"{found.image}: {found.text}"))


def _with_progress(
    predictions: "Iterator[Prediction | UserError]", count: int, *, printed: bool
) -> "Iterator[Prediction | UserError]":
    """Yield ``predictions``, with a bar where the terminal does not show them themselves."""
    if not sys.stderr.isatty() or (printed and sys.stdout.isatty()):
        yield from predictions
        return
    with click.progressbar(predictions, count, "images", show_pos=True, file=sys.stderr) as shown:
        yield from shown
