"""``fmkt.pyz``: the commands on a package as one file beside it, which needs no checkout and no installation."""

import importlib.metadata
import zipfile
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
FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip archive can name; it has no time zone there."""
PLAIN_FILE = 0o100644 << 16
"""What an entry says of its rights, whatever those are that the file has in the project."""


def write_zipapp(path: Path, project: Path, names: Sequence[str]) -> None:
    """Write the archive to ``path``: the same bytes for the same code.

    Args:
        names: the files that ``ENTRY`` imports and reads, relative to ``project``.
    """
    contents = {name: (project / name).read_bytes() for name in names}
    for distribution in CARRIED:
        contents |= _files_of(distribution)
    contents["__main__.py"] = MAIN.encode()
    with zipfile.ZipFile(path, "w") as archive:  # not by zipapp: its dates are of files, in this host's time zone
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, FIRST_DAY)
            entry.external_attr = PLAIN_FILE
            archive.writestr(entry, contents[name], zipfile.ZIP_DEFLATED)


def _files_of(distribution: str) -> dict[str, bytes]:
    """Return the modules of an installed distribution, and its licence, by their names in the archive."""
    found = {}
    for file in importlib.metadata.files(distribution) or []:
        is_code = file.parts[0] == distribution and file.suffix in {".py", ".typed"}
        if is_code or "license" in file.name.lower():
            found[file.as_posix()] = Path(str(file.locate())).read_bytes()
    return found
