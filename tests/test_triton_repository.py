"""A repository for Triton is put together out of links to a package, and holds what can be loaded, no more."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.core.files import sha256, write_json
from pipeline.package import triton_repository
from pipeline.package.engine_register import list_engine
from pipeline.package.reader import Package
from pipeline.package.triton_config import write_triton_configs
from pipeline.package.writer import write_sums
from pipeline.runtimes.engine_file import describe_signature
from stages.__main__ import main
from tests import detection_package
from tests.helpers import ROOT, refused
from workbench.serving_helpers import NAME, make_package

OLD_PACKAGE = ROOT / "tests/packages/v0_1"
BATCH = {"min": 1, "opt": 8, "max": 32}


def with_configs(folder: Path) -> Path:
    write_triton_configs(folder / "triton", Package.open(folder), max_batch=32, num_threads=1)
    write_sums(folder)
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return with_configs(make_package(tmp_path / "package", more=("fp16", "int8-cpu")))


@pytest.fixture(autouse=True)
def without_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the host show the devices in a folder, at first none; return it."""
    monkeypatch.setattr(triton_repository, "DEV", tmp_path / "dev")
    (tmp_path / "dev").mkdir()
    return tmp_path / "dev"


def add_engine(package: Path, of: str = "fp32", **about: Any) -> Path:
    """Add what ``build-engine`` leaves of the precision ``of``; its sidecar says what ``about`` does besides."""
    name = "model.plan" if of == "fp32" else f"model.{of}.plan"
    onnx = Package.open(package).file(of)
    plan = package / "engines" / name
    plan.parent.mkdir(exist_ok=True)
    plan.write_bytes(f"an engine of {of}".encode())
    facts = {"precision": of, "plan": name, "plan_sha256": sha256(plan), "onnx": onnx.name, "onnx_sha256": sha256(onnx)}
    facts |= describe_signature(Package.open(package).signature)
    write_json(plan.with_name(f"{name}.json"), facts | {"batch": BATCH} | about)
    list_engine(plan, package=NAME)
    return plan


def run(package: Path, out: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["triton-repository", "--package", str(package), "--out", str(out), *words])


def files(repository: Path) -> set[str]:
    return {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}


def model(name: str, file: str = "model.onnx") -> set[str]:
    return {f"{name}/{text}" for text in ("config.pbtxt", "labels.txt", f"1/{file}")}


def test_files_are_those_of_the_package_under_other_names(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/repository"
    done = run(package, out)
    assert done.exit_code == 0, done.output
    assert files(out) == model(NAME) | model(f"{NAME}-int8-cpu")
    for name, file in ((NAME, "model.onnx"), (f"{NAME}-int8-cpu", "model.int8-cpu.onnx")):
        assert (out / name / "1/model.onnx").samefile(package / file)
        assert (out / name / "config.pbtxt").read_bytes() == (package / "triton" / name / "config.pbtxt").read_bytes()
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[2:4]] == [
        [NAME, "model.onnx", "linked"],
        [f"{NAME}-int8-cpu", "model.int8-cpu.onnx", "linked"],
    ]
    assert lines[4].startswith(f"left out: {NAME}-gpu: no NVIDIA GPU is to be seen on this host; --gpu takes it")
    assert lines[-1] == f"tritonserver --model-repository={out}"
    assert CliRunner().invoke(main, ["verify", "--package", str(package)]).exit_code == 0, "nothing of it has changed"
    assert not [line for line in run(package, out).output.splitlines() if "error" in line], "again, over itself"
    assert files(out) == model(NAME) | model(f"{NAME}-int8-cpu")


def test_a_copy_is_made_where_it_is_asked_for_or_links_are_not_possible(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = run(package, tmp_path / "asked", "--copy")
    assert " copied" in asked.stdout
    assert "not possible" not in asked.stdout

    def no_link(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source), None, str(target))

    monkeypatch.setattr(os, "link", no_link)
    done = run(package, tmp_path / "other")
    assert f"copied, since links between {package} and {tmp_path / 'other'} are not possible" in done.stdout
    for name in ("asked", "other"):
        copy = tmp_path / name / NAME / "1/model.onnx"
        assert copy.read_bytes() == (package / "model.onnx").read_bytes()
        assert not copy.samefile(package / "model.onnx")


@pytest.mark.parametrize("device", ["nvidia3", "nvhost-gpu"])
def test_models_for_a_gpu_come_where_there_is_one(
    device: str, package: Path, tmp_path: Path, without_gpu: Path
) -> None:
    (without_gpu / "nvidiactl").touch()
    assert f"left out: {NAME}-gpu: " in run(package, tmp_path / "driver").stdout, "a driver is no GPU"
    (without_gpu / device).touch()
    done = run(package, tmp_path / "out")
    assert files(tmp_path / "out") == model(NAME) | model(f"{NAME}-int8-cpu") | model(f"{NAME}-gpu")
    assert (tmp_path / "out" / f"{NAME}-gpu" / "1/model.onnx").samefile(package / "model.fp16.onnx")
    assert f"left out: {NAME}-tensorrt: no engine lies in the package; build-engine builds it" in done.stdout
    plan = add_engine(package)
    assert run(package, tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / f"{NAME}-tensorrt" / "1/model.plan").samefile(plan)
    assert run(package, tmp_path / "out", "--no-gpu").exit_code == 0
    assert files(tmp_path / "out") == model(NAME) | model(f"{NAME}-int8-cpu"), "what there was before is gone"


def test_of_several_engines_one_is_chosen(package: Path, tmp_path: Path) -> None:
    add_engine(package)
    half = add_engine(package, "fp16")
    refused(run(package, tmp_path / "out", "--gpu"), "built here: fp16, fp32; say with --engine which one it is")
    assert run(package, tmp_path / "out", "--gpu", "--engine", "fp16").exit_code == 0
    assert (tmp_path / "out" / f"{NAME}-tensorrt" / "1/model.plan").samefile(half)
    refused(run(package, tmp_path / "out", "--gpu", "--engine", "int8-trt"), "got int8-trt, but built here are: fp16, ")


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"batch": {"min": 2, "opt": 8, "max": 32}}, "model.plan: takes batches of 2 to 32, but "),
        (
            {"batch": {"min": 1, "opt": 8, "max": 16}},
            "promises 1 to 32; build it again with build-engine ",
        ),
        ({"onnx_sha256": "0"}, "model.plan: built from another model.onnx than this package's; delete it"),
        ({"onnx": "model.int4.onnx"}, "model.plan: built from another model.int4.onnx than this package's; delete it"),
    ],
)
def test_an_engine_that_does_not_suit_is_named(
    about: dict[str, Any], words: str, package: Path, tmp_path: Path
) -> None:
    add_engine(package, **about)
    refused(run(package, tmp_path / "out", "--gpu"), words)
    assert not (tmp_path / "out").exists()


def test_triton_gets_no_engine_that_came_with_a_package(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would load it, and run what code it carries."""
    plan = add_engine(package)
    sidecar = plan.with_name("model.plan.json")
    sidecar.write_text(sidecar.read_text().replace("32", "64"))
    refused(run(package, tmp_path / "out", "--gpu"), "model.plan.json: changed since build-engine wrote it")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another-host"))
    refused(run(package, tmp_path / "out", "--gpu"), f"{plan}: not built on this host, or changed since; delete it, or")
    assert not (tmp_path / "out").exists()


def test_what_is_not_of_this_package_is_never_replaced(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(package, out).exit_code == 0
    for strange in (out / "other/config.pbtxt", out / NAME / "2/model.onnx", out / "notes.txt"):
        strange.parent.mkdir(exist_ok=True)
        strange.write_text("mine")
        said = f"holds {strange.relative_to(out).parts[0]}"
        refused(run(package, out), said, f"which is not of a repository of {NAME}; give a new folder")
        assert strange.read_text() == "mine"
        strange.unlink()
        if strange.parent not in {out, out / NAME}:
            strange.parent.rmdir()
    (tmp_path / "file").touch()
    refused(run(package, tmp_path / "file"), "is no folder; give a new one")
    for place in (package, package / "triton", tmp_path):
        refused(run(package, place), "lies in the package, or the package in it")


def test_a_damaged_package_is_refused(package: Path, tmp_path: Path) -> None:
    path = package / "triton" / NAME / "config.pbtxt"
    text = path.read_text()
    path.write_text(text.replace("32", "64"))
    refused(run(package, tmp_path / "out"), "config.pbtxt: differs from its SHA-256")
    path.unlink()
    refused(run(package, tmp_path / "out"), "config.pbtxt: missing")
    path.write_text(text)
    (package / "model.onnx").write_bytes(b"damaged")
    refused(run(package, tmp_path / "out"), "model.onnx: differs from its SHA-256")
    assert not (tmp_path / "out").exists()


def test_packages_of_earlier_versions_which_have_copies_give_the_same(tmp_path: Path) -> None:
    done = run(OLD_PACKAGE, tmp_path / "out", "--copy", "--gpu")
    assert done.exit_code == 0, done.output
    models = model(NAME) | model(f"{NAME}-int8-cpu") | model(f"{NAME}-gpu")
    assert files(tmp_path / "out") == models
    for name in models:
        assert (tmp_path / "out" / name).read_bytes() == (OLD_PACKAGE / "triton" / name).read_bytes()


def test_detections_have_no_labels(tmp_path: Path) -> None:
    package = with_configs(detection_package.make_package(tmp_path / "boxes", more=("fp16",)))
    assert run(package, tmp_path / "out", "--gpu").exit_code == 0
    expected = {f"{name}/{file}" for name in (NAME, f"{NAME}-gpu") for file in ("config.pbtxt", "1/model.onnx")}
    assert files(tmp_path / "out") == expected


def test_the_host_of_triton_needs_neither_onnx_nor_its_client(package: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['onnx', 'tritonclient', 'google.protobuf', 'torch']));"
        "from stages.commands.triton_repository import triton_repository as run; run()"
    )
    words = ["--package", str(package), "--out", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=True, capture_output=True)
    assert json.loads((package / "manifest.json").read_text())["name"] == NAME
    assert files(tmp_path / "out") == model(NAME) | model(f"{NAME}-int8-cpu")
