"""``fmkt offline-plots``: pages of plots that need no network."""

from pathlib import Path

import click

from stages.exit_codes import exit_codes
from stages.output import say


@click.command("offline-plots", short_help="Let `dvc plots show` do without a network.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(".dvc/plots.html"),
    show_default=True,
    help="Page to write, for plots.html_template of DVC's configuration.",
)
@exit_codes
def offline_plots(out: Path) -> None:
    """Write the frame in which `dvc plots show` needs no network; `make install` calls it and tells DVC of it."""
    from pipeline.core.files import write_text
    from pipeline.report.plots_template import plots_template

    write_text(out, plots_template())
    say(f"written to {out}; dvc config --local plots.html_template plots.html tells DVC of .dvc/plots.html")
