"""``fmkt estimate``: how long the trainings will take."""

from pathlib import Path

import click

from stages.common import params_option
from stages.exit_codes import exit_codes
from stages.output import say


@click.command(short_help="Foretell how long each training takes.")
@params_option
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("artifacts/data"),
    show_default=True,
    help="What prepare_data wrote.",
)
@exit_codes
def estimate(params_path: Path, data: Path) -> None:
    """Take the first steps of each training, in one process, and foretell from them how long it takes.

    Nothing is kept of them. What compiling and several processes gain is not in it; the memory is what this process had
    at most so far, without those that decode images.
    """
    from tqdm import tqdm

    from pipeline.core.other_programs import advice_beside_others, beside_others
    from pipeline.core.text_table import aligned, wrapped
    from pipeline.params.schema import load_params
    from pipeline.preflight.estimate import estimate_trainings

    rows, total, others = [], 0.0, 0.0
    for found in estimate_trainings(load_params(params_path), data):
        total, others = total + found.seconds, max(others, found.others)
        rows.append(
            [
                found.stage,
                f"{found.images:,}",
                f"{found.num_steps:,}",
                f"{1000 * found.seconds / found.num_steps:,.0f}",
                tqdm.format_interval(found.seconds),
                f"{found.memory / 2**30:.1f}",
                f"{found.others:.0%}" if found.others else "",
            ]
        )
    rows.append(["both" if len(rows) > 1 else "all", "", "", "", tqdm.format_interval(total), "", ""])
    header = ["training", "images", "steps", "ms a step", "h:mm:ss", "peak GiB so far", "CPU of others"]
    columns = len(header) if others else -1
    say("\n".join(aligned(header[:columns], [row[:columns] for row in rows])))
    if others:
        said = f"it takes so long{beside_others(others)}"
        say("\n".join(wrapped("; ".join(filter(None, [said, advice_beside_others(others)])))))
    say("the other stages take a minute or two more, longer with many test images or large networks")
