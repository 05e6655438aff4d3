"""Put together what a consumer downloads."""

from pathlib import Path

import click

from pipeline.core.files import replaced_folder
from pipeline.export.tensorrt.settings import ExportTensorrt
from pipeline.package.settings import PackageSettings
from pipeline.package.writer import Records, write_package
from stages.common import stage_options
from stages.declared import load_declared
from stages.exit_codes import exit_codes


@click.command()
@stage_options("package")
@exit_codes
def main(params_path: Path, out: Path, **records: Path) -> None:
    """Write the package."""
    settings = load_declared("package", params_path, "package", PackageSettings)
    engine = load_declared("package", params_path, "export_tensorrt", ExportTensorrt).plain()
    with replaced_folder(out) as folder:
        write_package(folder, settings, engine, Records(**records))


if __name__ == "__main__":
    main()
