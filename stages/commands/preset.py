"""``python -m stages preset``: start from known settings."""

from pathlib import Path

import click

from stages.common import exit_codes, params_option


@click.command()
@click.argument("name", required=False)
@params_option
@exit_codes
def preset(name: str | None, params_path: Path) -> None:
    """List the presets, or put the one called NAME in place as the parameters file."""
    from pipeline.params.presets import apply_preset, list_presets

    folder = Path("presets")
    if name is None:
        for path in list_presets(folder).values():
            click.echo(f"{path.stem:20} {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")
        return
    kept = apply_preset(folder, name, params_path)
    if kept is not None:
        click.echo(f"your edited {params_path} is kept as {kept}", err=True)
    click.echo(f"{params_path} now holds the preset {name}; run: dvc repro", err=True)
