"""Unchanged clients of Triton get right answers over HTTP and gRPC, and the server counts what it does."""

import gzip
import http.client
import json
import random
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from google.protobuf import json_format
from tritonclient.utils import InferenceServerException

from attacks.malformed import Target, grpc_case, http_case, send_garbage, send_grpc, send_http
from workbench.serving_helpers import (
    CLASSES,
    CLIENTS,
    LABELS,
    NAME,
    SIZE,
    ServerProcess,
    make_package,
    random_images,
    right_logits,
    run_python,
    serving,
)

SHAPE = [3, SIZE, SIZE]
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    package = make_package(tmp_path_factory.mktemp("served") / "package", more=("fp16",))
    with serving(
        package, "--precision", "fp32", "--precision", "fp16", "--workers", "2", "--max-bytes", "250000"
    ) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator["Client"]:
    with CLIENTS[request.param].InferenceServerClient(getattr(server, request.param)) as connected:
        yield Client(request.param, connected)


class Client:
    """A client of either transport whose answers read alike."""

    def __init__(self, transport: str, client: Any) -> None:
        self.transport, self.client, self.library = transport, client, CLIENTS[transport]

    def infer(self, images: np.ndarray[Any, Any], *, outputs: Any = None, model: str = NAME, **options: Any) -> Any:
        kind = {"float32": "FP32", "uint8": "UINT8"}[images.dtype.name]
        tensor = self.library.InferInput("image", images.shape, kind)
        tensor.set_data_from_numpy(images)
        return self.client.infer(model, [tensor], outputs=outputs, **options)

    def json(self, message: Any) -> Any:
        if isinstance(message, (dict, list)):
            return message
        return json_format.MessageToDict(message, preserving_proto_field_name=True)


def close(found: Any, right: np.ndarray[Any, Any]) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_answers_are_right(client: Client, batch: int) -> None:
    images = random_images(batch, seed=batch)
    close(client.infer(images).as_numpy("logits"), right_logits(images))


def test_request_id_model_and_version_come_back(client: Client) -> None:
    answer = client.infer(random_images(1), request_id="a-7", model_version="1").get_response()
    found = client.json(answer)
    assert (found["id"], found["model_name"], found["model_version"]) == ("a-7", NAME, "1")
    assert found["outputs"][0]["name"] == "logits"


def test_each_precision_is_a_model(client: Client) -> None:
    images = random_images(3)
    close(client.infer(images, model=f"{NAME}-fp16").as_numpy("logits"), right_logits(images))


def test_classification_gives_the_largest_with_their_labels(client: Client) -> None:
    images = random_images(2)
    outputs = [client.library.InferRequestedOutput("logits", class_count=3)]
    found = client.infer(images, outputs=outputs).as_numpy("logits")
    right = right_logits(images)
    assert found.shape == (2, 3)
    for row, logits in zip(found, right, strict=True):
        best = np.argsort(-logits)[:3]
        values, numbers, labels = zip(*(text.decode().split(":") for text in row), strict=True)
        assert [int(number) for number in numbers] == best.tolist()
        assert list(labels) == [LABELS[i] for i in best]
        np.testing.assert_allclose([float(value) for value in values], logits[best], atol=1e-4)


def test_health(client: Client) -> None:
    assert client.client.is_server_live()
    assert client.client.is_server_ready()
    assert client.client.is_model_ready(NAME)
    assert client.client.is_model_ready(f"{NAME}-fp16", "1")
    assert not client.client.is_model_ready("nothing")
    assert not client.client.is_model_ready(NAME, "2")


def test_descriptions(client: Client) -> None:
    assert client.json(client.client.get_server_metadata())["name"] == "fmkt"
    found = client.json(client.client.get_model_metadata(NAME))
    shapes = [list(map(int, part["shape"])) for part in (*found["inputs"], *found["outputs"])]
    assert shapes == [[-1, *SHAPE], [-1, CLASSES]]
    assert (found["name"], found["versions"], found["platform"]) == (NAME, ["1"], "onnxruntime_onnx")
    config = client.json(client.client.get_model_config(NAME))
    config = config.get("config", config)
    assert (config["max_batch_size"], config["backend"]) == (32, "onnxruntime")
    assert [int(size) for size in config["input"][0]["dims"]] == SHAPE
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    index = client.json(client.client.get_model_repository_index())
    index = index["models"] if isinstance(index, dict) else index
    assert [(entry["name"], entry["state"]) for entry in index] == [(NAME, "READY"), (f"{NAME}-fp16", "READY")]


def statistics(client: Client) -> dict[str, int]:
    (found,) = client.json(client.client.get_inference_statistics(NAME))["model_stats"]
    totals = {name: int(total.get("count", 0)) for name, total in found["inference_stats"].items()}
    sizes = {f"batch {entry['batch_size']}": int(entry["compute_infer"]["count"]) for entry in found["batch_stats"]}
    return {key: int(found[key]) for key in ("inference_count", "execution_count")} | totals | sizes


def test_statistics_count_what_was_asked(client: Client) -> None:
    client.infer(random_images(5))
    before = statistics(client)
    for batch in (5, 5, 5):
        client.infer(random_images(batch))
    with pytest.raises(InferenceServerException):
        client.infer(random_images(33))
    after = statistics(client)
    change = {key: value - before[key] for key, value in after.items()}
    assert change == dict.fromkeys(change, 0) | {
        "inference_count": 15,
        "execution_count": 3,
        "success": 3,
        "fail": 1,
        "queue": 3,
        "compute_input": 3,
        "compute_infer": 3,
        "compute_output": 3,
        "batch 5": 3,
    }


def test_what_is_not_offered_is_refused(client: Client) -> None:
    for refused in (
        lambda: client.client.load_model(NAME),
        lambda: client.client.unload_model(NAME),
        lambda: client.client.register_system_shared_memory("a", "/a", 8),
        client.client.get_cuda_shared_memory_status,
        client.client.get_log_settings,
        lambda: client.client.get_trace_settings(NAME),
    ):
        with pytest.raises(
            InferenceServerException, match=r"models are loaded when|is not offered|are those of"
        ) as error:
            refused()
        assert error.value.status() in {"400", "StatusCode.UNIMPLEMENTED"}


def test_stream_is_refused(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as error:
            next(stream(iter([b""])))
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "use ModelInfer" in error.value.details()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies(server: ServerProcess, encoding: str) -> None:
    images = random_images(2)
    tensor = tritonclient.http.InferInput("image", images.shape, "FP32")
    tensor.set_data_from_numpy(images)
    with tritonclient.http.InferenceServerClient(server.http) as client:
        answer = client.infer(NAME, [tensor], request_compression_algorithm=encoding)
    close(answer.as_numpy("logits"), right_logits(images))


def test_grpc_compressed_and_with_typed_contents(server: ServerProcess) -> None:
    images = random_images(2)
    message = tritonclient.grpc.service_pb2.ModelInferRequest(model_name=NAME)
    message.inputs.add(name="image", datatype="FP32", shape=images.shape).contents.fp32_contents.extend(images.ravel())
    with grpc.insecure_channel(server.grpc, compression=grpc.Compression.Gzip) as channel:
        answer = tritonclient.grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message)
    close(np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(2, -1), right_logits(images))


def request_json(images: np.ndarray[Any, Any], data: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": data}]}


@pytest.mark.parametrize("nested", [True, False])
def test_plain_json(server: ServerProcess, nested: bool) -> None:
    images = random_images(2)
    body = request_json(images, images.tolist() if nested else images.ravel().tolist()) | {"id": "é\n"}
    status, answer = server.ask(f"/v2/models/{NAME}/versions/1/infer", json.dumps(body).encode())
    assert (status, answer["id"]) == (200, "é\n")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [2, CLASSES])
    close(np.array(output["data"], np.float32).reshape(2, -1), right_logits(images))


@pytest.mark.parametrize("by_default", [True, False])
@pytest.mark.parametrize("of_output", [True, False, None])
def test_binary_data_of_answers(server: ServerProcess, by_default: bool, of_output: bool | None) -> None:
    images = random_images(1)
    body = request_json(images, images.ravel().tolist()) | {"parameters": {"binary_data_output": by_default}}
    if of_output is not None:
        body["outputs"] = [{"name": "logits", "parameters": {"binary_data": of_output}}]
    host, _, port = server.http.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("POST", f"/v2/models/{NAME}/infer", json.dumps(body))
    answer = connection.getresponse()
    content, length = answer.read(), answer.headers["Inference-Header-Content-Length"]
    connection.close()
    if by_default if of_output is None else of_output:
        assert answer.headers["content-type"] == "application/octet-stream"
        logits = np.frombuffer(content[int(length) :], np.float32)
        (output,) = json.loads(content[: int(length)])["outputs"]
        assert output["parameters"] == {"binary_data_size": 4 * CLASSES}
    else:
        assert length is None
        logits = np.array(json.loads(content)["outputs"][0]["data"], np.float32)
    close(logits[None], right_logits(images))


def test_chunked_body_and_deflate_by_hand(server: ServerProcess) -> None:
    images = random_images(1)
    body = zlib.compress(json.dumps(request_json(images, images.tolist())).encode())
    host, _, port = server.http.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    pieces = (body[i : i + 100] for i in range(0, len(body), 100))
    headers = {"Content-Encoding": "deflate"}
    connection.request("POST", f"/v2/models/{NAME}/infer", pieces, headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 200
    close(np.array([json.loads(answer.read())["outputs"][0]["data"]], np.float32), right_logits(images))
    connection.close()


def test_concurrent_requests_are_not_mixed_up(server: ServerProcess) -> None:
    counts: Counter[str] = Counter()

    def work(number: int) -> None:
        transport = ("http", "grpc")[number % 2]
        with CLIENTS[transport].InferenceServerClient(getattr(server, transport)) as connected:
            for turn in range(25):
                images = random_images(1 + (number + turn) % 4, seed=100 * number + turn)
                found = Client(transport, connected).infer(images).as_numpy("logits")
                counts["right" if np.allclose(found, right_logits(images), atol=1e-4) else "wrong"] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counts == {"right": 300}


def test_malformed_requests_are_refused_and_leave_the_server_well(server: ServerProcess) -> None:
    limits = server.wait_for("ready")["limits"]
    target = Target(NAME, (3, SIZE, SIZE), limits["max_batch"], limits["max_bytes"])
    rng = random.Random(7)  # noqa: S311
    with grpc.insecure_channel(server.grpc) as channel:
        for number in range(200):
            if number % 2:
                case = http_case(rng, target)
                assert 400 <= send_http(server.http, case) < 500, case
            else:
                message = grpc_case(rng, target)
                assert send_grpc(channel, message) in REFUSALS, message
    assert not [entry for entry in server.events("request") if entry["outcome"] == "internal"]
    assert server.ask("/v2/health/ready") == (200, {"ready": True})


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100,
        b"GET / HTTP/1.1\r\n" * 5,
        b"POST /v2/models/a/infer HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v2/models/a/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_by_400(server: ServerProcess, data: bytes) -> None:
    assert send_garbage(server.http, data) == 400


def test_metrics(server: ServerProcess) -> None:
    def read() -> dict[str, float]:
        lines = server.ask("/metrics")[1].decode().splitlines()
        return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    before = read()
    images = random_images(4)
    body = json.dumps(request_json(images, images.ravel().tolist())).encode()
    assert server.ask(f"/v2/models/{NAME}/infer", body)[0] == 200
    assert server.ask(f"/v2/models/{NAME}/infer", b"[]")[0] == 400
    assert server.ask("/v2/models/nothing/infer", body)[0] == 404
    change = {key: value - before.get(key, 0) for key, value in read().items()}
    labels = f'model="{NAME}"'
    assert change[f'fmkt_requests_total{{{labels},outcome="success",transport="http"}}'] == 1
    assert change[f'fmkt_requests_total{{{labels},outcome="invalid",transport="http"}}'] == 1
    assert change['fmkt_requests_total{model="",outcome="not_found",transport="http"}'] == 1
    assert change[f"fmkt_images_total{{{labels}}}"] == 4
    assert change[f"fmkt_compute_seconds_count{{{labels}}}"] == change[f"fmkt_queue_seconds_count{{{labels}}}"] == 1
    assert change[f'nv_inference_request_success{{{labels},version="1"}}'] == 1
    assert change[f'nv_inference_request_failure{{{labels},version="1"}}'] == 1
    assert change[f'nv_inference_count{{{labels},version="1"}}'] == 4
    assert read()["fmkt_accepted_requests"] == 0
    assert read()["fmkt_ready"] == 1


def test_every_log_line_is_json(server: ServerProcess) -> None:
    images = random_images(1)
    body = json.dumps(request_json(images, images.tolist()) | {"id": "find me"}).encode()
    server.ask(f"/v2/models/{NAME}/infer", gzip.compress(body), {"Content-Encoding": "gzip"})
    server.ask(f"/v2/models/{NAME}/infer", b'{"id": "and me", "inputs": []}')
    found = server.wait_for("request", id="find me")
    assert (found["model"], found["transport"], found["status"], found["reason"]) == (NAME, "http", 200, None)
    assert 0 < found["ms"] < 10_000
    found = server.wait_for("request", outcome="invalid", status=400, model=NAME, id="and me")
    assert "expected exactly once, got 0 inputs" in found["reason"]
    entries = [json.loads(line) for line in server.lines]
    assert all({"ts", "level", "event"} <= set(entry) for entry in entries)


def test_listens_on_loopback_unless_told_otherwise(server: ServerProcess) -> None:
    ready = server.wait_for("ready")
    assert ready["http"].startswith("127.0.0.1:")
    assert ready["grpc"].startswith("127.0.0.1:")
    assert not server.events("exposed")


def test_serving_does_not_need_pytorch() -> None:
    code = "import pipeline.serving.server, stages.commands.serve, sys; assert 'torch' not in sys.modules"
    assert run_python(code) == (0, "")
