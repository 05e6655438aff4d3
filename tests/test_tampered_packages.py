"""What somebody does to a package who can write into it: a line says so, nothing hangs, nothing is believed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from attacks.tamperings import ENDLESS, tamperings, write_sums_again
from pipeline.core.errors import UserError
from pipeline.package.engine_register import register_path
from pipeline.package.reader import Package
from pipeline.serving.models import load_models
from stages.__main__ import main
from tests.helpers import ROOT, refused

OLD = ROOT / "tests/packages/v0_1"
Change = Callable[[Path], object]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    subprocess.run(["cp", "-r", OLD, tmp_path / "package"], check=True)
    return tmp_path / "package"


def run(command: str, package: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [command, "--package", str(package), *words])


def edit(file: str, /, **changes: Any) -> Change:
    def apply(package: Path) -> None:
        content = json.loads((package / file).read_text())
        (package / file).write_text(json.dumps(content | changes))

    return apply


def put(name: str, text: str) -> Change:
    return lambda package: (package / name).write_text(text)


def replaced(name: str, other: Callable[[Path], object]) -> Change:
    def apply(package: Path) -> None:
        (package / name).unlink()
        other(package / name)

    return apply


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replaced("manifest.json", os.mkfifo), "manifest.json: is no plain file"),
        (replaced("samples.safetensors", lambda path: path.symlink_to("/dev/zero")), "samples.safetensors: a link"),
        (replaced("SHA256SUMS", os.mkfifo), "SHA256SUMS: is no plain file"),
        (lambda package: os.truncate(package / "model.onnx", 2**40), "model.onnx: has 1,024 GiB, allowed is 2 GiB"),
        (lambda package: (package / "engines").mkdir() or os.mkfifo(package / "engines/x.plan"), "x.plan: not listed"),
        (lambda package: (package / "a\x1b[2J\nerror: forged").touch(), "a\\x1b[2J\\nerror: forged: not listed"),
    ],
)
def test_only_plain_files_of_a_known_size_are_read(change: Change, said: str, package: Path) -> None:
    change(package)
    refused(run("verify", package), said)


def test_a_folder_that_is_a_link_leads_out_of_the_package(package: Path) -> None:
    (package / "triton").rename(package.parent / "triton")
    (package / "triton").symlink_to(package.parent / "triton")
    result = run("verify", package)
    found = {line.removeprefix(f"error: {package}/triton: ") for line in result.stderr.splitlines()}
    copy = "a link; a package has none (cp -rL copies what it leads to); fetch the package again"
    assert (result.exit_code, found) == (2, {copy, "a link; a package has none"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("\n", "\r\n"), "not a list of SHA-256 sums"),
        (lambda text: f"{'0' * 64}  model.onnx\n{text}", "names 'model.onnx' twice"),
        (lambda text: f"{text}{'0' * 64}  MODEL.onnx\n", "names 'MODEL.onnx' twice, or under two names"),
        (lambda text: f"{text}{'0' * 64}  cafe\u0301\n{'0' * 64}  caf\u00e9\n", "names 'caf\u00e9' twice"),
        (lambda text: f"{text}{'0' * 64}  a\u2028b\n", "not a list of SHA-256 sums"),
        (lambda text: f"{text}{'0' * 64}  ./a\n", "names './a', which is no name of a file"),
        (lambda text: f"{text}{'0' * 64}  {'a/' * 2000}a\n", "which is no name of a file"),
        (lambda text: text + " " * 2**24, "SHA256SUMS: has 16 MiB, allowed is 16 MiB"),
    ],
)
def test_a_list_of_sums_is_read_in_one_way_only(change: Callable[[str], str], said: str, package: Path) -> None:
    path = package / "SHA256SUMS"
    path.write_bytes(change(path.read_text()).encode())
    refused(run("verify", package), said)


FILE = {"precision": "fp32", "bytes": 1}
REMEDY = "do not use this package, or give it longer with --proof-seconds"
LONG = {"labels": ["a" * 2000 + str(number) for number in range(10)]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit("manifest.json", name="stats"), "name: got 'stats', expected another"),
        *[
            (edit("manifest.json", name=name), f"name: got {name!r}, expected at most")
            for name in ("a/b", "", "-a", "a b")
        ],
        (edit("manifest.json", name="\x1b[2J"), "name: got '\\x1b[2J', expected at most 200 letters"),
        (edit("manifest.json", num_steps=-1), "num_steps: got -1, expected 0 or more"),
        (
            edit("manifest.json", files={"../model.onnx": FILE}),
            "files: got '../model.onnx'",
        ),
        (edit("manifest.json", about={"data": {"name": "x"}}), "has no about.data.source"),
        (edit("manifest.json", warnings=["\ud800"]), "surrogates not allowed"),
        (edit("manifest.json", image_size=[10**400, 8]), "image_size is ["),
        (edit("manifest.json", gates={"fp32": {"max_difference": 10**400}, "int8-cpu": {}}), "not so large"),
        (edit("manifest.json", gates={}), "has no gates of"),
        (put("manifest.json", '{"a":' * 100_000), "not valid JSON (nested too deeply)"),
        (put("manifest.json", '{"a": 1, "a": 2}'), "the key 'a' stands there twice"),
        (put("manifest.json", '{"a": NaN}'), "NaN is no number of JSON"),
        (put("labels.json", json.dumps(LONG)), "labels: got a name of 2,001 characters"),
        (put("preprocessing.json", "{}"), "preprocessing.json: not as a package has it: has no input"),
        (edit("preprocessing.json", image_size=[8, 9]), "preprocessing.json: image_size is [8, 9], expected [8, 8]"),
        (
            edit("calibration.json", num_steps="four"),
            "calibration.json: not as a package has it: num_steps: got",
        ),
        (edit("engine.json", min_batch=0), "engine.json: not as a package has it: min_batch, opt_batch"),
        (put("tradeoff.json", "[]"), "tradeoff.json: not as a package has it: holds a JSON list"),
    ],
)
@pytest.mark.parametrize("command", ["verify", "predict", "about"])
def test_every_reader_goes_by_one_schema(command: str, change: Change, said: str, package: Path) -> None:
    change(package)
    write_sums_again(package)
    refused(run(command, package, *(["x.png"] if command == "predict" else [])), said)


def test_a_server_does_not_start_unproved(package: Path) -> None:
    (package / "samples.safetensors").unlink()
    for said in ("missing", "missing"):
        with pytest.raises(UserError, match=rf"samples.safetensors: {said}"):
            load_models(Package.open(package), ["fp32"], provider="cpu", num_threads=1)
        write_sums_again(package)


@pytest.mark.slow
def test_a_network_that_never_ends_ends_the_command(package: Path) -> None:
    tamperings(package)[ENDLESS].change(package)
    write_sums_again(package)
    for words in (["verify"], ["serve", "--http-port", "0", "--grpc-port", "0"]):
        command = [sys.executable, "-m", "stages", *words, "--package", package, "--proof-seconds", "1"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines() == [f"error: {package}/model.onnx: not loaded and proved within 1 s; {REMEDY}"]


def test_labels_reach_the_terminal_escaped(package: Path, tmp_path: Path) -> None:
    edit("labels.json", labels=[f"\x1b[2J\n{number}" for number in range(10)])(package)
    write_sums_again(package)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    done = run("predict", package, str(tmp_path / "a.png"), "--top", "1")
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    ['{"engines": {"0": {"onnx": [], "onnx_sha256": "", "sidecar_sha256": ""}}}', '{"engines": {}, "engines": {}}'],
)
def test_a_register_of_other_types_is_damaged(content: str, package: Path) -> None:
    (package / "engines").mkdir()
    (package / "engines/model.plan").write_text("a plan")
    register_path().parent.mkdir(parents=True)
    register_path().write_text(content)
    refused(run("verify", package), "not the list of engines that build-engine writes (")


def test_a_register_that_is_a_pipe_or_a_loop_of_links_does_not_hang(package: Path) -> None:
    (package / "engines").mkdir()
    (package / "engines/model.plan").write_text("a plan")
    path = register_path()
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    refused(run("verify", package), f"{path}: is no plain file")
    path.unlink()
    path.symlink_to(path.name)
    refused(run("verify", package), f"{path}: cannot be read (Too many levels of symbolic links)")
