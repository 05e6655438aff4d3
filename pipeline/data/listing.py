"""Files below a folder, listed in one way for those who read them and those who watch them for changes."""

import os
from pathlib import Path


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is passed over."""
    return name.startswith((".", "__MACOSX"))


def files_below(root: Path) -> list[Path]:
    """Return the files below ``root``, sorted; links are followed, hidden files and folders are passed over."""
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not is_hidden(name)]
        found += [Path(folder, name) for name in names if not is_hidden(name)]
    return sorted(found)
