"""Files below a folder, listed in one way for those who read them and those who watch them for changes."""

import os
from pathlib import Path

from pipeline.core.errors import readable_file


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is passed over."""
    return name.startswith((".", "__MACOSX"))


def files_below(root: Path) -> list[Path]:
    """Return the files below ``root``, sorted; links are followed, hidden files and folders are passed over.

    Raises:
        UserError: a folder cannot be read.
    """
    found = []
    with readable_file(root):
        for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_raise):
            subfolders[:] = [name for name in subfolders if not is_hidden(name)]
            found += [Path(folder, name) for name in names if not is_hidden(name)]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error
