"""The commands of whoever has a package: part of ``fmkt``, and all of the ``fmkt.pyz`` that lies in each package."""

import sys

import click

from pipeline.package.requirements import EDGE_FILE
from stages.commands.about import about
from stages.commands.benchmark import benchmark
from stages.commands.build_engine import build_engine
from stages.commands.predict import predict
from stages.commands.serve import serve
from stages.commands.triton_repository import triton_repository
from stages.commands.verify import verify
from stages.output import say

COMMANDS = (about, benchmark, build_engine, predict, serve, triton_repository, verify)
OWN = frozenset({"models", "pipeline", "stages"})


@click.group()
def main() -> None:
    """Use the package that this file lies in: verify it, predict, serve, measure, build an engine."""


for command in COMMANDS:
    main.add_command(command)


def run() -> None:
    """Run what the command line says; a package of Python that is not installed is said in one line."""
    try:
        main(prog_name="fmkt.pyz")
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in OWN:
            raise
        say(f"error: the Python package {error.name} is not installed; pip install -r {EDGE_FILE}", err=True)
        sys.exit(2)
