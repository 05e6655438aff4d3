"""Put together what people look at after a run."""

from dataclasses import fields
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
def main(params_path: Path, out: Path, **paths: Path) -> None:  # noqa: ARG001  (nothing here can be set)
    """Write headline figures, tables, plots, galleries and a page that holds them."""
    tables = Tables(**{table.name: paths.pop(table.name) for table in fields(Tables)})
    results = Results(Records(**paths))
    with replaced_folder(out) as folder:
        write_report(results, folder, tables)


if __name__ == "__main__":
    main()
