"""``fmkt triton-repository``: a model repository for NVIDIA Triton from a package."""

from pathlib import Path

import click

from stages.commands.options import package_option
from stages.exit_codes import exit_codes
from stages.output import say


@click.command("triton-repository", short_help="A model repository for NVIDIA Triton.")
@package_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write: the repository.")
@click.option("--copy", is_flag=True, help="Copy files instead of linking them.")
@click.option(
    "--gpu/--no-gpu", default=None, help="Take the models for a GPU.  [default: where this host has an NVIDIA GPU]"
)
@click.option("--engine", metavar="PRECISION", help="Which of the engines, where several were built.")
@exit_codes
def triton_repository(package: Path, out: Path, engine: str | None, *, copy: bool, gpu: bool | None) -> None:
    """Put a model repository for NVIDIA Triton together, in which all that is there can be loaded."""
    from pipeline.core.text_table import aligned
    from pipeline.package.reader import Package
    from pipeline.package.triton_repository import has_gpu, write_triton_repository

    opened = Package.open(package)
    found = write_triton_repository(out, opened, gpu=has_gpu() if gpu is None else gpu, engine=engine, copy=copy)
    rows = [
        [model.name, model.source.relative_to(package).as_posix(), "linked" if model.linked else "copied"]
        for model in found.models
    ]
    say("\n".join(aligned(["model", "file of the package", "how"], rows)))
    for name, reason in found.left_out.items():
        say(f"left out: {name}: {reason}")
    if not copy and not all(model.linked for model in found.models):
        say(f"copied, since links between {package} and {out} are not possible")
    say(f"tritonserver --model-repository={out.resolve()}")
