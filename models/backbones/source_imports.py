"""Imports of files of the user's from their source alone.

Python takes the bytecode beside a file for that of the file as it is now, where they agree in size and second: what was
changed at once would stay unseen.
"""

import contextlib
import sys
from collections.abc import Iterator
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from typing import Any


class SourceLoader(SourceFileLoader):
    """Loads a file from its source; reads no bytecode, and keeps none."""

    def path_stats(self, path: Any) -> Any:
        """Raise OSError, by which Python knows that there is no bytecode to compare a source with."""
        raise OSError(path)


@contextlib.contextmanager
def imports_from(folder: str) -> Iterator[None]:
    """Let what lies in ``folder``, and in packages there, be imported from its source.

    What is installed somewhere below it, as in an environment, is imported as ever.
    """
    installed = [Path(entry) for entry in sys.path if entry.startswith(f"{folder}/")]
    find = FileFinder.path_hook(
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (SourceLoader, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )

    def is_own(place: str) -> bool:
        path = Path(place)
        return path.is_relative_to(folder) and not any(path.is_relative_to(entry) for entry in installed)

    def hook(place: str) -> Any:
        if not is_own(place):
            raise ImportError(place)
        return find(place)

    def forget() -> None:
        for place in filter(is_own, [*sys.path_importer_cache]):
            del sys.path_importer_cache[place]

    forget()
    sys.path_hooks.insert(0, hook)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        sys.path_hooks.remove(hook)
        forget()
