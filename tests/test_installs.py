"""What make install takes and refuses, and the documents that say what it has installed."""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.sbom import LOCK, described, licence, read_lock
from tests.helpers import ROOT

PINS = read_lock()


def test_every_pin_of_the_lock_has_hashes_and_names_no_index() -> None:
    text = LOCK.read_text()
    assert len({(pin.name, pin.version) for pin in PINS}) == len(PINS) > 200
    assert all(pin.hashes and all(re.fullmatch("[0-9a-f]{64}", content) for content in pin.hashes) for pin in PINS)
    assert text.count("--hash=") == sum(len(pin.hashes) for pin in PINS) == text.count("--hash=sha256:")
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE), "no option of pip"


def test_the_lock_holds_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    versions = {pin.name: pin.version for pin in PINS}
    asked = [*project["dependencies"], *extras["dev"], *extras["serve"], *extras["timm"]]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
    assert (versions["torch"], versions["torchvision"]) == ("2.14.1", "0.29.1")


def test_what_is_installed_is_what_is_locked() -> None:
    versions: dict[str, set[str]] = {}
    for pin in PINS:
        versions.setdefault(pin.name, set()).add(pin.version)
    for distribution in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")]):  # no vendored copies
        name = canonicalize_name(distribution.metadata["Name"])
        assert name not in versions or distribution.version in versions[name], name


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what make sbom writes of this environment."""
    out = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    done = subprocess.run(
        [sys.executable, "-m", "deploy.sbom", str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"sbom.cdx.json: \d+ packages, \d+ of them with the hashes of requirements.lock\n", done.stdout)
    content: dict[str, Any] = json.loads(out.read_text())
    return content


@pytest.mark.slow
def test_the_sbom_is_a_valid_document_of_cyclonedx(document: dict[str, Any]) -> None:
    from cyclonedx.schema import SchemaVersion  # takes a second
    from cyclonedx.validation.json import JsonStrictValidator

    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    about = document["metadata"]["component"]
    assert (about["name"], about["licenses"][0]["license"]["id"]) == ("fmkt-pipeline", "Apache-2.0")
    assert str(ROOT) not in json.dumps(document)


@pytest.mark.slow
def test_the_sbom_has_names_versions_hashes_and_licences_of_all_that_is_installed(document: dict[str, Any]) -> None:
    locked = {(pin.name, pin.version): pin for pin in PINS}
    shown = {(canonicalize_name(one["name"]), one["version"]): one for one in document["components"]}
    installed = {
        (canonicalize_name(one.metadata["Name"]), one.version)
        for one in importlib.metadata.distributions()
        if one.metadata["Name"] is not None
    }
    assert installed & set(locked) == set(shown) & set(locked)
    assert {"torch", "numpy", "dvc", "onnx"} <= {name for name, _ in shown}
    assert not {"fmkt", "fmkt-pipeline"} & {name for name, _ in shown}, "that is what the document is about"
    for release in set(shown) & set(locked):
        component = shown[release]
        assert component["licenses"], release
        hashes = [
            one["content"] for reference in component["externalReferences"] for one in reference.get("hashes", [])
        ]
        assert hashes == list(locked[release].hashes)


def test_what_is_not_locked_is_shown_as_the_tool_has_it() -> None:
    own = {"name": "mine", "version": "1", "purl": "pkg:pypi/mine@1"}
    assert described({"components": [dict(own)]}, PINS) == {"components": [own]}


def test_a_package_without_a_known_licence_is_named() -> None:
    with pytest.raises(LookupError, match="nobody-has-this"):
        licence("nobody-has-this")


def make_wheel(folder: Path, name: str, content: str) -> Path:
    """Return a wheel of a distribution that consists of one module."""
    folder.mkdir(exist_ok=True)
    about = f"{name}-1.dist-info"
    files = {
        f"{name}.py": content,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["another file", "no file", "no hash"])
def test_make_install_refuses_what_the_lock_has_no_hash_of(fault: str, tmp_path: Path) -> None:
    clone, wheels = tmp_path / "clone", tmp_path / "wheels"
    clone.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    lines = []
    for name in ("setuptools", "small"):
        content = hashlib.sha256(make_wheel(wheels, name, "x = 1").read_bytes()).hexdigest()
        is_bare = fault == "no hash" and name == "small"
        lines.append(f"{name}==1" if is_bare else f"{name}==1 \\\n    --hash=sha256:{content}")
    (clone / "requirements.lock").write_text("\n".join(lines) + "\n")
    if fault == "another file":
        make_wheel(wheels, "small", "x = 2")
    elif fault == "no file":
        (wheels / "small-1-py3-none-any.whl").unlink()
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    command = ["make", "--no-print-directory", "install", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    words = {"another file": "DO NOT MATCH THE HASHES", "no file": "No matching distribution", "no hash": "--hash"}
    assert done.returncode == 2
    assert words[fault] in done.stderr
    assert "error: the packages of requirements.lock are not installed, for the reason above; docs/" in done.stderr
    assert not (clone / ".venv/.installed").exists()
    assert list(clone.glob(".venv/lib/*/site-packages/setuptools.py")), "which builds what has no wheel, comes first"
    assert not list(clone.glob(".venv/lib/*/site-packages/small.py"))


def test_all_that_installs_the_lock_asks_for_hashes() -> None:
    """And builds what has no wheel with what is locked, not with what an index has today."""
    for name in ("Makefile", "deploy/pipeline/Dockerfile"):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        commands = re.findall(r"pip install ([^\n;|&]*)", text)
        locked = [words for words in commands if "uv" not in words.split()]
        assert locked, name
        assert all("--no-deps" in words and "--no-build-isolation" in words for words in locked), name
        assert text.count("--require-hashes") == 1, name
