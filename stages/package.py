"""Put together what a consumer downloads."""

from pathlib import Path

import click

from pipeline.core.files import replaced_folder
from pipeline.export.tensorrt.settings import ExportTensorrt
from pipeline.package.provenance import read_commit
from pipeline.package.settings import PackageSettings
from pipeline.package.signing import sign_package
from pipeline.package.writer import Records, write_package
from pipeline.package.zipapp import ARCHIVE, ENTRY, write_zipapp
from pipeline.preflight.code import PROJECT, CodeReader
from pipeline.preflight.stage_table import STAGES, Kind
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes

LOCK = "dvc.lock"


@click.command()
@stage_options("package")
@exit_codes
def main(params_path: Path, out: Path, **records: Path) -> None:
    """Write the package."""
    settings = load_declared("package", params_path, "package", PackageSettings)
    engine = load_declared("package", params_path, "export_tensorrt", ExportTensorrt).plain()
    commit = read_commit(PROJECT, written=_written_by_a_run())
    with replaced_folder(out) as folder:
        write_zipapp(folder / ARCHIVE, PROJECT, archived_files())
        write_package(folder, settings, engine, Records(**records), commit)
        if settings.signing_key is not None:
            sign_package(folder, Path(settings.signing_key))


def archived_files() -> list[str]:
    """Return the files of the project that the commands on a package run, relative to it."""
    return CodeReader(PROJECT).closure(ENTRY, without=STAGES["package"].never_loads)


def _written_by_a_run() -> set[str]:
    """Return what the stages, and DVC beside them, write into the project."""
    read = {Kind.INPUT, Kind.FACTS}
    runs = [(stage, runtime) for stage in STAGES.values() for runtime in stage.runtimes or [None]]
    paths = {
        stage.project_paths(runtime)[option.argument]
        for stage, runtime in runs
        for option in stage.options
        if option.kind not in read
    }
    return {LOCK, *paths}


if __name__ == "__main__":
    main()
