"""The user's commands. The stages themselves are run by ``dvc repro``."""

import click

from stages.commands.compare import compare
from stages.commands.consumer import COMMANDS as CONSUMER_COMMANDS
from stages.commands.disk import repair, settle
from stages.commands.estimate import estimate
from stages.commands.inspect_weights import inspect_weights
from stages.commands.join import dismiss, join
from stages.commands.offline_plots import offline_plots
from stages.commands.params import params
from stages.commands.preset import preset
from stages.commands.summary import summary


@click.group()
def main() -> None:
    """Start from known settings, look at the result of a run, and use the package that it wrote."""


COMMANDS = (
    *CONSUMER_COMMANDS,
    compare,
    dismiss,
    estimate,
    inspect_weights,
    join,
    offline_plots,
    params,
    preset,
    repair,
    settle,
    summary,
)
for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
