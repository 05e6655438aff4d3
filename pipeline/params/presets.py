"""Complete parameter files for known settings."""

import itertools
from pathlib import Path

from models.choice import choose
from pipeline.core.errors import user_error
from pipeline.core.files import write_bytes


def list_presets(folder: Path) -> dict[str, Path]:
    """Return the preset files in ``folder`` by name."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def apply_preset(folder: Path, name: str, params: Path) -> Path | None:
    """Put the preset ``name`` in place as ``params``; return where the previous file was kept, if it was edited.

    A file that equals a preset is replaced without a copy.

    Raises:
        UserError: no preset has this name; the message lists those there are.
    """
    presets = list_presets(folder)
    with user_error("preset"):
        chosen = choose(presets, name, kind="preset").read_bytes()
    kept = None
    if params.exists() and params.read_bytes() not in {path.read_bytes() for path in presets.values()}:
        names = (params.with_name(f"{params.name}.bak{number or ''}") for number in itertools.count())
        kept = next(name for name in names if not name.exists())
        write_bytes(kept, params.read_bytes())
    write_bytes(params, chosen)
    return kept
