"""Engines are trusted where this host lists them, whatever a package says of its own."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.core.errors import UserError
from pipeline.core.files import sha256, write_json
from pipeline.core.signature import Signature, TensorSpec
from pipeline.package.engine_register import list_engine, listed_engines, register_path, require_register
from pipeline.package.writer import write_sums
from pipeline.runtimes.engine_file import describe_signature, sidecar
from stages.__main__ import main
from tests.helpers import ROOT, refused

SIGNATURE = Signature(TensorSpec("image", "float32", (3, 8, 8)), (TensorSpec("logits", "float32", (10,)),))
FOREIGN = "not built on this host, or changed since; delete it, or build it again (build-engine)"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return shutil.copytree(ROOT / "tests/packages/v0_1", tmp_path / "package")


def write_engine(package: Path, data: bytes = b"a plan", place: str = "engines/model.plan") -> Path:
    """Return an engine in the package, with a sidecar in which everything is right."""
    plan = package / place
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(data)
    facts = {"plan": plan.name, "plan_sha256": hashlib.sha256(data).hexdigest(), "onnx": "model.onnx"}
    facts |= {"precision": "fp32", "onnx_sha256": sha256(package / "model.onnx")}
    write_json(sidecar(plan), {**facts, "batch": {"min": 1, "opt": 8, "max": 16}, **describe_signature(SIGNATURE)})
    return plan


def verify(package: Path) -> Result:
    return CliRunner().invoke(main, ["verify", "--package", str(package)])


def test_an_engine_that_came_with_a_package_is_refused_though_its_sidecar_is_right(package: Path) -> None:
    plan = write_engine(package)
    refused(verify(package), f"{plan}: {FOREIGN}")
    write_sums(package)
    refused(verify(package), f"{plan}: {FOREIGN}")
    assert not register_path().exists(), "to verify is to read"


def test_an_engine_that_was_built_here_is_right_until_it_changes(package: Path) -> None:
    plan = write_engine(package)
    list_engine(plan, package="old")
    assert verify(package).exit_code == 0
    (entry,) = listed_engines().values()
    assert (entry["package"], entry["plan"], entry["onnx"]) == ("old", str(plan), "model.onnx")
    about = sidecar(plan).read_text()
    sidecar(plan).write_text(about.replace("{", '{"options": {"version_compatible": true},', 1))
    refused(verify(package), f"{sidecar(plan)}: changed since build-engine wrote it")
    sidecar(plan).unlink()
    refused(verify(package), f"{sidecar(plan)}: missing; build the engine again")
    sidecar(plan).write_text(about)
    plan.write_bytes(b"another plan")
    refused(verify(package), f"{plan}: {FOREIGN}")
    plan.unlink()
    refused(verify(package), f"{sidecar(plan)}: not listed in SHA256SUMS")


def test_an_engine_of_another_user_or_host_is_foreign(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_engine(write_engine(package), package="old")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    refused(verify(package), FOREIGN)


def test_the_engine_of_an_earlier_package_is_noticed(package: Path) -> None:
    plan = write_engine(package)
    list_engine(plan, package="old")
    shutil.copyfile(package / "model.int8-cpu.onnx", package / "model.onnx")
    write_sums(package)
    refused(verify(package), f"{plan}: built from another model.onnx than this package's; delete it, or build")


def test_an_engine_in_the_triton_folder_is_judged_by_the_same_list(package: Path) -> None:
    """Earlier versions put a copy there."""
    list_engine(write_engine(package), package="old")
    place = package / "triton/old-tensorrt/1/model.plan"
    place.parent.mkdir(parents=True)
    shutil.copyfile(package / "engines/model.plan", place)
    assert verify(package).exit_code == 0
    place.write_bytes(b"foreign")
    refused(verify(package), f"{place}: {FOREIGN}")


PROCESS = """
import sys
from pathlib import Path
from pipeline.core.signature import Signature, TensorSpec
from pipeline.package.engine_register import list_engine
for plan in sys.argv[1:]:
    list_engine(Path(plan), package="old")
"""


def test_engines_that_are_built_at_the_same_time_are_all_listed(package: Path) -> None:
    plans = [write_engine(package, f"plan {n}".encode(), f"engines/model{n}.plan") for n in range(24)]
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, *map(str, plans[part::4])], cwd=ROOT) for part in range(4)
    ]
    assert [process.wait() for process in running] == [0, 0, 0, 0]
    assert set(listed_engines()) == {sha256(plan) for plan in plans}
    assert register_path().parent.stat().st_mode & 0o077 == 0, "others cannot add to it"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"engines": []}', '{"engines": {"0": {}}}', "\udcff"])
def test_a_damaged_list_is_named(content: str, package: Path) -> None:
    write_engine(package)
    register_path().parent.mkdir(parents=True)
    register_path().write_text(content, errors="surrogateescape")
    said = f"{register_path()}: not the list of engines that build-engine writes ("
    refused(verify(package), said, "delete it, and build engines again")
    with pytest.raises(UserError, match="not the list of engines"):
        require_register()


def test_a_list_that_cannot_be_written_is_noticed_before_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/fmkt/engines.json: cannot be .*; set XDG_STATE_HOME to a folder"):
        require_register()


def test_the_list_lies_where_the_standard_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert register_path() == tmp_path / "state/fmkt/engines.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    for relative in ("", "some/where"):
        monkeypatch.setenv("XDG_STATE_HOME", relative)
        assert register_path() == tmp_path / ".local/state/fmkt/engines.json"
    list_engine(write_engine(shutil.copytree(ROOT / "tests/packages/v0_1", tmp_path / "p")), package="old")
    assert json.loads((tmp_path / ".local/state/fmkt/engines.json").read_text())["engines"]
