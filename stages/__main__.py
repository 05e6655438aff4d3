"""The user's commands. The stages themselves are run by ``dvc repro``."""

import click

from stages.commands.about import about
from stages.commands.benchmark import benchmark
from stages.commands.build_engine import build_engine
from stages.commands.compare import compare
from stages.commands.estimate import estimate
from stages.commands.inspect_weights import inspect_weights
from stages.commands.offline_plots import offline_plots
from stages.commands.params import params
from stages.commands.predict import predict
from stages.commands.preset import preset
from stages.commands.serve import serve
from stages.commands.summary import summary
from stages.commands.triton_repository import triton_repository
from stages.commands.verify import verify


@click.group()
def main() -> None:
    """Start from known settings, look at the result of a run, and use the package that it wrote."""


COMMANDS = (
    about,
    benchmark,
    build_engine,
    compare,
    estimate,
    inspect_weights,
    offline_plots,
    params,
    predict,
    preset,
    serve,
    summary,
    triton_repository,
    verify,
)
for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
