"""A package with all that lets it run by itself, and environments of Python in which nothing of the checkout is."""

import os
import subprocess
from pathlib import Path

from pipeline.package.requirements import REQUIREMENTS
from pipeline.package.writer import write_sums
from pipeline.package.zipapp import ARCHIVE, write_zipapp
from pipeline.preflight.code import PROJECT
from stages.package import archived_files
from workbench.serving_helpers import add_samples, make_package

ELSEWHERE = {"PATH": "/usr/bin:/bin"}
"""The variables of a host that knows nothing of the checkout; a home is added."""


def make_lone_package(folder: Path) -> Path:
    """Write a package with its commands, samples and lists of requirements."""
    make_package(folder, more=("int8-cpu",))
    add_samples(folder)
    write_zipapp(folder / ARCHIVE, PROJECT, archived_files())
    for name, content in REQUIREMENTS.items():
        (folder / name).write_text(content, encoding="utf-8")
    write_sums(folder)
    return folder


def make_environment(folder: Path, python: str, requirements: Path | None) -> Path:
    """Return the Python of a new environment with ``requirements``, which everybody on this host may read."""
    subprocess.run([python, "-m", "venv", str(folder)], env=_own_variables(), umask=0o022, check=True)
    found = folder / "bin/python"
    if requirements is not None:
        words = ["install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
        subprocess.run([found, "-m", "pip", *words], env=_own_variables(), umask=0o022, check=True)
    return found


def _own_variables() -> dict[str, str]:
    """Return the variables of this process, with pip's settings, without those by which a Python finds more."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
