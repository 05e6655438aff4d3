"""Paths as the user knows them."""

from pathlib import Path

from pipeline.core.printable import printable


class ShownNames:
    """Paths as the user knows them, also for files of an unpacked archive."""

    def __init__(self, *, shown: Path, root: Path) -> None:
        self.shown = shown
        self.root = root

    def __call__(self, path: Path) -> str:
        """Return the path from the root as the user gives it."""
        return printable(self.shown / path.relative_to(self.root))

    def below(self, path: Path) -> str:
        """Return the path as seen from the root."""
        return printable(path.relative_to(self.root))
