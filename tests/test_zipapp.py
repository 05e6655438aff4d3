"""The commands on a package as one file, in environments of their own: nothing of the checkout is there."""

import ast
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from pipeline.package.requirements import EDGE_FILE, ENGINE_FILE, REQUIREMENTS, SERVE_FILE
from pipeline.package.signing import sign_package
from pipeline.package.zipapp import ARCHIVE, write_zipapp
from pipeline.preflight.code import PROJECT
from stages.package import archived_files
from tests.lone_package import ELSEWHERE, make_environment, make_lone_package
from workbench.serving_helpers import LABELS

pytestmark = pytest.mark.slow

MOST_BYTES = 400_000
NEWER_PYTHON = {
    "asyncio": {"Runner", "TaskGroup", "timeout", "timeout_at", "Barrier"},
    "contextlib": {"chdir"},
    "datetime": {"UTC"},
    "enum": {"StrEnum"},
    "hashlib": {"file_digest"},
    "typing": {"Self", "LiteralString", "Never", "NotRequired", "Required", "Unpack", "assert_never", "override"},
}
"""Names that Python 3.11 and later have."""
NOT_ON_DEVICES = {"torch", "torchvision", "pydantic", "safetensors", "dvc", "ruamel", "sklearn", "matplotlib"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package with its commands, far from the checkout."""
    return make_lone_package(tmp_path_factory.mktemp("device") / "package")


def pythons() -> list[str]:
    """Return this Python, and the oldest that is allowed where it can be had."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    oldest = [*sorted(pyenv.glob("versions/3.10.*/bin/python")), shutil.which("python3.10")]
    return [sys.executable, *[str(one) for one in oldest if one is not None and _runs(str(one))][:1]]


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0


class Device(NamedTuple):
    """A machine with a package and an environment of its own."""

    python: Path
    package: Path

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        environment = {**ELSEWHERE, "HOME": str(self.package.parent)}
        command = [str(self.python), str(self.package / ARCHIVE), *words]
        return subprocess.run(
            command, cwd=self.package.parent, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module", params=range(2), ids=["project", "oldest"])
def device(request: pytest.FixtureRequest, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    known = pythons()
    if request.param >= len(known):
        pytest.skip("no Python 3.10 on this host; its syntax and names are checked all the same")
    place = tmp_path_factory.mktemp("venv")
    needed = tmp_path_factory.mktemp("needed") / EDGE_FILE
    text = REQUIREMENTS[EDGE_FILE]
    needed.write_text(text if request.param == 0 else text.replace(">=", "=="))  # the oldest take the oldest
    yield Device(make_environment(place, known[request.param], needed), package)
    shutil.rmtree(place)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_signature_is_asked_for_there_too(device: Device, tmp_path: Path) -> None:
    signed = shutil.copytree(device.package, tmp_path / "signed")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "signers").write_text(f"me {(tmp_path / 'key.pub').read_text()}")
    words = ("verify", "--package", str(signed), "--allowed-signers", str(tmp_path / "signers"))
    assert device.run(*words).returncode == 2
    sign_package(signed, tmp_path / "key")
    found = device.run(*words)
    assert found.returncode == 0, found.stderr
    assert "signed by me, key ED25519 SHA256:" in found.stdout


def save_photo(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    return path


def test_all_that_a_package_is_for_works_beside_it(device: Device, tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "photo.jpg")
    verified = device.run("verify")
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "intact" in verified.stdout
    seen = device.run("predict", str(photo), "--json")
    assert seen.returncode == 0, seen.stderr
    assert {label["label"] for label in json.loads(seen.stdout)["labels"]} <= set(LABELS)
    assert device.run("predict", str(tmp_path / "none.jpg")).returncode == 2
    timed = device.run("benchmark", "--iterations", "10", "--batch", "1")
    assert "fastest file on this host" in timed.stdout, timed.stderr
    about = device.run("about", "--json")
    assert json.loads(about.stdout)["name"] == json.loads((device.package / "manifest.json").read_text())["name"]
    made = device.run("triton-repository", "--out", str(tmp_path / "models"))
    assert made.returncode == 2, "this package has no configurations"


@pytest.mark.parametrize(("words", "named"), [(["serve"], SERVE_FILE), (["build-engine"], "requirements-build-engine")])
def test_what_a_command_needs_more_is_named(device: Device, words: list[str], named: str) -> None:
    done = device.run(*words)
    assert done.returncode == 2
    assert re.fullmatch(rf"error: the Python package \S+ is not installed; pip install -r {named}.*\n", done.stderr)


def test_a_library_that_is_missing_is_named(package: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    done = Device(tmp_path / "venv/bin/python", package).run("verify")
    assert done.returncode == 2
    assert re.fullmatch(rf"error: the Python package \S+ is not installed; pip install -r {EDGE_FILE}\n", done.stderr)


def test_the_environment_holds_nothing_else(device: Device) -> None:
    command = [str(device.python), "-m", "pip", "list", "--format", "json"]
    listed = subprocess.run(command, env=ELSEWHERE, capture_output=True, check=True)
    names = {entry["name"].lower() for entry in json.loads(listed.stdout)}
    assert {"numpy", "onnxruntime", "pillow"} <= names
    assert not names & {*NOT_ON_DEVICES, "click", "onnx", "fmkt"}


def test_it_serves_where_nothing_else_is(package: Path, tmp_path: Path) -> None:
    device = Device(make_environment(tmp_path / "venv", pythons()[-1], package / SERVE_FILE), package)
    photo = save_photo(tmp_path / "photo.jpg")
    command = [str(device.python), str(package / ARCHIVE), "serve", "--http-port", "0", "--grpc-port", "0"]
    environment = {**ELSEWHERE, "HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        events = (json.loads(line) for line in server.stderr)
        address = next(event["http"] for event in events if event["event"] == "ready")
        with urllib.request.urlopen(f"http://{address}/predict", photo.read_bytes()) as answered:
            found = json.load(answered)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    seen = json.loads(device.run("predict", str(photo), "--json").stdout)
    assert found == {name: value for name, value in seen.items() if name != "image"}


@pytest.fixture
def _far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be west of Greenwich, where 1980 began later than there, as a user whose files nobody else may read."""
    before = os.umask(0o077)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "FAR+12")
        time.tzset()
        yield
    time.tzset()
    os.umask(before)


@pytest.mark.usefixtures("_far_away")
def test_the_same_code_gives_the_same_small_file_with_its_licence(package: Path, tmp_path: Path) -> None:
    write_zipapp(tmp_path / ARCHIVE, PROJECT, archived_files())
    data = (tmp_path / ARCHIVE).read_bytes()
    assert data == (package / ARCHIVE).read_bytes()
    assert len(data) <= MOST_BYTES
    with zipfile.ZipFile(tmp_path / ARCHIVE) as archive:
        names = archive.namelist()
    assert any(re.search(r"^click-.*licen[cs]e", name, re.IGNORECASE) for name in names)
    assert not [name for name in names if "/training" in name or name.startswith(("pipeline/params", "models/losses"))]


def test_the_code_keeps_to_the_oldest_python_and_to_what_is_installed() -> None:
    for name in archived_files():
        if not name.endswith(".py"):
            continue
        tree = ast.parse(Path(name).read_text(encoding="utf-8"), feature_version=(3, 10))
        at_once = {module for module, _ in _imported(tree, inside=False)}
        assert not {module.partition(".")[0] for module in at_once} & NOT_ON_DEVICES, name
        for module, names in _imported(tree, inside=True):
            assert not names & NEWER_PYTHON.get(module, set()), name
        used = {(node.value.id, node.attr) for node in ast.walk(tree) if _is_attribute_of_name(node)}
        assert not {(module, attr) for module, attr in used if attr in NEWER_PYTHON.get(module, set())}, name


def _is_attribute_of_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)


def _imported(node: ast.AST, *, inside: bool) -> Iterator[tuple[str, set[str]]]:
    """Yield each module that is imported, with the names; ``inside`` functions too, but not for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, set[str]()) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield str(child.module), {alias.name for alias in child.names}
        elif inside or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imported(child, inside=inside)


def oldest(line: str) -> tuple[str, str]:
    """Return the name of what the requirement ``line`` asks for, and the oldest version that it takes."""
    needed = Requirement(line)
    (version,) = (one.version for one in needed.specifier if one.operator == ">=")
    return needed.name, version


def test_a_package_asks_for_the_versions_that_the_project_asks_for() -> None:
    """But for what a device needs: its oldest versions are older, and are tried above."""
    with Path("pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"]
    known = {oldest(line) for line in itertools.chain(project["dependencies"], *extras.values())}
    for name in (SERVE_FILE, ENGINE_FILE):
        asked = {oldest(line) for line in REQUIREMENTS[name].splitlines() if line[0] not in "#-"}
        assert asked <= known, name
        assert name != SERVE_FILE or {oldest(line) for line in extras["serve"]} <= asked


def test_a_python_that_is_too_old_is_told_so(package: Path) -> None:
    with zipfile.ZipFile(package / ARCHIVE) as archive:
        code = archive.read("__main__.py").decode()
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.version_info = (3, 9, 0)\n{code}"],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: this is Python 3.9, 3.10 or later is needed\n")
