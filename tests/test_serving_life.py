"""Start, load, time limits and end of a server: what it has accepted it answers, and it says why it does not start."""

import contextlib
import http.client
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result
from tritonclient.utils import InferenceServerException

from pipeline.core.errors import GateError, UserError
from pipeline.package.reader import Package
from pipeline.serving.models import load_models
from stages.commands.serve import serve
from tests.helpers import refused
from workbench.serving_helpers import (
    CLIENTS,
    COMMAND,
    LABELS,
    NAME,
    SIZE,
    ServerProcess,
    add_samples,
    make_package,
    random_images,
    right_logits,
    run_python,
    serving,
)

SLOW = 800
"""Matrix products that make a request take tenths of a second."""
SERVING, NOT_SERVING = 1, 2
"""Statuses of gRPC's own protocol of health."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("slow") / "package", delay=SLOW)


@pytest.fixture(scope="module")
def busy(slow: Path) -> Iterator[ServerProcess]:
    with serving(slow, "--workers", "1", "--max-queue", "1") as running:
        yield running


def ask(server: ServerProcess, transport: str, seed: int, **options: Any) -> str:
    """Return ``right``, ``wrong`` or the status that the server refuses with."""
    library, images = CLIENTS[transport], random_images(1, seed)
    with library.InferenceServerClient(getattr(server, transport)) as client:
        tensor = library.InferInput("image", images.shape, "FP32")
        tensor.set_data_from_numpy(images)
        try:
            found = client.infer(NAME, [tensor], **options).as_numpy("logits")
        except InferenceServerException as error:
            return str(error.status())
    return "right" if np.allclose(found, right_logits(images), atol=1e-3) else "wrong"


class Asking:
    """Requests in threads of their own, half of them by each transport."""

    def __init__(self, server: ServerProcess, count: int) -> None:
        self.counts: Counter[str] = Counter()
        self.threads = [threading.Thread(target=self._work, args=(server, i)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def _work(self, server: ServerProcess, number: int) -> None:
        self.counts[ask(server, ("http", "grpc")[number % 2], number)] += 1

    def results(self) -> dict[str, int]:
        for thread in self.threads:
            thread.join(30)
        return dict(self.counts)


def metric(server: ServerProcess, name: str) -> float:
    lines = server.ask("/metrics")[1].decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0)


def arrived(server: ServerProcess) -> float:
    """Return how many requests the server has accepted since it started."""
    answered = f'nv_inference_request_success{{model="{NAME}",version="1"}}'
    return metric(server, answered) + metric(server, "fmkt_accepted_requests")


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_full_queue_refuses_and_loses_nothing(busy: ServerProcess) -> None:
    found = Asking(busy, 8).results()
    turned_away = found.pop("503", 0) + found.pop("StatusCode.UNAVAILABLE", 0)
    assert turned_away >= 1
    assert found == {"right": 8 - turned_away}
    assert found["right"] >= 2
    entry = busy.wait_for("request", outcome="overloaded")
    assert entry["reason"] == "too many requests are waiting; try again later"
    assert metric(busy, "fmkt_accepted_requests") == 0


def test_health_answers_during_an_inference(busy: ServerProcess) -> None:
    asking = Asking(busy, 1)
    wait_until(lambda: metric(busy, "fmkt_accepted_requests") == 1)
    assert busy.ask("/v2/health/live") == (200, {"live": True})
    assert asking.counts == {}
    assert asking.results() == {"right": 1}


@pytest.mark.parametrize(("transport", "status"), [("http", "504"), ("grpc", "StatusCode.DEADLINE_EXCEEDED")])
def test_an_answer_too_late_is_not_the_clients_fault(busy: ServerProcess, transport: str, status: str) -> None:
    assert ask(busy, transport, 0, timeout=20_000) == status
    busy.wait_for("request", outcome="deadline", transport=transport, reason="the answer was not ready in time")
    wait_until(lambda: ask(busy, transport, 1) == "right")
    assert not busy.events("request", outcome="invalid")


def test_a_client_that_goes_away_frees_its_place(busy: ServerProcess) -> None:
    assert "DEADLINE_EXCEEDED" in ask(busy, "grpc", 0, client_timeout=0.05)
    wait_until(lambda: metric(busy, "fmkt_accepted_requests") == 0)
    assert ask(busy, "grpc", 1) == "right"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_before_the_end(slow: Path, number: signal.Signals) -> None:
    with serving(slow, "--workers", "1", "--max-queue", "8") as server:
        asking = Asking(server, 4)
        wait_until(lambda: arrived(server) == 4)
        server.process.send_signal(number)
        assert server.wait_for("stopping")["accepted"] >= 2
        wait_until(lambda: not listens(server.http) and not listens(server.grpc))
        assert asking.results() == {"right": 4}
        assert server.process.wait(20) == 0
        server.reader.join(5)
    assert server.events("stopped")
    assert not server.events("abandoned")
    assert len(server.events("request", outcome="success")) == 4


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def test_while_it_drains_it_says_that_it_is_not_ready_and_takes_what_comes(slow: Path) -> None:
    with (
        serving(slow, "--workers", "1", "--drain-seconds", "600") as server,
        contextlib.closing(http.client.HTTPConnection(server.http, timeout=20)) as kept,
    ):
        assert health(server) == SERVING
        kept.request("GET", "/v2/health/ready")
        assert kept.getresponse().read() == b'{"ready": true}'
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("stopping", drain=600.0)
        assert server.ask("/v2/health/ready") == (503, {"ready": False})
        assert server.ask("/v2/health/live") == (200, {"live": True})
        assert health(server) == health(server, NAME) == NOT_SERVING
        assert [ask(server, transport, 9) for transport in CLIENTS] == ["right", "right"]
        asking = Asking(server, 2)
        wait_until(lambda: metric(server, "fmkt_accepted_requests") == 2)
        server.process.send_signal(signal.SIGTERM)  # the second one cuts it short
        wait_until(lambda: not listens(server.http))
        kept.request("POST", f"/v2/models/{NAME}/infer", b"{}")
        assert kept.getresponse().status == 503
        assert asking.results() == {"right": 2}
        assert server.process.wait(20) == 0


def health(server: ServerProcess, name: str = "") -> int:
    """Return the status in the answer of gRPC's own protocol of health."""
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        return int(check(b"\x0a" + bytes([len(name)]) + name.encode() if name else b"", timeout=20)[1])


def test_the_end_waits_no_longer_than_the_grace(slow: Path) -> None:
    with serving(slow, "--workers", "1", "--grace", "0.05") as server:
        asking = Asking(server, 3)
        wait_until(lambda: arrived(server) == 3)
        assert server.stop() == 0
        assert server.events("abandoned")[0]["accepted"] >= 1
        for thread in asking.threads:
            thread.join(10)


def test_uint8_images_text_logs_and_a_body_that_does_not_come(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package", dtype="uint8")
    with free_port() as http_port, free_port() as grpc_port:
        places = f"127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}"
    options = ("--http-port", str(http_port), "--grpc-port", str(grpc_port), "--timeout", "0.5", "--log-format", "text")
    with (
        serving(package, *options, places=places) as server,
        socket.create_connection(("127.0.0.1", http_port)) as connection,
    ):
        connection.sendall(f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n".encode())
        images = random_images(2, dtype="uint8")
        tensor = {"name": "image", "datatype": "UINT8", "shape": [2, 3, SIZE, SIZE], "data": images.ravel().tolist()}
        outputs = [{"name": "logits", "parameters": {"classification": 1}}]
        status, answer = server.ask(
            f"/v2/models/{NAME}/infer", json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        )
        assert status == 200
        best = right_logits(images).argmax(axis=1)
        assert [text.split(":")[1:] for text in answer["outputs"][0]["data"]] == [[str(i), LABELS[i]] for i in best]
        assert server.ask(f"/v2/models/{NAME}")[1]["inputs"][0]["datatype"] == "UINT8"
        connection.settimeout(10)
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert server.stop() == 0
    (line,) = (line for line in server.lines if " request " in line and "status=408" in line)
    assert line.split()[1] == "info"
    assert 'outcome="slow_body" reason="the body did not arrive in time"' in line


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def start(package: Path, *options: str) -> Result:
    command = ["--package", str(package), "--http-port", "0", "--grpc-port", "0", *options]
    return CliRunner().invoke(serve, command)


def test_an_address_that_cannot_be_had(slow: Path) -> None:
    with free_port() as port:
        reason = f"cannot listen at 127.0.0.1:{port} (Address already in use)"
        refused(start(slow, "--http-port", str(port)), "--http-port", reason)
        refused(start(slow, "--grpc-port", str(port)), "--grpc-port", reason)
    refused(start(slow, "--host", "no such host"), "--host: got 'no such host', which is no address")
    refused(
        start(slow, "--host", "192.0.2.1", "--without-token"),
        "cannot listen at 192.0.2.1:0 (Cannot assign",
    )


def test_a_package_that_is_none(tmp_path: Path) -> None:
    refused(start(tmp_path / "nothing"), str(tmp_path / "nothing"), "no such folder")
    refused(start(tmp_path), "manifest.json: no such file")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("model.onnx", lambda data: data + b"\0"),
        ("model.onnx", lambda data: data[:99]),
        ("labels.json", lambda data: data.replace(b"class 3", b"class 4")),
        ("manifest.json", lambda data: data.replace(b'"num_steps": 4', b'"num_steps": 5')),
    ],
)
def test_a_package_that_was_changed(tmp_path: Path, file: str, change: Callable[[bytes], bytes]) -> None:
    folder = make_package(tmp_path / "package")
    (folder / file).write_bytes(change((folder / file).read_bytes()))
    with pytest.raises(UserError, match=rf"{file}: differs from its SHA-256"):
        load_models(Package.open(folder), ["fp32"], provider="cpu", num_threads=1)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_packaged_images_are_answered_as_packaged(tmp_path: Path, dtype: str) -> None:
    folder = make_package(tmp_path / "package", dtype=dtype)
    add_samples(folder)
    (model,) = load_models(Package.open(folder), ["fp32"], provider="cpu", num_threads=1)
    images = random_images(2, dtype=dtype)
    np.testing.assert_allclose(model.run(images).outputs["logits"], right_logits(images), atol=1e-4)
    add_samples(folder, error=0.1)
    with pytest.raises(
        GateError, match=r"model.onnx, packaged samples, 6 images: outputs differ by 0.1, .*allowed are"
    ):
        load_models(Package.open(folder), ["fp32"], provider="cpu", num_threads=1)
    with (folder / "samples.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"samples.safetensors: differs from its SHA-256"):
        load_models(Package.open(folder), ["fp32"], provider="cpu", num_threads=1)
    (folder / "samples.safetensors").unlink()
    with pytest.raises(UserError, match=r"samples.safetensors: missing"):
        load_models(Package.open(folder), ["fp32"], provider="cpu", num_threads=1)


def test_models_that_cannot_be(slow: Path) -> None:
    package = Package.open(slow)
    with pytest.raises(UserError, match=r"has no file of precision 'fp8'; it has fp32"):
        load_models(package, ["fp8"], provider="cpu", num_threads=1)
    with pytest.raises(UserError, match=r"--precision: got fp32, fp32; name each one once"):
        load_models(package, ["fp32", "fp32"], provider="cpu", num_threads=1)
    (logits,) = package.signature.outputs
    fewer = package.signature._replace(outputs=(logits._replace(shape=(9,)),))
    with pytest.raises(UserError, match=r"gives logits float32 \[1, 10\], expected finite float32 \[1, 9\]"):
        load_models(replace(package, signature=fewer), ["fp32"], provider="cpu", num_threads=1)
    another = package.signature._replace(outputs=(logits, logits._replace(name="boxes")))
    with pytest.raises(UserError, match=r"takes image \(float32\) and returns logits, expected .* boxes, logits"):
        load_models(replace(package, signature=another), ["fp32"], provider="cpu", num_threads=1)


def test_a_changed_package_ends_the_command(tmp_path: Path) -> None:
    folder = make_package(tmp_path / "package")
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"more")
    code, error = run_python(COMMAND, "--package", str(folder), "--http-port", "0", "--grpc-port", "0")
    assert code == 2
    assert error.startswith(f"error: {folder / 'model.onnx'}: differs from its SHA-256")
    assert len(error.splitlines()) == 1


def test_an_open_address_is_warned_of(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    refused(start(package, "--host", "0.0.0.0"), "--host: got 0.0.0.0", "--token-file", "--without-token")  # noqa: S104
    with serving(package, "--host", "0.0.0.0", "--without-token") as server:  # noqa: S104
        assert server.events("exposed")[0]["level"] == "warning"
        assert "nobody is asked for a token" in server.events("exposed")[0]["reason"]
        assert "no TLS" in server.events("unencrypted")[0]["reason"]
        assert server.stop(signal.SIGINT) == 0
