"""``fmkt.pyz``: the commands on a package as one file beside it, which needs no checkout and no installation."""

import importlib.metadata
import os
import shutil
import tempfile
import zipapp
from collections.abc import Sequence
from pathlib import Path

ARCHIVE = "fmkt.pyz"
ENTRY = "stages.commands.consumer"
"""The module whose ``run`` the archive runs."""
OLDEST_PYTHON = (3, 10)
CARRIED = ("click",)
"""Distributions of pure Python that travel inside, each with its licence."""
MAIN = f"""\
import sys

if sys.version_info < {OLDEST_PYTHON}:
    found = "%d.%d" % sys.version_info[:2]
    sys.exit("error: this is Python " + found + ", {".".join(map(str, OLDEST_PYTHON))} or later is needed")

from {ENTRY} import run

run()
"""
LONG_AGO = 315532800
"""Seconds since 1970 of the first moment of 1980, before which no file of a zip archive can be."""


def write_zipapp(path: Path, project: Path, names: Sequence[str]) -> None:
    """Write the archive to ``path``: the same bytes for the same code.

    Args:
        names: the files that ``ENTRY`` imports and reads, relative to ``project``.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "archive")
        for name in names:
            _copy(project / name, root / name)
        for distribution in CARRIED:
            _copy_distribution(distribution, root)
        (root / "__main__.py").write_text(MAIN, encoding="utf-8")
        for place in (root, *root.rglob("*")):
            place.chmod(0o755 if place.is_dir() else 0o644)
            os.utime(place, (LONG_AGO, LONG_AGO))
        zipapp.create_archive(root, path, interpreter="/usr/bin/env python3", compressed=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _copy_distribution(name: str, root: Path) -> None:
    """Copy the modules of an installed distribution, and its licence, to their places below ``root``."""
    for file in importlib.metadata.files(name) or []:
        is_code = file.parts[0] == name and file.suffix in {".py", ".typed"}
        if is_code or "license" in file.name.lower():
            _copy(Path(str(file.locate())), root / file)
