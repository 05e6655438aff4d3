"""Every wrong request is refused with a status of the client's fault and a reason that names what is wrong."""

import gzip
import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from pipeline.serving.refusal import Reason, RefusalError
from pipeline.serving.tensors import InputTensor, TensorSpec, classified, read_batch, to_bytes
from pipeline.serving.wire import decompressed
from workbench.serving_helpers import NAME, SIZE, ServerProcess, make_package, random_images, serving

PATH = f"/v2/models/{NAME}/infer"
COUNT = 3 * SIZE * SIZE
RAW = random_images(1).tobytes()
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    package = make_package(tmp_path_factory.mktemp("served") / "package")
    with serving(package, "--max-batch", "4", "--max-bytes", "20000") as running:
        yield running


def document() -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": "image",
                "datatype": "FP32",
                "shape": [1, 3, SIZE, SIZE],
                "parameters": {"binary_data_size": len(RAW)},
            }
        ]
    }


def ask(server: ServerProcess, content: dict[str, Any], raw: bytes = RAW, **headers: str) -> tuple[int, str]:
    text = json.dumps(content).encode()
    given = {"Inference-Header-Content-Length": str(len(text))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    status, answer = server.ask(PATH, text + raw, given)
    return status, answer.get("error", "")


def entry(**changes: Any) -> Change:
    return lambda content: content["inputs"][0].update(changes)


def values(*data: Any) -> Change:
    """Replace the binary data by ``data``, filled up to the right number."""

    def change(content: dict[str, Any]) -> None:
        del content["inputs"][0]["parameters"]
        content["inputs"][0]["data"] = [*data, *[0] * (COUNT - len(data))]

    return change


def shape(*sizes: Any) -> Change:
    return entry(shape=list(sizes))


WRONG: dict[str, tuple[Change, str]] = {
    "name": (entry(name="images"), "input 'images': the model has no such input; its input is 'image'"),
    "no name": (lambda c: c["inputs"][0].pop("name"), "input: 'name' is missing, expected a text"),
    "datatype": (entry(datatype="FP64"), "data type 'FP64', expected 'FP32'"),
    "bytes": (entry(datatype="BYTES"), "shape [1, 3, 8, 8], expected [batch] or [batch, 1] of BYTES"),
    "no datatype": (lambda c: c["inputs"][0].pop("datatype"), "'datatype' is missing"),
    "rank": (shape(3, SIZE, SIZE), f"shape [3, {SIZE}, {SIZE}], expected [batch, 3, {SIZE}, {SIZE}]"),
    "channels last": (shape(1, SIZE, SIZE, 3), "expected [batch, 3, 8, 8]"),
    "another size": (shape(1, 3, 224, 224), "shape [1, 3, 224, 224], expected [batch, 3, 8, 8]"),
    "batch 0": (shape(0, 3, SIZE, SIZE), "a batch of 0, expected 1 to 4"),
    "batch 5": (shape(5, 3, SIZE, SIZE), "a batch of 5, expected 1 to 4"),
    "negative": (shape(-1, 3, SIZE, SIZE), "a batch of -1, expected 1 to 4"),
    "huge": (shape(10**30, 3, SIZE, SIZE), "expected 1 to 4"),
    "fraction": (shape(1.0, 3, SIZE, SIZE), "expected whole numbers"),
    "truth": (shape(*[True], 3, SIZE, SIZE), "expected whole numbers"),
    "shape text": (entry(shape="1388"), "'shape' is '1388', expected a list"),
    "size": (entry(parameters={"binary_data_size": len(RAW) - 4}), "4 bytes follow the JSON"),
    "size too large": (
        entry(parameters={"binary_data_size": len(RAW) + 4}),
        "binary_data_size is 772, the body has 768",
    ),
    "size negative": (entry(parameters={"binary_data_size": -1}), "binary_data_size is -1"),
    "no data": (entry(parameters={}), "'data' is missing, expected a list"),
    "both": (entry(data=[1]), "has both data and a binary_data_size"),
    "shared memory": (entry(parameters={"shared_memory_region": "a"}), "shared memory is not offered"),
    "two inputs": (lambda c: c.update(inputs=c["inputs"] * 2), "binary_data_size is 768, the body has 0 left"),
    "no inputs": (lambda c: c.pop("inputs"), "768 bytes follow the JSON"),
    "inputs object": (lambda c: c.update(inputs={}), "'inputs' is {}, expected a list"),
    "inputs numbers": (lambda c: c.update(inputs=[1]), "inputs: expected a list of objects"),
    "output": (lambda c: c.update(outputs=[{"name": "probs"}]), "output 'probs': the model has no such output"),
    "outputs": (lambda c: c.update(outputs=[{"name": "logits"}] * 2), "output 'logits': asked for 2 times"),
    "classes": (
        lambda c: c.update(outputs=[{"name": "logits", "parameters": {"classification": -1}}]),
        "classification is -1, expected a number of classes",
    ),
    "id": (lambda c: c.update(id=7), "'id' is 7, expected a text"),
    "timeout": (lambda c: c.update(parameters={"timeout": "1"}), "timeout: '1', expected a number of microseconds"),
    "binary output": (lambda c: c.update(parameters={"binary_data_output": 1}), "'binary_data_output' is 1"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_json_with_binary_data(server: ServerProcess, kind: str) -> None:
    change, reason = WRONG[kind]
    content = document()
    change(content)
    status, error = ask(server, content)
    assert status == (404 if kind == "output" else 400), error
    assert reason in error


VALUES: dict[str, tuple[Change, str]] = {
    "text": (values("1"), "values of type str, expected numbers of type FP32"),
    "truth": (values(True), "values of type bool"),  # noqa: FBT003
    "null": (values(None), "values of type NoneType"),
    "list": (values(0, [1]), "values of type list"),
    "nested": (values([1]), "nested otherwise than its shape"),
    "beyond float32": (values(1e300), "not finite"),
    "beyond float64": (values(10**400), "beyond the range of FP32"),
    "twice": (
        lambda c: (values(1)(c), c.update(inputs=c["inputs"] * 2)),
        "'image' is expected exactly once, got 2 inputs",
    ),
    "none": (lambda c: c.update(inputs=[]), "'image' is expected exactly once, got 0 inputs"),
    "too many": (values(*[0.5] * (COUNT + 1)), "193 values, but its shape makes 192"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_wrong_values_in_json(server: ServerProcess, kind: str) -> None:
    change, reason = VALUES[kind]
    content = document()
    change(content)
    status, error = ask(server, content, b"")
    assert status == 400
    assert reason in error


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(server: ServerProcess, value: float) -> None:
    images = random_images(1)
    images[0, 2, 7, 7] = value
    status, error = ask(server, document(), images.tobytes())
    assert (status, "not finite (NaN or infinity)" in error) == (400, True)


def test_values_whose_logits_are_not_finite(server: ServerProcess) -> None:
    status, error = ask(server, document(), np.full((1, 3, SIZE, SIZE), 3e38, np.float32).tobytes())
    assert (status, "output 'logits' of these values is not finite" in error) == (400, True)


@pytest.mark.parametrize("raw", [b"", RAW[:-1], RAW + b"\0"])
def test_binary_data_of_the_wrong_length(server: ServerProcess, raw: bytes) -> None:
    status, error = ask(server, document(), raw)
    assert status == 400
    assert "the body has" in error or "1 bytes follow the JSON" in error


@pytest.mark.parametrize("length", ["-1", "0", "a", "1e2", "", "99999", "9" * 40, "50", "\u0663"])
def test_wrong_header_length(server: ServerProcess, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length.encode().decode("latin-1")}
    status, answer = server.ask(PATH, json.dumps(document()).encode() + RAW, headers)
    assert status == 400
    assert "Inference-Header-Content-Length" in answer["error"] or "not valid JSON" in answer["error"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"inputs": NaN}', "NaN is no JSON number"),
        (b'{"inputs": -Infinity}', "-Infinity is no JSON number"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 9000, "not valid JSON"),
        (b"[]", "the body is a JSON list, expected an object"),
        (b"null", "the body is a JSON NoneType"),
        (b"\x80\x04\x95", "not valid JSON"),
    ],
)
def test_what_is_no_json(server: ServerProcess, body: bytes, reason: str) -> None:
    status, answer = server.ask(PATH, body)
    assert status == 400
    assert reason in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("POST", "/v2/models/other/infer", 404, f"model 'other': no such model; this server has {NAME}"),
        ("POST", f"/v2/models/{NAME}/versions/2/infer", 404, "no version '2', only 1"),
        ("GET", PATH, 405, "Method Not Allowed; it takes POST"),
        ("DELETE", f"/v2/models/{NAME}", 405, "Method Not Allowed"),
        ("GET", "/v2/models", 404, "Not Found; GET / names the paths"),
        ("POST", "/", 405, "Method Not Allowed"),
        ("GET", "/predict", 405, "Method Not Allowed; it takes POST"),
        ("GET", f"/v2/models/other/{'x' * 3000}", 404, "Not Found"),
        ("GET", "/v2/models/other", 404, "no such model"),
        ("GET", "/v2/models/other/stats", 404, "no such model"),
        ("POST", f"/v2/repository/models/{NAME}/load", 400, "models are loaded when the server starts"),
        ("POST", "/v2/systemsharedmemory/region/a/register", 400, "shared memory is not offered"),
        ("GET", "/v2/cudasharedmemory/status", 400, "shared memory is not offered"),
    ],
)
def test_wrong_path_or_method(server: ServerProcess, method: str, path: str, status: int, reason: str) -> None:
    found, answer = server.ask(path, b"{}" if method == "POST" else None, method=method)
    assert found == status
    assert reason in answer["error"]


@pytest.mark.parametrize(
    ("encoding", "pack", "status", "reason"),
    [
        ("br", bytes, 415, "content-encoding 'br': known are gzip, deflate, identity"),
        ("gzip", bytes, 400, "the body is not gzip"),
        ("gzip", lambda body: gzip.compress(body)[:-9], 400, "cut short"),
        ("gzip", lambda body: gzip.compress(body) + b"x", 400, "goes on after its end"),
        ("deflate", gzip.compress, 400, "the body is not deflate"),
        ("gzip", lambda _: gzip.compress(bytes(10**8)), 413, "more than 20000 bytes"),
    ],
)
def test_wrong_encoding(server: ServerProcess, encoding: str, pack: Any, status: int, reason: str) -> None:
    body = json.dumps(document()).encode() + RAW
    found, answer = server.ask(
        PATH, pack(body)[:19000] if status == 413 else pack(body), {"Content-Encoding": encoding}
    )
    assert found == status
    assert reason in answer["error"]


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large(server: ServerProcess, chunked: bool) -> None:
    body = bytes(20_001)
    pieces: Any = iter([body[:10_000], body[10_000:]]) if chunked else body
    status, answer = server.ask(PATH, pieces, {"Transfer-Encoding": "chunked"} if chunked else {})
    assert (status, answer["error"]) == (413, "the body has more than 20000 bytes, which is the limit")


def ask_grpc(server: ServerProcess, message: Any) -> tuple[str, str]:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=10)
    return error.value.code().name, error.value.details()


def message(*, model: str = NAME, version: str = "", raw: bytes | None = RAW, **changes: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    request.inputs.add(**({"name": "image", "datatype": "FP32", "shape": [1, 3, SIZE, SIZE]} | changes))
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


INTS = service_pb2.InferTensorContents(int_contents=[1] * COUNT)
FLOATS = service_pb2.InferTensorContents(fp32_contents=[1] * (COUNT - 1))
SHARED = {"shared_memory_region": service_pb2.InferParameter(string_param="a")}
GRPC: dict[str, tuple[dict[str, Any], str, str]] = {
    "model": ({"model": "other"}, "NOT_FOUND", "no such model"),
    "version": ({"version": "7"}, "NOT_FOUND", "no version '7'"),
    "name": ({"name": "x"}, "INVALID_ARGUMENT", "input 'x': the model has no such input"),
    "datatype": ({"datatype": "FP16"}, "INVALID_ARGUMENT", "data type 'FP16', expected 'FP32'"),
    "shape": ({"shape": [2, 3, SIZE, SIZE]}, "INVALID_ARGUMENT", "768 bytes, but its shape and data type make 1536"),
    "batch": ({"shape": [-1, 3, SIZE, SIZE]}, "INVALID_ARGUMENT", "a batch of -1"),
    "rank": ({"shape": []}, "INVALID_ARGUMENT", "shape [], expected"),
    "cut": ({"raw": RAW[:-2]}, "INVALID_ARGUMENT", "766 bytes"),
    "no data": ({"raw": None}, "INVALID_ARGUMENT", "0 values, but its shape makes 192"),
    "both": ({"contents": FLOATS}, "INVALID_ARGUMENT", "has both contents and raw_input_contents"),
    "few": ({"raw": None, "contents": FLOATS}, "INVALID_ARGUMENT", "191 values, but its shape makes 192"),
    "field": ({"raw": None, "contents": INTS}, "INVALID_ARGUMENT", "in int_contents, expected in fp32_contents"),
    "shared memory": ({"parameters": SHARED}, "UNIMPLEMENTED", "shared memory is not offered"),
    "too large": ({"raw": bytes(20_001)}, "RESOURCE_EXHAUSTED", "larger than max"),
}


@pytest.mark.parametrize("kind", GRPC)
def test_wrong_messages(server: ServerProcess, kind: str) -> None:
    changes, code, reason = GRPC[kind]
    found = ask_grpc(server, message(**changes))
    assert found[0] == code
    assert reason in found[1]


def test_bytes_that_are_no_message(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff" * 9, timeout=10)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a ModelInferRequest" in error.value.details()


@pytest.mark.parametrize("data", [[256], [-1], [0.5], [True], ["1"], [10**30]])
def test_values_of_uint8(data: list[Any]) -> None:
    spec = TensorSpec("image", "UINT8", (1,))
    with pytest.raises(RefusalError, match="UINT8") as error:
        read_batch(InputTensor("image", "UINT8", [1, 1], data), spec, 1)
    assert error.value.reason is Reason.INVALID
    assert read_batch(InputTensor("image", "UINT8", [1, 1], [255]), spec, 1).tolist() == [[255]]


def test_a_bomb_is_not_unpacked() -> None:
    packed = gzip.compress(bytes(10**7))
    assert len(packed) < 20_000
    with pytest.raises(RefusalError) as error:
        decompressed(packed, "gzip", 10**6)
    assert error.value.reason is Reason.TOO_LARGE
    assert decompressed(packed, "gzip", 10**7) == bytes(10**7)


def test_texts_of_classification_in_binary() -> None:
    texts = classified(np.array([[1.5, -2, 3]], np.float32), 9, ["a", "é", "c:d"])
    assert texts.tolist() == [["3.000000:2:c:d", "1.500000:0:a", "-2.000000:1:é"]]
    assert to_bytes(texts)[:18] == b"\x0e\0\0\x003.000000:2:c:d"


def test_a_probe_by_head_is_answered_on_a_connection_that_stays_open(server: ServerProcess) -> None:
    host, port = server.http.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    for _ in range(2):
        connection.request("HEAD", "/v2/health/live")
        answered = connection.getresponse()
        assert (answered.status, answered.read()) == (200, b"")
    connection.close()


def test_a_time_limit_beyond_all_time_is_refused(server: ServerProcess) -> None:
    body = json.dumps({"inputs": [], "parameters": {"timeout": 10**400}}).encode()
    status, said = server.ask(PATH, body)
    assert status == 400
    assert "timeout" in str(said)


def test_a_question_for_the_index_is_short(server: ServerProcess) -> None:
    assert server.ask("/v2/repository/index", b" " * 70_000)[0] == 413
