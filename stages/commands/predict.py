"""``python -m stages predict``: labels of images from a package alone."""

import json
from pathlib import Path

import click

from stages.common import exit_codes, package_option, session_options


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@package_option
@click.option("--precision", default="fp32", show_default=True, help="Which of the package's files.")
@session_options
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="Labels to print.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
@exit_codes
def predict(
    images: tuple[Path, ...], package: Path, precision: str, provider: str, num_threads: int, top: int, *, as_json: bool
) -> None:
    """Print the most probable labels of IMAGES with their probabilities."""
    from pipeline.package.predict import open_package, predict_files
    from pipeline.package.reader import read_package

    described = read_package(package)
    runtime = open_package(described, precision, provider=provider, num_threads=num_threads)
    for found in predict_files(described, runtime, images, top=top):
        if as_json:
            labels = [{"label": label, "probability": round(probability, 6)} for label, probability in found.labels]
            click.echo(json.dumps({"image": found.image, "labels": labels}, ensure_ascii=False))
        else:
            click.echo(f"{found.image}: " + ", ".join(f"{label} {share:.2%}" for label, share in found.labels))
