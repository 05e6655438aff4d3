"""The user's commands. The stages themselves are run by ``dvc repro``."""

import click

from stages.commands.compare import compare
from stages.commands.consumer import COMMANDS as CONSUMER_COMMANDS
from stages.commands.disk import repair, settle
from stages.commands.doctor import doctor
from stages.commands.estimate import estimate
from stages.commands.inspect_weights import inspect_weights
from stages.commands.join import dismiss, join
from stages.commands.offline_plots import offline_plots
from stages.commands.params import params
from stages.commands.preset import preset
from stages.commands.sections import Sections
from stages.commands.summary import summary

SECTIONS = {
    "Before a run": (preset, params, doctor, inspect_weights, estimate),
    "After a run": (summary, compare),
    "On several hosts": (join, dismiss),
    "With a package": CONSUMER_COMMANDS,
    "What make calls": (repair, settle, offline_plots),
}


@click.group(cls=Sections, sections=SECTIONS)
def main() -> None:
    """Start from known settings, look at the result of a run, and use the package that it wrote."""


if __name__ == "__main__":
    main()
