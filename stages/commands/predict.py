"""``fmkt predict``: what is seen on images, from a package alone."""

import json
from pathlib import Path

import click

from stages.commands.options import package_option, session_options
from stages.common import exit_codes


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@package_option
@click.option("--precision", default="fp32", show_default=True, help="Which of the package's files.")
@session_options
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How much to print of an image, the surest first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
@exit_codes
def predict(
    images: tuple[Path, ...], package: Path, precision: str, provider: str, num_threads: int, top: int, *, as_json: bool
) -> None:
    """Print what the package's network sees on IMAGES."""
    from pipeline.package.predict import open_runtime, predict_files
    from pipeline.package.reader import Package

    opened = Package.open(package)
    runtime = open_runtime(opened, precision, provider=provider, num_threads=num_threads)
    for prediction in predict_files(opened, runtime, images, top=top):
        if as_json:
            click.echo(json.dumps({"image": prediction.image, **prediction.found}, ensure_ascii=False))
        else:
            click.echo(f"{prediction.image}: {prediction.text}")
