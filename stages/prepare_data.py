"""Read the images, split them, and pack them."""

from pathlib import Path

import click

from pipeline.core.files import replaced_folder
from pipeline.core.settings import Base
from pipeline.data.packing import write_splits
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.data.splits import make_splits
from pipeline.data.summary import report
from pipeline.tasks.table import get_task
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes


@click.command()
@stage_options("prepare_data")
@exit_codes
def main(params_path: Path, out: Path) -> None:
    """Pack the images of the chosen source into training, calibration and test splits."""
    base = load_declared("prepare_data", params_path, "base", Base)
    settings = load_declared("prepare_data", params_path, "prepare_data", PrepareData)
    entry = SOURCES[settings.source]
    task = get_task(entry.task)
    with replaced_folder(out) as folder, entry.opened(settings) as source:
        splits = make_splits(source, settings, seed=base.seed)
        summary = write_splits(
            splits,
            source.class_names,
            folder,
            settings,
            task=task.name,
            encode_truth=task.encode_truth,
            resize=task.resize,
            category_ids=source.category_ids,
        )
        report(summary, source.passed_over)


if __name__ == "__main__":
    main()
