"""Old and new versions of a package: registered, pushed, brought back and fetched, with git, DVC and GTO themselves."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.package.writer import write_sums
from tests.helpers import ROOT

pytestmark = pytest.mark.slow

PIPELINE = """\
stages:
  package:
    cmd: cp -R trained artifacts/package
    deps: [trained]
    outs: [artifacts/package]
artifacts:
  fmkt-student:
    path: artifacts/package
    type: model
"""
"""The last stage alone: what it copies stands for what was trained."""
CONFIG = """\
[core]
    analytics = false
    autostage = true
    remote = shared
['remote "shared"']
    url = {}
"""


def run(folder: Path, *command: str) -> str:
    """Return what ``command`` prints in ``folder``, with the environment's programs and a name for git."""
    names = {f"GIT_{role}_{key}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, **names, "PATH": path, "PYTHONPATH": str(ROOT)}
    variables.pop("DVC_ROOT", None)
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def versions() -> dict[str, dict[str, bytes]]:
    """Return the files of each version, by its number."""
    return {}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, versions: dict[str, dict[str, bytes]]) -> Path:
    """Return a repository with two registered versions, both in a DVC remote; the second one is in place."""
    folder = tmp_path_factory.mktemp("versions")
    root = folder / "project"
    root.mkdir()
    run(root, "git", "init", "--quiet", "--initial-branch=main")
    run(root, "dvc", "init", "--quiet")
    (root / ".dvc/config").write_text(CONFIG.format(folder / "remote"))
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "artifacts").mkdir()
    shutil.copytree(ROOT / "tests/packages/v0_1", root / "trained")
    for version in ("v1.0.0", "v2.0.0"):
        (root / "trained/README.md").write_text(f"The model of {version}.\n")
        write_sums(root / "trained")
        run(root, "dvc", "repro", "--quiet")
        versions[version] = files(root / "artifacts/package")
        run(root, "git", "add", "--all")
        run(root, "git", "commit", "--quiet", "--message", f"the model of {version}")
        run(root, "gto", "register", "fmkt-student", "--version", version)
        run(root, "dvc", "push", "--quiet")
    return root


def verify(package: Path) -> None:
    said = run(ROOT, sys.executable, "-m", "stages", "verify", "--package", str(package))
    assert "agree with their sums" in said


def test_an_older_version_comes_back_in_place_and_the_newest_after_it(
    project: Path, versions: dict[str, dict[str, bytes]]
) -> None:
    package = project / "artifacts/package"
    for place, version in (("fmkt-student@v1.0.0", "v1.0.0"), ("main", "v2.0.0")):
        run(project, "git", "checkout", "--quiet", place)
        run(project, "dvc", "checkout")
        assert files(package) == versions[version]
        verify(package)
    assert run(project, "git", "status", "--short") == ""
    assert re.search(r"fmkt-student .* v2\.0\.0 ", run(project, "gto", "show")), "which is the newest"


def test_a_clone_without_a_cache_pulls_the_version_that_it_stands_at(
    project: Path, versions: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    run(tmp_path, "git", "clone", "--quiet", "--branch", "fmkt-student@v1.0.0", str(project), "clone")
    run(tmp_path / "clone", "dvc", "pull", "artifacts/package")
    assert files(tmp_path / "clone/artifacts/package") == versions["v1.0.0"]


@pytest.mark.parametrize(
    ("words", "version"),
    [((), "v2.0.0"), (("--rev", "v1.0.0"), "v1.0.0"), (("--rev", "v2.0.0"), "v2.0.0")],
)
def test_a_consumer_fetches_the_newest_version_or_the_one_that_is_asked_for(
    words: tuple[str, ...], version: str, project: Path, versions: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """From a clone of which nothing but what git knows is left: the files come from the remote."""
    run(tmp_path, "git", "clone", "--quiet", str(project), "clone")
    run(tmp_path, "dvc", "artifacts", "get", str(tmp_path / "clone"), "fmkt-student", *words, "--out", "model")
    assert files(tmp_path / "model") == versions[version]
    verify(tmp_path / "model")
