"""What a package says of asking a server, run as it stands: the card's ``curl``, and its Python client."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.package.clients import client_rows, write_clients
from pipeline.package.model_card import TEMPLATE
from pipeline.package.reader import Package
from stages.__main__ import main
from tests import detection_package
from tests.helpers import make_certificate
from workbench import serving_helpers
from workbench.serving_helpers import ServerProcess, serving

WAYS = [[*grpc, *file] for grpc, file in itertools.product(([], ["--grpc"]), ([], ["--file"]))]
ONE_OF_EACH_TASK = pytest.mark.parametrize("package", ["float32", "boxes"], indirect=True)
"""For refusals, which come before a tensor's type or what an answer holds makes a difference."""
TOKEN = "correct-horse-battery-staple"  # noqa: S105
SIDEWAYS = 6
"""The orientation of a camera that was held upright."""


@pytest.fixture(scope="module", params=["float32", "uint8", "boxes", "all boxes"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Return a package with its programs and an image that a camera noted to be turned."""
    folder = tmp_path_factory.mktemp("package") / "package"
    if request.param == "boxes":
        detection_package.make_package(folder)
    elif request.param == "all boxes":
        detection_package.make_package_without_nms(folder)
    else:
        serving_helpers.make_package(folder, dtype=request.param)
    found = Package.open(folder)
    write_clients(found)
    note = Image.Exif()
    note[0x0112] = SIDEWAYS
    pixels = np.random.default_rng(0).integers(150, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC)
    image.save(folder / "image.png", exif=note)
    return found


@pytest.fixture(scope="module")
def server(package: Package) -> Iterator[ServerProcess]:
    with serving(package.folder) as running:
        yield running


def predicted(package: Package) -> dict[str, Any]:
    """Return what ``fmkt predict`` says of the image."""
    words = ["predict", "--package", str(package.folder), "--json", str(package.folder / "image.png")]
    found: dict[str, Any] = json.loads(CliRunner().invoke(main, words).stdout)
    return found


def ask(
    package: Package, *words: str, image: str = "image.png", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the Python client in the package's folder, as its first lines say."""
    command = [sys.executable, "clients/triton_client.py", image, *words]
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=package.folder, env=outside | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_cards_command_answers_as_predict_does(package: Package, server: ServerProcess) -> None:
    (command,) = re.findall(r"```bash\n(curl .*?)\n```", TEMPLATE)
    assert "localhost:8000" in command
    command = command.replace("localhost:8000", server.http).replace("curl ", "curl --silent --show-error ")
    done = subprocess.run(["bash", "-c", command], cwd=package.folder, capture_output=True, text=True, check=True)
    found, expected = json.loads(done.stdout), predicted(package)
    for name in ("width", "height"):
        assert found.get(name) == expected.get(name)
    things, wanted = (answer.get("labels") or answer["detections"] for answer in (found, expected))
    assert len(things) == len(wanted) > 0
    for thing, other in zip(things, wanted, strict=True):
        assert thing.keys() == other.keys()
        for name, value in other.items():
            assert thing[name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-4))


def test_the_client_says_the_same_on_every_way(package: Package, server: ServerProcess) -> None:
    expected = predicted(package)
    for way in WAYS:
        done = ask(package, *way, "--url", server.grpc if "--grpc" in way else server.http)
        assert (done.returncode, done.stderr) == (0, ""), way
        lines = done.stdout.splitlines()
        if "labels" in expected:
            assert lines == [expected["labels"][0]["label"]]
            continue
        listed = lines if len(lines) == len(expected["detections"]) else lines[:1]  # of all boxes the surest overlap
        for line, thing in zip(listed, expected["detections"], strict=False):
            name, number, *values = line.rsplit(" ", 6)
            assert (name, int(number)) == (thing["class"], thing["category_id"])
            np.testing.assert_allclose(list(map(float, values)), [thing["score"], *thing["box"]], atol=0.006)


@ONE_OF_EACH_TASK
def test_the_client_reaches_a_server_with_a_token_and_a_certificate(package: Package, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    options = ("--token-file", str(token), "--tls-certificate", str(certificate), "--tls-key", str(key))
    with serving(package.folder, *options) as server:
        for way in WAYS:
            words = [*way, "--url", server.grpc if "--grpc" in way else server.http, "--tls"]
            done = ask(package, *words, "--ca", str(certificate), FMKT_TOKEN=TOKEN)
            assert (done.returncode, done.stderr) == (0, ""), way
            assert done.stdout
            for refused, why in (
                (ask(package, *words, "--ca", str(certificate)), "asks for a token"),
                (ask(package, *words, FMKT_TOKEN=TOKEN), ""),  # signed by none that this system trusts
                (ask(package, *words, "--ca", "missing.pem", FMKT_TOKEN=TOKEN), "missing.pem"),
            ):
                assert refused.returncode == 1
                assert refused.stderr.splitlines()[-1].startswith("error: ")
                assert why in refused.stderr
                assert "Traceback" not in refused.stderr


@ONE_OF_EACH_TASK
def test_a_signer_of_no_certificate_is_refused(package: Package) -> None:
    done = ask(package, "--ca", "host.pem")
    assert done.returncode == 2
    assert "--ca: needs --tls" in done.stderr


@ONE_OF_EACH_TASK
def test_a_server_that_does_not_answer_is_said_in_a_line(package: Package, server: ServerProcess) -> None:
    for way in ([], ["--grpc"]):
        address = server.grpc if way else server.http
        unknown = ask(package, *way, "--url", address, "--model", "other")
        assert unknown.returncode == 1
        assert re.fullmatch(r"error: .*other.*\n", unknown.stderr)
        nobody = ask(package, *way, "--url", "127.0.0.1:9")
        assert nobody.returncode == 1
        assert nobody.stderr.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in nobody.stderr


@ONE_OF_EACH_TASK
def test_an_address_with_a_scheme_is_refused(package: Package) -> None:
    done = ask(package, "--url", "http://localhost:8000")
    assert done.returncode == 2
    assert "--url: got http://localhost:8000; give host and port alone, such as localhost:8000" in done.stderr


@ONE_OF_EACH_TASK
def test_what_is_no_picture_is_said_in_a_line(package: Package) -> None:
    (package.folder / "text.png").write_text("no picture")
    (package.folder / "cut.png").write_bytes((package.folder / "image.png").read_bytes()[:200])
    for name in ("text.png", "cut.png", "missing.png"):
        done = ask(package, image=name)
        assert done.returncode == 1
        assert re.fullmatch(rf"error: {name}: cannot be read as an image \(.*\)\n", done.stderr)


@ONE_OF_EACH_TASK
def test_a_missing_library_is_said_in_a_line(package: Package, tmp_path: Path) -> None:
    """With what ``requirements-serve.txt`` brings, tritonclient speaks gRPC alone: its HTTP needs gevent."""
    (tmp_path / "gevent.py").write_text("raise ModuleNotFoundError('not here')")
    done = ask(package, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert re.fullmatch(r'error: .*http.*; pip install numpy pillow "tritonclient\[grpc,http\]"\n', done.stderr)


def test_the_card_names_each_program(package: Package) -> None:
    folder = package.folder / "clients"
    named = re.findall(r"\]\(clients/(.+?)\)", client_rows(package.task))
    programs = {path.name for path in folder.iterdir() if path.suffix in {".py", ".cpp"}}
    assert set(named) == programs
    for path in folder.glob("*pp"):
        assert max(map(len, path.read_text().splitlines())) <= 120, path
