"""Put together what people look at after a run."""

from pathlib import Path

import click

from pipeline.core.files import replaced_folder
from pipeline.report.records import Records, Results
from pipeline.report.writer import Tables, write_report
from stages.common import stage_options
from stages.exit_codes import exit_codes


@click.command()
@stage_options("report")
@exit_codes
def main(
    params_path: Path,  # noqa: ARG001  (of every stage; nothing here can be set)
    out: Path,
    metrics: Path,
    mistakes: Path,
    classes: Path,
    confusion: Path,
    precision_recall: Path,
    score_by_epoch: Path,
    score_by_steps: Path,
    **records: Path,
) -> None:
    """Write headline figures, tables, plots, galleries and a page that holds them."""
    results = Results(Records(**records))
    tables = Tables(metrics, mistakes, classes, confusion, precision_recall, score_by_epoch, score_by_steps)
    with replaced_folder(out) as folder:
        write_report(results, folder, tables)


if __name__ == "__main__":
    main()
