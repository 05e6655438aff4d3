"""``fmkt inspect-weights``: what is in a file of weights, and which backbones it fits."""

from pathlib import Path

import click

from pipeline.core.printable import printable
from stages.exit_codes import exit_codes
from stages.output import say


@click.command("inspect-weights", short_help="What a file of weights holds, and what takes it.")
@click.argument("file", type=click.Path(path_type=Path))
@exit_codes
def inspect_weights(file: Path) -> None:
    """Say what is in FILE, which backbones it would fit, and the lines of params.yaml that take it.

    Nothing of FILE is run.
    """
    from pipeline.networks.checkpoint import read_checkpoint
    from pipeline.tasks.classification.inspection import describe_content, describe_fitting, fitting_backbones

    checkpoint = read_checkpoint(file)
    for line in describe_content(checkpoint):
        say(line)
    if not checkpoint.state_dicts:
        say("no named tensors: nothing here can be taken as weights")
        return
    found = False
    for fitting in fitting_backbones(checkpoint):
        say("")
        for line in describe_fitting(fitting, checkpoint):
            say(line)
        found = True
    if not found:
        names = list(checkpoint.state_dicts[0].tensors)
        say(f"fits none of the known backbones; its names: {', '.join(map(printable, names[:5]))} ...")
