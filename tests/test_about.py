"""What a package says of itself: where it comes from, in manifest and command, also of packages of earlier versions."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.core.files import sha256, write_json
from pipeline.package.provenance import UNKNOWN, Commit, describe, read_commit
from pipeline.package.settings import PackageSettings
from pipeline.package.writer import write_sums
from pipeline.params.schema import load_params
from stages.__main__ import main
from stages.package import PROJECT, _written_by_a_run
from tests.helpers import ROOT, refused
from workbench.serving_helpers import NAME, make_package

FACTS = {"name": "fmkt-digits", "data": {"name": "digits", "newest_file": None, "carried_by": "scikit-learn 1.7"}}
DATA = {
    "source": "digits",
    "sizes": {"train": 1200, "test": 359},
    "sha256": {"train.safetensors": "a" * 64, "test.safetensors": "b" * 64},
}


def git(folder: Path, *words: str) -> str:
    names = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", "-C", str(folder), *names, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone with a commit."""
    folder = tmp_path / "clone"
    (folder / "reports").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml", "dvc.lock", "reports/metrics.json"):
        (folder / name).write_text("1")
    git(tmp_path, "init", "--quiet", "clone")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "start")
    return folder


def test_the_commit_and_the_files_that_differ_from_it(clone: Path) -> None:
    sha = git(clone, "rev-parse", "HEAD")
    assert read_commit(clone) == Commit(sha)
    (clone / "untracked").touch()
    for name in ("dvc.lock", "reports/metrics.json"):
        (clone / name).write_text("2")
    written = {"dvc.lock", "reports/metrics.json", "artifacts/package"}
    assert read_commit(clone, written=written) == Commit(sha)
    (clone / "params.yaml").write_text("a new one")
    (clone / "staged ü.py").touch()
    git(clone, "add", "staged ü.py")
    assert read_commit(clone, written=written) == Commit(sha, ("params.yaml", "staged ü.py"))
    assert read_commit(clone).changed == ("dvc.lock", "params.yaml", "reports/metrics.json", "staged ü.py")


def test_outside_of_a_repository_the_commit_is_not_known(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/dvc.yaml").touch()
    assert read_commit(tmp_path / "copy") == UNKNOWN
    (clone / "vendored").mkdir()
    (clone / "vendored/dvc.yaml").touch()
    assert read_commit(clone / "vendored") == UNKNOWN, "of another project's repository that does not have it"
    git(tmp_path, "init", "--quiet", "copy")
    git(tmp_path / "copy", "add", "--all")
    assert read_commit(tmp_path / "copy") == UNKNOWN, "nothing is committed"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_commit(clone) == UNKNOWN, "there is no git"


def test_a_run_does_not_take_its_own_outputs_for_changes() -> None:
    assert PROJECT == ROOT
    assert {"dvc.lock", "artifacts/package", "reports/metrics.json", "reports/evaluation/onnx.json"} <= (
        _written_by_a_run()
    )
    assert not {"params.yaml", "dvc.yaml"} & _written_by_a_run()


def test_what_the_manifest_states() -> None:
    stated = describe(PackageSettings(), FACTS, DATA, Commit("c" * 40, ("params.yaml",)))
    assert stated == {
        "name": "fmkt-digits",
        "version": "0.1.0",
        "licence": None,
        "commit": "c" * 40,
        "changed_files": ["params.yaml"],
        "data": {
            **FACTS["data"],
            "source": "digits",
            "num_images": {"train": 1200, "test": 359},
            "sha256": {"train": "a" * 64, "test": "b" * 64},
        },
    }
    named = describe(PackageSettings(name="mine"), FACTS, DATA | {"files_sha256": "f" * 64}, UNKNOWN)
    assert (named["name"], named["commit"], named["changed_files"]) == ("mine", None, None)
    assert named["data"]["sha256"]["train"] == "f" * 64, "of an index, what the files hold"


@pytest.mark.parametrize("version", ["1.2.0", "2.0.0-rc.1", "1.0rc1", "2026.1", "1.0.0-x.7.z.92+build"])
def test_versions_are_those_of_python_or_semantic(version: str) -> None:
    assert PackageSettings(version=version).version == version


def test_licences_are_spelt_as_spdx_does() -> None:
    assert PackageSettings(licence="apache-2.0 or mit").licence == "Apache-2.0 OR MIT"
    assert PackageSettings(licence="LicenseRef-Proprietary").licence == "LicenseRef-Proprietary"


def test_a_precision_that_is_not_exported_cannot_be_packaged(params_file: Any) -> None:
    changes = {"export_onnx.precisions": ["fp32"], "export_tensorrt.precisions": ["fp32"]}
    with pytest.raises(ValueError, match=r"package.precisions: got fp16, which export_onnx.precisions does not write"):
        load_params(params_file(changes | {"package.precisions": ["fp16"]}))


def about(package: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["about", "--package", str(package), *words])


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = make_package(tmp_path / "package", more=("fp16",))
    stated = describe(PackageSettings(name=NAME), FACTS, DATA, Commit("c" * 40, tuple("abcdefg")))
    change(folder, about=stated)
    return folder


def change(package: Path, **changes: Any) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    write_json(package / "manifest.json", manifest | changes)
    write_sums(package)


def test_a_package_says_what_it_is(package: Path) -> None:
    done = about(package)
    assert done.exit_code == 0, done.output
    rows = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    rows = {title: value.strip() for title, value in rows.items()}
    size = (package / "model.onnx").stat().st_size
    assert rows == {
        "name": NAME,
        "version": "0.1.0",
        "licence": "not stated",
        "commit": f"{'c' * 40}, with changes in a, b, c, d, e and 2 more",
        "images": "digits (source digits): 1,200 in train, 359 in test",
        "images come with": "scikit-learn 1.7",
        "SHA-256 of train": "a" * 64,
        "SHA-256 of test": "b" * 64,
        "task": "classification, 10 classes",
        "input": "image, float32, batch x 3 x 8 x 8",
        "outputs": "logits",
        "sampling steps": "4",
        "file of fp32": f"model.onnx, {size:,} bytes",
        "file of fp16": f"model.fp16.onnx, {size:,} bytes",
        "SHA-256 of its sums": sha256(package / "SHA256SUMS"),
    }
    found = json.loads(about(package, "--json").stdout)
    assert (found["version"], found["changed_files"]) == ("0.1.0", list("abcdefg"))
    assert found["files"]["fp16"] == {"file": "model.fp16.onnx", "bytes": size}
    assert found["data"]["num_images"] == {"train": 1200, "test": 359}


def test_a_package_of_an_earlier_version_states_less() -> None:
    done = about(ROOT / "tests/packages/v0_1")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()[:5]]
    assert lines == [["name", NAME], *([word, "not", "stated"] for word in ("version", "licence", "commit", "images"))]
    found = json.loads(about(ROOT / "tests/packages/v0_1", "--json").stdout)
    assert (found["name"], found["version"], found["data"]) == (NAME, None, None)


@pytest.mark.parametrize(
    "stated",
    [[], "x", {"version": 3}, {"data": {}}, {"data": []}, {"changed_files": "x"}, {"data": {"num_images": 3}}],
)
def test_what_makes_no_sense_is_one_line(stated: object, package: Path) -> None:
    change(package, about=stated)
    for words in ([], ["--json"]):
        refused(about(package, *words), "manifest.json: not as a package has it")


def test_a_terminal_is_safe_from_what_a_package_says(package: Path) -> None:
    stated = json.loads((package / "manifest.json").read_text())["about"]
    change(package, about=stated | {"licence": "MIT\x1b[2J\nname  another"})
    assert "\x1b" not in about(package).stdout
    assert "\nname  another" not in about(package).stdout
