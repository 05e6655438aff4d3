"""Presets: known settings, each a short file of what differs from the defaults.

``presets/NAME.yaml`` begins with a comment that says what it is for. ``extends: OTHER`` starts from another preset
instead of the defaults; a preset whose name begins with ``_`` is there for others to extend, and is not listed.
"""

import itertools
from pathlib import Path
from typing import Any

from models.core.table import choose, unknown_name
from pipeline.core.errors import UserError, readable_file, user_error
from pipeline.core.files import write_bytes
from pipeline.params.loading import validated
from pipeline.params.overlays import overlays
from pipeline.params.rendering import render
from pipeline.params.schema import Params

DEFAULT = "digits"
"""The preset from which a fresh clone starts: the defaults themselves."""
PRESETS = Path("presets")
"""The folder of presets, in the root of a clone."""


def list_presets(folder: Path) -> dict[str, str]:
    """Return the title of each preset in ``folder``, by its name.

    Raises:
        UserError: there is no such folder, or a file does not begin with its title.
    """
    return {name: _title(folder / f"{name}.yaml") for name in _names(folder)}


def load_preset(folder: Path, name: str) -> Params:
    """Return the parameters of the preset ``name`` in ``folder``.

    Raises:
        UserError: no preset has this name; a file extends one that is not there, or itself; or a key is unknown or
            ill-typed. Names the file and the key.
    """
    _require_preset(folder, name)
    content: dict[str, Any] = Params().model_dump(mode="json")
    chain = overlays(folder / f"{name}.yaml", "preset")
    for path, changes in reversed(chain.items()):
        content = _merged(content, changes, path)
    first, *others = chain
    extended = ", ".join(path.stem for path in others)
    return validated(content, Params, f"{first} (extends {extended})" if extended else first)


def render_preset(folder: Path, name: str) -> str:
    """Return the complete, commented parameters file of the preset ``name`` in ``folder``.

    Raises:
        UserError: as ``load_preset``.
    """
    return render(load_preset(folder, name), _title(folder / f"{name}.yaml"))


def apply_preset(folder: Path, name: str, params: Path) -> Path | None:
    """Put the preset ``name`` in place as ``params``; return where the previous file was kept, if it was edited.

    A file that equals a preset is replaced without a copy.

    Raises:
        UserError: as ``load_preset``; or ``params`` cannot be read.
        OSError: it cannot be written; nothing has changed then.
    """
    chosen = render_preset(folder, name).encode()
    kept = None
    params = params.resolve()  # a link stays one
    with readable_file(params):
        earlier = params.read_bytes() if params.exists() else None
    if earlier is not None and not _is_preset(folder, earlier):
        names = (params.with_name(f"{params.name}.bak{number or ''}") for number in itertools.count())
        kept = next(name for name in names if not name.exists())
        write_bytes(kept, earlier)
    write_bytes(params, chosen)
    return kept


def _is_preset(folder: Path, content: bytes) -> bool:
    """Return whether ``content`` is that of a rendered preset, as no edited file is."""
    for name in _names(folder):
        try:
            if render_preset(folder, name).encode() == content:
                return True
        except UserError:  # another preset's fault does not hinder this one
            continue
    return False


def _names(folder: Path) -> list[str]:
    """Return the names of the presets in ``folder``; raises UserError where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder.absolute()}: no such folder; run this in the root of a clone, which has it")
    return sorted(path.stem for path in folder.glob("*.yaml") if not path.stem.startswith("_"))


def _require_preset(folder: Path, name: str) -> None:
    with user_error("preset"):
        choose(dict.fromkeys(_names(folder)), name, kind="preset")


def _title(path: Path) -> str:
    try:
        first = path.read_text(encoding="utf-8").partition("\n")[0]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text in UTF-8") from error
    title = first.removeprefix("#").strip()
    if not first.startswith("#") or not title:
        raise UserError(f"{path}: its first line must be a comment that says what the preset is for")
    return title


def _merged(content: dict[str, Any], changes: dict[str, Any], path: Path, above: str = "") -> dict[str, Any]:
    """Return ``content`` with ``changes``, section by section.

    Raises:
        UserError: a key of ``changes`` is not in ``content``.
    """
    merged = dict(content)
    for name, value in changes.items():
        if name not in content:
            raise UserError(f"{path}: {above}{name}: {unknown_name('key', str(name), content)}")
        inner = content[name]
        is_section = isinstance(inner, dict) and isinstance(value, dict)
        merged[name] = _merged(inner, value, path, f"{above}{name}.") if is_section else value
    return merged
