"""``fmkt preset``: start from known settings."""

from pathlib import Path

import click

from pipeline.core.errors import require_extra
from stages.common import params_option
from stages.exit_codes import exit_codes
from stages.output import say


@click.command(short_help="List the presets, or put one in place.")
@click.argument("name", required=False)
@params_option
@exit_codes
def preset(name: str | None, params_path: Path) -> None:
    """List the presets, or put the one called NAME in place as the parameters file."""
    with require_extra("make install"):
        from pipeline.data.sources.table import SOURCES
        from pipeline.params.presets import PRESETS, apply_preset, list_presets, load_preset

    if name is None:
        presets = list_presets(PRESETS)
        width = max(map(len, presets), default=0)
        for known, title in presets.items():
            say(f"{known:{width}}  {title}")
        return
    kept = apply_preset(PRESETS, name, params_path)
    if kept is not None:
        say(f"your edited {params_path} is kept as {kept}", err=True)
    data = load_preset(PRESETS, name).prepare_data
    step = "run: dvc repro"
    if not SOURCES[data.source].is_one_set:
        step = "run it on your images: dvc exp run -S prepare_data.root=/path/to/images -S package.name=my-model"
    say(f"{params_path} now holds the preset {name}; {step}", err=True)
