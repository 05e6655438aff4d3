"""A server that is abused answers on: bounds of connections, heads, bodies, calls and log, a token, a certificate."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.core.errors import UserError
from pipeline.serving.access import Access, load_certificate, read_token
from pipeline.serving.json_text import BRIEF, MAX_DEPTH, MAX_PARTS, read_document
from pipeline.serving.logs import INCIDENTS, PERIOD_SECONDS
from pipeline.serving.refusal import RefusalError
from pipeline.serving.sockets import enough_descriptors
from pipeline.serving.tensors import InputTensor, TensorSpec, read_batch
from pipeline.serving.wire import read_request
from stages.commands.serve import serve
from tests.helpers import ROOT, make_certificate, refused
from workbench.serving_helpers import (
    CLIENTS,
    COMMAND,
    NAME,
    SIZE,
    ServerProcess,
    make_package,
    random_images,
    right_logits,
    serving,
)

TOKEN = "correct-horse-battery-staple"  # noqa: S105
INFER = f"/v2/models/{NAME}/infer"
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
CONNECTIONS = 8


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("served") / "package")


@pytest.fixture(scope="module")
def server(package: Path) -> Iterator[ServerProcess]:
    options = (
        "--max-connections",
        str(CONNECTIONS),
        "--max-queue",
        "2",
        "--workers",
        "1",
        "--max-json-bytes",
        "200000",
    )
    with serving(package, *options, "--max-bytes", "5000000") as running:
        yield running


def connected(server: ServerProcess) -> socket.socket:
    host, _, port = server.http.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def answered(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def document(values: Any) -> bytes:
    entry = {"name": "image", "datatype": "FP32", "shape": [1, 3, SIZE, SIZE], "data": values}
    return json.dumps({"inputs": [entry]}).encode()


def test_silent_connections_give_way_to_whoever_speaks(server: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connected(server)) for _ in range(3 * CONNECTIONS)]
        for connection in silent[::2]:
            connection.sendall(b"GET /v2 HTTP/1.1\r\nX")
        for _ in range(CONNECTIONS):
            assert server.ask("/v2/health/ready") == (200, {"ready": True})
        assert server.ask(INFER, document(random_images(1).ravel().tolist()))[0] == 200
        assert answered(silent[0]) == b"", "closed"
    metrics = server.ask("/metrics")[1].decode()
    assert float(metrics.partition("\nfmkt_displaced_connections ")[2].split()[0]) >= 2 * CONNECTIONS


@pytest.mark.parametrize("piece", [b"X: " + b"a" * 5000, b"X: y\r\n" * 500])
def test_a_head_has_an_end(server: ServerProcess, piece: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: a\r\n" + piece)
        for _ in range(10):
            with contextlib.suppress(ConnectionError):
                connection.sendall(piece)
        assert answered(connection).startswith(b"HTTP/1.1 431 ")


def test_few_requests_may_be_sent_ahead_and_those_that_were_taken_are_answered(server: ServerProcess) -> None:
    with connected(server) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        answer = answered(connection)
    assert 1 <= answer.count(b"HTTP/1.1 200 ") < 100
    assert answer.count(b"HTTP/1.1 429 ") == 1
    assert answer.rindex(b"HTTP/1.1 429 ") > answer.rindex(b"HTTP/1.1 200 ")


def test_an_ordinary_client_reads_why_a_large_body_is_refused(server: ServerProcess) -> None:
    status, answer = server.ask(INFER, bytes(4_000_000))
    assert (status, "200000 bytes of JSON" in answer["error"]) == (413, True)
    status, answer = server.ask("/v2/models/nothing/infer", bytes(4_000_000))
    assert (status, "no such model" in answer["error"]) == (404, True)


@pytest.mark.slow
def test_silent_calls_hold_up_neither_health_nor_inference(server: ServerProcess) -> None:
    ending = threading.Event()

    def nothing() -> Iterator[bytes]:
        ending.wait(30)
        yield from ()

    path = "/inference.GRPCInferenceService/ModelInfer"
    with grpc.insecure_channel(server.grpc) as channel:
        calls = [channel.stream_unary(path).future(nothing()) for _ in range(20)]
        while not all(call.done() for call in calls[:-3]):  # what waits no longer was refused, the queue is full
            assert channel.unary_unary(HEALTH)(b"", timeout=20) == SERVING
        with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as other:
            assert other.unary_unary(HEALTH)(b"", timeout=20) == SERVING
        while server.ask(INFER, document(random_images(1).ravel().tolist()))[0] != 200:
            assert not all(call.done() for call in calls), "one of those that said nothing had to give way"
        ending.set()
        codes = {call.code() for call in calls}
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INVALID_ARGUMENT}
    with grpc.insecure_channel(server.grpc) as channel:
        stream = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert next(iter(stream)) == SERVING
        stream.cancel()
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            channel.unary_unary(HEALTH)(b"\n\x01x", timeout=20)


@pytest.mark.parametrize(
    "values", [list(range(30_000)), [0.5, 3] * 10_000, [[1.5, -2] * 20] * 500, [[], [1], [1.0] * 9]]
)
def test_long_json_is_read_as_short_json_is(values: list[Any]) -> None:
    content = {"inputs": [{"shape": [1, 2], "data": values, "name": 'a "[1,2]" \\'}], "pad": "[" * 40 + "x" * BRIEF}
    found = read_document(json.dumps(content).encode())

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, list):
            return [plain(each) for each in value]
        return value.values.tolist() if hasattr(value, "kinds") else value

    assert plain(found) == content


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "", "1,", "nul", "-", "01", "[", "]", "1]", '"', "{"])
def test_long_json_has_the_faults_of_short_json(word: str) -> None:
    for place in (0, 4000, 9999):
        values = ["0.25"] * 10_000
        values[place] = word
        with pytest.raises(ValueError, match=r"."):
            read_document(f'{{"inputs": [{{"data": [{",".join(values)}]}}]}}'.encode())
    with pytest.raises(ValueError, match="NaN is no JSON number"):
        read_document(f'{{"inputs": [{",".join(["0.25"] * 20_000)}], "a": NaN}}'.encode())


def test_json_has_bounds() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert read_document(deep)
    with pytest.raises(ValueError, match=f"more than {MAX_DEPTH} deep"):
        read_document(b"[" + deep + b"]")
    assert read_document(b'["' + b"[" * 500 + b'"]') == ["[" * 500]
    with pytest.raises(ValueError, match=f"more than {MAX_PARTS} lists"):
        read_document(b"[" + b"[]," * MAX_PARTS + b"1]")


def test_json_beyond_the_bound_is_refused_before_it_is_copied() -> None:
    body = bytearray(2**24)
    tracemalloc.start()
    with pytest.raises(RefusalError, match="more than 1000 bytes of JSON"):
        read_request(body, str(len(body) - 1), "m", "1", max_json_bytes=1000)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_long_json_becomes_the_same_batch() -> None:
    images = random_images(200)
    spec = TensorSpec("image", "FP32", (3, SIZE, SIZE))
    for values in (images.ravel().tolist(), images.tolist()):
        data = read_document(json.dumps({"data": values}).encode())["data"]
        batch = read_batch(InputTensor("image", "FP32", images.shape, data), spec, 500)
        np.testing.assert_array_equal(batch, images)


@pytest.mark.slow
def test_a_log_that_nobody_reads_stops_nothing(package: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    reading, writing = os.pipe()
    command = [sys.executable, "-c", COMMAND, "--package", str(package), "--http-port", str(port), "--grpc-port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, stderr=writing, stdout=subprocess.DEVNULL, env=environment)
    os.close(writing)
    try:
        ready = b""
        while b'"ready"' not in ready:
            ready += os.read(reading, 4096)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = document(random_images(1).ravel().tolist())
        for number in range(6000):
            connection.request("POST", INFER, body if number % 1000 == 0 else b"{}")
            assert connection.getresponse().read()
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        assert float(metrics.partition("\nfmkt_dropped_log_lines ")[2].split()[0]) > 0
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_who_has_no_token_gets_health_alone(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    body, images = document(random_images(1).ravel().tolist()), random_images(1)
    with serving(package, "--host", "0.0.0.0", "--token-file", str(file)) as server:  # noqa: S104
        places = {name: f"127.0.0.1:{getattr(server, name).rpartition(':')[2]}" for name in CLIENTS}
        server.http, server.grpc = places["http"], places["grpc"]
        assert not server.events("exposed")
        for path in ("/v2/health/live", "/v2/health/ready", "/"):
            assert server.ask(path)[0] == 200
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": TOKEN},
            {"Authorization": f"Basic {TOKEN}"},
        ):
            for path, content in (("/v2", None), ("/metrics", None), (INFER, body), ("/predict", b"x")):
                status, answer = server.ask(path, content, headers)
                assert (status, "Authorization: Bearer TOKEN" in answer["error"]) == (401, True)
        connection = http.client.HTTPConnection(server.http, timeout=20)
        connection.request("GET", "/v2")
        assert connection.getresponse().headers["www-authenticate"] == "Bearer"
        connection.close()
        right = {"authorization": f"Bearer {TOKEN}"}
        assert server.ask(INFER, body, right)[0] == 200
        tensor = CLIENTS["grpc"].InferInput("image", images.shape, "FP32")
        tensor.set_data_from_numpy(images)
        with CLIENTS["grpc"].InferenceServerClient(server.grpc) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            with pytest.raises(Exception, match="UNAUTHENTICATED"):
                client.infer(NAME, [tensor])
            with pytest.raises(Exception, match="UNAUTHENTICATED"):
                client.get_server_metadata(headers={"authorization": "Bearer wrong"})
            found = client.infer(NAME, [tensor], headers=right).as_numpy("logits")
        np.testing.assert_allclose(found, right_logits(images), atol=1e-3)
        with grpc.insecure_channel(server.grpc) as channel:
            assert channel.unary_unary(HEALTH)(b"", timeout=20) == SERVING
        for transport, status, path, why in [
            ("http", 401, "/predict", "no token"),
            ("http", 401, INFER, "not the token"),
            ("grpc", "UNAUTHENTICATED", "/inference.GRPCInferenceService/ModelInfer", "no token"),
            ("grpc", "UNAUTHENTICATED", "/inference.GRPCInferenceService/ServerMetadata", "not the token"),
        ]:
            entry = server.wait_for("refused", transport=transport, status=status, path=path, reason=why)
            assert entry["level"] == "warning"
            assert re.fullmatch(r"127\.0\.0\.1:\d+", entry["address"])
        assert not re.search(rf"{TOKEN}|Bearer|wrong", "".join(server.lines))


def test_strangers_do_not_flood_the_log(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with serving(package, "--token-file", str(file)) as server:
        begun = time.monotonic()
        with contextlib.closing(http.client.HTTPConnection(server.http, timeout=20)) as client:
            for _ in range(5 * INCIDENTS):
                client.request("GET", f"/v2?token={TOKEN}")
                assert client.getresponse().read()
            client.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            metrics = client.getresponse().read().decode()
        periods = 1 + (time.monotonic() - begun) // PERIOD_SECONDS + 1
        assert server.stop() == 0
        assert INCIDENTS <= len(server.events("refused", path="/v2")) <= INCIDENTS * periods
        assert float(metrics.partition("\nfmkt_incidents ")[2].split()[0]) == 5 * INCIDENTS
        assert TOKEN not in "".join(server.lines)


def test_what_is_refused_without_a_request_for_inference_is_logged_once(server: ServerProcess) -> None:
    server.ask("/v2/models/nothing")
    server.ask("/nothing?with=query")
    server.ask("/v2/models/nothing/infer", b"{}")
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")(b"\n\x01x", timeout=20)
    server.wait_for("refused", status="NOT_FOUND", path="/inference.GRPCInferenceService/ModelMetadata")
    server.wait_for("refused", status=404, path="/v2/models/nothing")
    server.wait_for("refused", status=404, path="/nothing", reason="GET: Not Found")
    assert server.wait_for("request", status=404)
    assert not server.events("refused", path="/v2/models/nothing/infer")


def test_tokens(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert read_token(None, {}) is None
    assert read_token(None, {"FMKT_TOKEN": TOKEN}) == TOKEN
    for content in ("", "short", "with spaces in the middle of it", "ü" * 20, "x" * 513):
        file.write_text(content)
        with pytest.raises(UserError, match=r"--token-file .*no token; expected are 16 to 512"):
            read_token(file, {})
    with pytest.raises(UserError, match="both given"):
        read_token(file, {"FMKT_TOKEN": TOKEN})
    with pytest.raises(UserError, match="cannot be read"):
        read_token(tmp_path / "nothing", {})
    assert Access(TOKEN).allows(f"bearer  {TOKEN} ".encode())
    assert not Access(TOKEN).allows(f"Bearer {TOKEN[:-1]}".encode())


def test_both_transports_are_encrypted(package: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    images = random_images(1)
    with serving(package, "--tls-certificate", str(certificate), "--tls-key", str(key)) as server:
        with contextlib.closing(socket.create_connection(("127.0.0.1", int(server.http.split(":")[1])))) as silent:
            context = ssl.create_default_context(cafile=str(certificate))
            connection = http.client.HTTPSConnection(server.http, timeout=20, context=context)
            for _ in range(2):
                connection.request("POST", INFER, document(images.ravel().tolist()))
                answer = connection.getresponse()
                values = json.loads(answer.read())["outputs"][0]["data"]
                np.testing.assert_allclose(values, right_logits(images)[0], atol=1e-3)
            connection.close()
            assert silent.fileno()
        with pytest.raises((OSError, http.client.HTTPException)):
            server.ask("/v2/health/live")
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(server.grpc, trusted) as channel:
            assert channel.unary_unary(HEALTH)(b"", timeout=20) == SERVING
        assert server.stop() == 0


def test_a_handshake_begins_with_what_came_before_the_server_looked(package: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    context = ssl.create_default_context(cafile=str(certificate))
    with serving(package, "--tls-certificate", str(certificate), "--tls-key", str(key)) as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        raw = socket.create_connection(("127.0.0.1", int(server.http.split(":")[1])))
        with context.wrap_socket(raw, server_hostname="127.0.0.1", do_handshake_on_connect=False) as client:
            client.settimeout(0)
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()  # its first message is sent
            os.kill(server.process.pid, signal.SIGCONT)
            client.settimeout(5)
            client.do_handshake()
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_an_encrypted_connection_that_ends_before_its_handshake_is_forgotten(package: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    context = ssl.create_default_context(cafile=str(certificate))
    options = ("--max-connections", str(CONNECTIONS), "--tls-certificate", str(certificate), "--tls-key", str(key))
    with serving(package, *options) as server, contextlib.ExitStack() as stack:
        os.kill(server.process.pid, signal.SIGSTOP)
        for _ in range(CONNECTIONS // 2):
            connected(server).close()
        os.kill(server.process.pid, signal.SIGCONT)
        client = stack.enter_context(contextlib.closing(http.client.HTTPSConnection(server.http, context=context)))
        client.request("GET", "/metrics")
        metrics = client.getresponse().read().decode()
        assert float(metrics.partition("\nfmkt_connections ")[2].split()[0]) == 1, "its own"
        silent = [stack.enter_context(connected(server)) for _ in range(3 * CONNECTIONS)]
        assert answered(silent[0]) == b"", "closed for another"
        assert server.stop() == 0
        assert not [line for line in server.lines if '"level": "error"' in line], "none was waited for at the end"


def test_the_end_does_not_wait_for_encrypted_clients_that_say_nothing(package: Path, tmp_path: Path) -> None:
    """A client that keeps a connection for its next request does not see that the server says goodbye."""
    certificate, key = make_certificate(tmp_path, "own")
    context = ssl.create_default_context(cafile=str(certificate))
    with serving(package, "--tls-certificate", str(certificate), "--tls-key", str(key)) as server:
        raw = socket.create_connection(("127.0.0.1", int(server.http.split(":")[1])))
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as client:
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            assert server.stop() == 0
        assert [line for line in server.lines if '"level": "error"' in line] == []


def test_certificates_that_are_none(package: Path, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "one")
    _, other = make_certificate(tmp_path, "two")
    _, locked = make_certificate(tmp_path, "three", "-passout", "pass:secret")
    (tmp_path / "empty").touch()
    assert load_certificate(None, None) is None
    for given, why in [
        ((certificate, None), "--tls-key: not given"),
        ((None, key), "--tls-certificate: not given"),
        ((certificate, other), "is not that of the certificate"),
        ((certificate, locked), "asks for a password"),
        ((certificate, tmp_path / "empty"), "--tls-key"),
        ((tmp_path / "empty", key), "no certificate in PEM form"),
        ((tmp_path / "nothing", key), "cannot be read"),
    ]:
        with pytest.raises(UserError, match=why) as caught:
            load_certificate(*given)
        assert "\n" not in str(caught.value)
    refused(CliRunner().invoke(serve, ["--package", str(package), "--tls-certificate", str(certificate)]), "--tls-key")


@pytest.mark.parametrize("option", ["--timeout", "--grace", "--drain-seconds", "--max-megapixels"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_times_are_numbers(option: str, value: str) -> None:
    done = CliRunner().invoke(serve, [option, value])
    assert (done.exit_code, f"Invalid value for '{option}'" in done.output) == (2, True)


@pytest.mark.slow
def test_connections_fit_the_limit_on_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.setrlimit", lambda _, pair: limits.append(pair))
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 256))
    assert enough_descriptors(512) == 96
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 10_000))
    assert enough_descriptors(512) == 512
    assert limits == [(256, 256), (1088, 10_000)]
