"""Files of settings that extend one another: each holds what differs from the one that it names."""

from pathlib import Path
from typing import Any

from models.core.table import unknown_name
from pipeline.core.errors import UserError
from pipeline.params.loading import read_yaml

EXTENDS = "extends"
"""The key that names the other file: of the same folder, without its ending."""


def overlays(path: Path, kind: str) -> dict[Path, dict[str, Any]]:
    """Return what the YAML file ``path`` holds, then what the one that it extends holds, and so on, by their paths.

    Args:
        kind: what such a file is called in errors, e.g. preset.

    Raises:
        UserError: a file is not YAML or holds no mapping, extends one that is not there, or itself.
    """
    chain: dict[Path, dict[str, Any]] = {}
    following: Path | None = path
    while following is not None:
        file, content = following, _content(following)
        other = content.pop(EXTENDS, None)
        chain[file] = content
        following = None if other is None else _extended(file, other, kind)
        if following in chain:
            names = ", ".join([*(one.stem for one in chain), str(other)])
            raise UserError(f"{file}: {EXTENDS}: goes round in a circle: {names}")
    return chain


def _extended(path: Path, name: object, kind: str) -> Path:
    """Return the file called ``name`` beside ``path``; raises UserError where there is none."""
    known = sorted(file.stem for file in path.parent.glob("*.yaml"))
    if name not in known:
        raise UserError(f"{path}: {EXTENDS}: {unknown_name(kind, str(name), known)}")
    return path.with_name(f"{name}.yaml")


def _content(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if content is None:  # comments alone: nothing differs
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no keys; give those that differ from what it starts from")
    return content
