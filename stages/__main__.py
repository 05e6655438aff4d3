"""The user's commands: ``python -m stages summary``, ``preset`` and ``compare``."""

from pathlib import Path

import click

from pipeline.presets import apply_preset, list_presets
from pipeline.summary import summarize
from stages.common import exit_codes, params_option, path_option


@click.group()
def main() -> None:
    """Look at the result of a run, or start from known settings. The stages themselves are run by ``dvc repro``."""


@main.command()
@exit_codes
def summary() -> None:
    """Print what the last run brought: accuracy, size, parity and latency of each runtime."""
    click.echo(summarize(Path()))


@main.command()
@click.argument("name", required=False)
@params_option
@exit_codes
def preset(name: str | None, params_path: Path) -> None:
    """List the presets, or put the one called NAME in place as the parameters file."""
    folder = Path("presets")
    if name is None:
        for path in list_presets(folder).values():
            click.echo(f"{path.stem:20} {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")
        return
    kept = apply_preset(folder, name, params_path)
    if kept is not None:
        click.echo(f"your edited {params_path} is kept as {kept}", err=True)
    click.echo(f"{params_path} now holds the preset {name}; run: dvc repro", err=True)


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@path_option("--out", "Folder of the runs; what has finished there is not run again.")
@path_option("--report", "Folder to write: tables and plots.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs side by side.")
@exit_codes
def compare(config: Path, out: Path, report: Path, jobs: int) -> None:
    """Train every method and seed of the comparison file CONFIG from one teacher; write a table and plots."""
    from pipeline.comparison.command import run_comparison  # noqa: PLC0415  (needs matplotlib and PyTorch)

    click.echo(run_comparison(config, out, report, jobs=jobs))


if __name__ == "__main__":
    main()
