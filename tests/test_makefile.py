"""The Makefile for users who lack what others have."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import ROOT

SHOW = "show:\n\t@echo $$HOME"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder with the Makefile, in which the environment counts as installed."""
    folder = tmp_path / "a clone"
    (folder / ".venv").mkdir(parents=True)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv/.installed").touch()
    return folder


def make(clone: Path, *words: str, home: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    environment |= {} if home is None else {"HOME": home}
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


def test_a_user_without_a_home_gets_one(clone: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=clone, check=True)
    for home in (None, str(tmp_path / "none")):
        done = make(clone, "--eval", SHOW, "show", home=home)
        assert done.stdout == f"{clone}/.cache/home\n", done.stderr
    assert make(clone, "--eval", SHOW, "show", home=str(tmp_path)).stdout == f"{tmp_path}\n"


def test_a_clone_that_git_refuses_is_named_with_the_cure(clone: Path) -> None:
    """Here a folder that is no clone; one of another owner needs a second user."""
    done = make(clone, "trusted", home=str(clone))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: git refuses {clone}: it is no clone, or belongs to another user; ")
    assert f"git config --global --add safe.directory {clone}\n" in done.stderr
    subprocess.run(["git", "init", "--quiet"], cwd=clone, check=True)
    assert make(clone, "trusted", home=str(clone)).returncode == 0
